import {
  type Backend,
  type BackendChoice,
  type CacheStorage,
  type RowStorage,
  selectBackend,
} from './backend.ts';
import { checkFile, PIECE_BYTES, plainBytes, readUpTo, sizeOfFile, writeAll } from './byte-file.ts';
import {
  altered,
  type Block,
  type CacheHeader,
  CHECKSUM_BYTES,
  checkComplete,
  describeState,
  encodeHeader,
  headerBytesOf,
  PREFIX_BYTES,
  parseHeader,
  type SavedState,
} from './cache-header.ts';
import { CacheState } from './cache-state.ts';
import { crc32 } from './crc32.ts';
import { CapacityError } from './errors.ts';
import { BACKENDS, checkOptions, readWord } from './options.ts';
import { RaggedStorage } from './ragged-cache.ts';
import { areInt8Rows } from './tensor-int8.ts';

/** Where `KVCache.saveTo` writes and `KVCache.loadFrom` reads: a FileHandle of `node:fs/promises`, or what acts like one. */
export interface CacheFile {
  /** As FileHandle.read: up to `length` bytes from where the file stands (position null); bytesRead 0 at its end. */
  read(
    buffer: Uint8Array,
    offset: number,
    length: number,
    position: null,
  ): Promise<{ readonly bytesRead: number }>;
  /** As FileHandle.write. */
  write(
    buffer: Uint8Array,
    offset: number,
    length: number,
    position: null,
  ): Promise<{ readonly bytesWritten: number }>;
}

/** The options of `KVCache.load` and `KVCache.loadFrom`. */
export interface CacheLoadOptions {
  /** Who holds the memory and computes from here on. Default 'auto'. */
  readonly backend?: BackendChoice | null;
}

/** Successive rows of one kind. */
interface Piece {
  readonly block: Block;
  readonly first: number;
  readonly bytes: number;
}

function* piecesOf({ blocks }: CacheHeader): Generator<Piece> {
  for (const block of blocks) {
    const { rows, rowBytes } = block;
    const most = Math.max(1, Math.floor(PIECE_BYTES / rowBytes));
    for (let first = 0; first < rows; first += most)
      yield { block, first, bytes: Math.min(most, rows - first) * rowBytes };
  }
}

/** Two buffers that hold any piece, so that one is filled while the other is on its way. */
function makeBuffers(header: CacheHeader): readonly [Uint8Array, Uint8Array] {
  let bytes = 0;
  for (const { rows, rowBytes } of header.blocks)
    bytes = Math.max(bytes, Math.min(rows * rowBytes, Math.max(PIECE_BYTES, rowBytes)));
  return [new Uint8Array(bytes), new Uint8Array(bytes)];
}

function checksumBytes(checksum: number): Uint8Array {
  const bytes = new Uint8Array(CHECKSUM_BYTES);
  new DataView(bytes.buffer).setUint32(0, checksum, true);
  return bytes;
}

/** What is to be written: its header, and who holds the rows of each entry. */
function describe({ layout, storage, newest }: CacheState): {
  readonly header: CacheHeader;
  readonly holders: readonly RowStorage[];
} {
  const holders = storage.rowStorages();
  const newestOf = storage instanceof RaggedStorage ? storage.newestOfEach : [newest];
  const entries = holders.map(({ length, keptBegin }, n) => ({ length, keptBegin, newest: newestOf[n] }));
  return { header: describeState({ layout, entries }), holders };
}

/** The whole file of a cache. */
export function save(caller: string, state: CacheState): Uint8Array {
  const { header, holders } = describe(state);
  const bytes = allocate(caller, header.fileBytes);
  const head = encodeHeader(header);
  bytes.set(head);
  let checksum = crc32(head);
  let at = head.length;
  for (const { block, first, bytes: length } of piecesOf(header)) {
    const piece = bytes.subarray(at, at + length);
    holders[block.entry].readRows(block.kind, first, piece);
    checksum = crc32(piece, checksum);
    at += length;
  }
  bytes.set(checksumBytes(checksum), at);
  return bytes;
}

function allocate(caller: string, bytes: number): Uint8Array {
  try {
    return new Uint8Array(bytes);
  } catch (error) {
    throw new CapacityError(
      `${caller}: no memory for the ${bytes} bytes of the cache in one piece; write it to a file with saveTo`,
      { cause: error },
    );
  }
}

/**
 * The cache that a whole file holds. Nothing is made before every byte was checked.
 *
 * @throws OptionError, CapacityError
 */
export function load(
  caller: string,
  given: unknown,
  options: CacheLoadOptions | null | undefined,
): CacheState {
  const backend = readBackend(caller, options);
  const bytes = plainBytes(caller, given, 'as KVCache.save returns it');
  const header = parseHeader(caller, bytes);
  checkComplete(caller, bytes.length, header.fileBytes);
  if (bytes.length > header.fileBytes)
    throw altered(caller, `${bytes.length} bytes where its header tells of ${header.fileBytes}`);
  const end = bytes.length - CHECKSUM_BYTES;
  checkChecksum(caller, crc32(bytes.subarray(0, end)), bytes.subarray(end));
  for (const { block, rows } of rowsOf(header, bytes)) checkRows(caller, header, block, rows);
  const loaded = makeState(backend, header);
  const holders = loaded.storage.rowStorages();
  for (const { block, first, rows } of rowsOf(header, bytes))
    holders[block.entry].writeRows(block.kind, first, rows);
  return loaded;
}

/** The rows in the bytes of a whole file, in pieces. */
function* rowsOf(header: CacheHeader, bytes: Uint8Array): Generator<Piece & { readonly rows: Uint8Array }> {
  let at = header.headerBytes;
  for (const piece of piecesOf(header)) {
    yield { ...piece, rows: bytes.subarray(at, at + piece.bytes) };
    at += piece.bytes;
  }
}

/** That rows of int8 are such as a cache makes; a checksum can be right for others. */
function checkRows(caller: string, { layout }: CacheHeader, { kind }: Block, rows: Uint8Array): void {
  if (layout.dtype !== 'int8' || areInt8Rows(rows, kind === 'keys' ? layout.headDim : layout.valueDim))
    return;
  throw altered(caller, `a row of ${kind} whose scale or numbers no cache of int8 makes`);
}

function checkChecksum(caller: string, checksum: number, stored: Uint8Array): void {
  if (checksumBytes(checksum).every((byte, n) => byte === stored[n])) return;
  throw altered(caller, 'a checksum that does not match');
}

/** The backend that is to hold the cache. */
function readBackend(caller: string, options: CacheLoadOptions | null | undefined): Backend {
  const { backend } = checkOptions(caller, 'options', options, ['backend']);
  return selectBackend(readWord(caller, 'backend', backend, BACKENDS));
}

/** A cache in that state, whose rows are still to come. */
function makeState(backend: Backend, { layout, entries }: SavedState): CacheState {
  const isRagged = entries.length > 1;
  const storages: CacheStorage[] = [];
  try {
    for (const { keptBegin, length } of entries) {
      const storage = backend.createCache(isRagged ? { ...layout, batch: 1 } : layout);
      storages.push(storage);
      storage.rowStorages()[0].restore(keptBegin, length);
    }
  } catch (error) {
    for (const storage of storages) storage.dispose();
    throw error;
  }
  const newest = entries.map((entry) => entry.newest);
  const storage = isRagged ? new RaggedStorage(backend, layout, storages, newest) : storages[0];
  return new CacheState(
    layout,
    backend,
    storage,
    newest.reduce((least, own) => Math.min(least, own), Infinity),
  );
}

/**
 * Writes the file of a cache to where `file` stands, a piece at a time: while one is written the next is gathered. They come
 * from a fork, so that the cache may change meanwhile.
 */
export async function saveTo(caller: string, file: CacheFile, state: CacheState): Promise<void> {
  checkFile(caller, file, 'write');
  const fork = state.fork();
  try {
    await writePieces(caller, file, fork);
  } finally {
    fork.dispose();
  }
}

async function writePieces(caller: string, file: CacheFile, state: CacheState): Promise<void> {
  const { header, holders } = describe(state);
  const buffers = makeBuffers(header);
  const head = encodeHeader(header);
  let checksum = crc32(head);
  let turn = 0;
  let writing = writeAll(caller, file, head, 'cache');
  try {
    for (const { block, first, bytes: length } of piecesOf(header)) {
      const piece = buffers[turn].subarray(0, length);
      turn = 1 - turn;
      holders[block.entry].readRows(block.kind, first, piece);
      checksum = crc32(piece, checksum);
      await writing;
      writing = writeAll(caller, file, piece, 'cache');
    }
    await writing;
    await writeAll(caller, file, checksumBytes(checksum), 'cache');
  } finally {
    await writing.catch(() => {});
  }
}

/**
 * The cache whose file begins where `file` stands, which stands behind it then. While a piece is copied into the cache the
 * next is read.
 *
 * @throws OptionError, CapacityError; what `file.read` throws. Nothing stays of the cache then.
 */
export async function loadFrom(
  caller: string,
  file: CacheFile,
  options: CacheLoadOptions | null | undefined,
): Promise<CacheState> {
  checkFile(caller, file, 'read');
  const backend = readBackend(caller, options);
  const size = (await sizeOfFile(file)) ?? Infinity;
  const prefix = new Uint8Array(PREFIX_BYTES);
  const present = await readUpTo(caller, file, prefix);
  const headerBytes = headerBytesOf(caller, prefix.subarray(0, present));
  checkComplete(caller, size, headerBytes); // before memory is taken for a lie
  const head = new Uint8Array(headerBytes);
  head.set(prefix);
  checkComplete(
    caller,
    PREFIX_BYTES + (await readUpTo(caller, file, head.subarray(PREFIX_BYTES))),
    head.length,
  );
  const header = parseHeader(caller, head);
  checkComplete(caller, size, header.fileBytes);
  const loaded = makeState(backend, header);
  try {
    await fillFrom(caller, file, loaded.storage.rowStorages(), header, crc32(head));
  } catch (error) {
    loaded.dispose();
    throw error;
  }
  return loaded;
}

async function fillFrom(
  caller: string,
  file: CacheFile,
  holders: readonly RowStorage[],
  header: CacheHeader,
  headChecksum: number,
): Promise<void> {
  let at = header.headerBytes;
  const readAll = async (bytes: Uint8Array): Promise<void> => {
    const present = await readUpTo(caller, file, bytes);
    at += present;
    if (present < bytes.length) checkComplete(caller, at, header.fileBytes);
  };
  const buffers = makeBuffers(header);
  let checksum = headChecksum;
  let turn = 0;
  let reading = Promise.resolve();
  let takeArrived = (): void => {};
  try {
    for (const { block, first, bytes: length } of piecesOf(header)) {
      const piece = buffers[turn].subarray(0, length);
      turn = 1 - turn;
      reading = readAll(piece);
      takeArrived();
      await reading;
      takeArrived = () => {
        checkRows(caller, header, block, piece);
        holders[block.entry].writeRows(block.kind, first, piece);
        checksum = crc32(piece, checksum);
      };
    }
    takeArrived();
  } finally {
    await reading.catch(() => {});
  }
  const stored = new Uint8Array(CHECKSUM_BYTES);
  await readAll(stored);
  checkChecksum(caller, checksum, stored);
}
