import type { CacheLayout, RowKind } from './backend.ts';
import { readLayout } from './cache-layout.ts';
import { crc32 } from './crc32.ts';
import { bytesPerElement, type DType, isLittleEndian } from './dtype.ts';
import { OptionError, SdpaError } from './errors.ts';
import { int8RowBytes } from './tensor-int8.ts';

// The file of a KVCache
//
//   magic           8 bytes   89 53 44 50 41 4b 56 0a: no text, and spoilt where line ends were converted
//   version         u32       1
//   headerBytes     u32       up to the rows
//   fields          u64 each  FIELDS, in order
//   entries         u64 each  how many: 1 for the whole batch, or one a batch entry; of each ENTRY_FIELDS
//   sections        u64 each  how many; of each its kind and the bytes of a row
//   headerChecksum  u32       of all that stands before it
//   rows                      section by section, entry by entry: [batch, numKvHeads, kept tokens], a row a token, and
//                             nothing between them
//   checksum        u32       of all that stands before it
//
// Numbers are little-endian; rows are as the memory of the machine that wrote them, which `byteOrder` tells. A checksum is a
// CRC-32 (crc32.ts): any change within 32 successive bits shows for certain. The tokens of a head that are kept are
// [0, sinkTokens) and [keptBegin, length), so a file is the same whatever the ISA, the padding of rows and the history of the
// cache. A row of int8 is filled up with zeros to a multiple of 4 bytes and ends with its float32 scale.

const MAGIC = [0x89, 0x53, 0x44, 0x50, 0x41, 0x4b, 0x56, 0x0a];
const VERSION = 1;

/** Bytes that tell how long the header is. */
export const PREFIX_BYTES = 16;
export const CHECKSUM_BYTES = 4;

const FIELDS = [
  'byteOrder',
  'dtype',
  'batch',
  'numKvHeads',
  'headDim',
  'valueDim',
  'maxLength',
  'window',
  'sinkTokens',
] as const;

const ENTRY_FIELDS = ['length', 'keptBegin', 'newest'] as const;

type Fields = Record<(typeof FIELDS)[number], number>;

const MIN_HEADER_BYTES = PREFIX_BYTES + 8 * (FIELDS.length + 2) + CHECKSUM_BYTES;
const MAX_HEADER_BYTES = 2 ** 24;

const DTYPE_CODES: Partial<Record<DType, number>> = { float32: 1, float16: 2, bfloat16: 3, int8: 4 };
const ROW_KINDS: Record<RowKind, number> = { keys: 1, values: 2 };
const BYTE_ORDER = isLittleEndian ? 1 : 2;

/** Which tokens are there: of the whole batch, or of one entry. */
export interface SavedEntry {
  readonly length: number;
  /** Tokens from sinkTokens up to here are gone. */
  readonly keptBegin: number;
  /** Tokens of the last append that are still there. */
  readonly newest: number;
}

/** What a cache is beside its rows. */
export interface SavedState {
  readonly layout: CacheLayout;
  /** One for the whole batch, or one for each batch entry. */
  readonly entries: readonly SavedEntry[];
}

/** Rows of one kind and entry. */
export interface Block {
  readonly kind: RowKind;
  readonly entry: number;
  readonly rows: number;
  readonly rowBytes: number;
}

/** What a header says. */
export interface CacheHeader extends SavedState {
  /** What follows, in order. */
  readonly blocks: readonly Block[];
  /** Of the header and of the whole file. */
  readonly headerBytes: number;
  readonly fileBytes: number;
}

/** What is kept of each token. */
function sectionsOf({
  headDim,
  valueDim,
  dtype,
}: CacheLayout): readonly { kind: RowKind; rowBytes: number }[] {
  const bytes = bytesPerElement(dtype);
  const rowBytes = (dim: number): number => (dtype === 'int8' ? int8RowBytes(dim) : dim * bytes);
  return [
    { kind: 'keys', rowBytes: rowBytes(headDim) },
    { kind: 'values', rowBytes: rowBytes(valueDim) },
  ];
}

/** The header of a cache in that state. */
export function describeState({ layout, entries }: SavedState): CacheHeader {
  const { batch, numKvHeads, sinkTokens } = layout;
  const sections = sectionsOf(layout);
  const heads = (batch / entries.length) * numKvHeads;
  const blocks = sections.flatMap(({ kind, rowBytes }) =>
    entries.map(({ length, keptBegin }, entry) => {
      const rows = heads * (Math.min(sinkTokens, keptBegin) + length - keptBegin);
      return { kind, entry, rows, rowBytes };
    }),
  );
  const headerBytes = MIN_HEADER_BYTES + 8 * (entries.length * ENTRY_FIELDS.length + sections.length * 2);
  const rowBytes = blocks.reduce((sum, block) => sum + block.rows * block.rowBytes, 0);
  return { layout, entries, blocks, headerBytes, fileBytes: headerBytes + rowBytes + CHECKSUM_BYTES };
}

/** The numbers of a header, in order. */
function numbersOf({ layout, entries }: SavedState): readonly number[] {
  const fields: Fields = {
    ...layout,
    byteOrder: BYTE_ORDER,
    dtype: DTYPE_CODES[layout.dtype]!,
    maxLength: layout.maxLength === Infinity ? 0 : layout.maxLength,
  };
  const sections = sectionsOf(layout);
  return [
    ...FIELDS.map((name) => fields[name]),
    entries.length,
    ...entries.flatMap((entry) => ENTRY_FIELDS.map((name) => entry[name])),
    sections.length,
    ...sections.flatMap(({ kind, rowBytes }) => [ROW_KINDS[kind], rowBytes]),
  ];
}

/** The bytes of a header, its checksum too. */
export function encodeHeader(header: CacheHeader): Uint8Array {
  const { headerBytes } = header;
  const bytes = new Uint8Array(headerBytes);
  const view = new DataView(bytes.buffer);
  bytes.set(MAGIC);
  view.setUint32(8, VERSION, true);
  view.setUint32(12, headerBytes, true);
  numbersOf(header).forEach((number, n) => {
    view.setBigUint64(PREFIX_BYTES + 8 * n, BigInt(number), true);
  });
  const end = headerBytes - CHECKSUM_BYTES;
  view.setUint32(end, crc32(bytes.subarray(0, end)), true);
  return bytes;
}

/**
 * How long the header is whose first bytes these are.
 *
 * @throws OptionError where they are those of no file of a cache, or of one of another version
 */
export function headerBytesOf(caller: string, prefix: Uint8Array): number {
  const isFile = MAGIC.every((byte, n) => n >= prefix.length || prefix[n] === byte);
  if (!isFile) {
    throw new OptionError(
      `${caller}: this is no saved KVCache: it begins with [${hex(prefix)}] and not with [${hex(MAGIC)}]; ` +
        'give what KVCache.save or saveTo wrote, from its first byte on',
    );
  }
  checkComplete(caller, prefix.length, PREFIX_BYTES);
  const view = viewOf(prefix);
  const version = view.getUint32(8, true);
  if (version !== VERSION) {
    throw new OptionError(
      `${caller}: the saved cache has format ${version}, and this node-sdpa reads format ${VERSION}; ` +
        `${version > VERSION ? 'update node-sdpa' : 'its bytes were altered; get it anew'}`,
    );
  }
  const headerBytes = view.getUint32(12, true);
  if (headerBytes < MIN_HEADER_BYTES || headerBytes > MAX_HEADER_BYTES)
    throw altered(caller, `a header of ${headerBytes} bytes`);
  return headerBytes;
}

/**
 * What the header says that `bytes` begin with: a pure function, which reads within bounds and believes nothing.
 *
 * @throws OptionError where it is foreign, newer, truncated, altered, or describes no cache
 */
export function parseHeader(caller: string, bytes: Uint8Array): CacheHeader {
  const headerBytes = headerBytesOf(caller, bytes);
  checkComplete(caller, bytes.length, headerBytes);
  const view = viewOf(bytes);
  const end = headerBytes - CHECKSUM_BYTES;
  if (crc32(bytes.subarray(0, end)) !== view.getUint32(end, true))
    throw altered(caller, 'a header whose checksum does not match');
  const numbers = Array.from({ length: Math.floor((end - PREFIX_BYTES) / 8) }, (_, n) =>
    Number(view.getBigUint64(PREFIX_BYTES + 8 * n, true)),
  );
  const beyond = numbers.find((number) => !Number.isSafeInteger(number));
  if (beyond !== undefined) throw altered(caller, `a number of ${beyond} in its header`);
  const fields = Object.fromEntries(FIELDS.map((name, n) => [name, numbers[n]])) as Fields;
  if (fields.byteOrder !== BYTE_ORDER) {
    throw new OptionError(
      `${caller}: the saved cache has the byte order of another kind of machine (${fields.byteOrder}, here ${BYTE_ORDER}); ` +
        'load it on one of that kind',
    );
  }
  const layout = readFields(caller, fields);
  const entries = readEntries(caller, layout, numbers.slice(FIELDS.length));
  const header = describeState({ layout, entries });
  const wanted = numbersOf(header);
  if (headerBytes !== header.headerBytes || wanted.some((number, n) => numbers[n] !== number)) {
    const begin = FIELDS.length + 1 + entries.length * ENTRY_FIELDS.length;
    throw altered(
      caller,
      `sections [${numbers.slice(begin, begin + 16).join(', ')}] where its layout has [${wanted.slice(begin).join(', ')}]`,
    );
  }
  const counts = [
    layout.batch * layout.numKvHeads,
    ...header.blocks.flatMap(({ rows, rowBytes }) => [rows, rowBytes]),
  ];
  if (![...counts, header.fileBytes].every(Number.isSafeInteger))
    throw altered(caller, `${layout.batch} x ${layout.numKvHeads} heads, more bytes than can be counted`);
  return header;
}

/** The entries that `numbers` begin with, if a cache of that layout can have them. */
function readEntries(caller: string, layout: CacheLayout, numbers: readonly number[]): readonly SavedEntry[] {
  const [count] = numbers;
  const given = numbers.slice(1);
  if (count < 1 || (count !== 1 && count !== layout.batch) || count * ENTRY_FIELDS.length > given.length)
    throw altered(caller, `${count} entries of a batch of ${layout.batch}`);
  return Array.from({ length: count }, (_, n) => {
    const [length, keptBegin, newest] = given.slice(n * ENTRY_FIELDS.length);
    checkEntry(caller, layout, { length, keptBegin, newest });
    return { length, keptBegin, newest };
  });
}

function checkEntry(caller: string, layout: CacheLayout, { length, keptBegin, newest }: SavedEntry): void {
  const { window, sinkTokens, maxLength } = layout;
  const hasGap = keptBegin > 0;
  if (
    length > maxLength ||
    keptBegin > length ||
    newest > length - keptBegin ||
    (hasGap && keptBegin <= sinkTokens)
  )
    throw altered(
      caller,
      `${length} tokens from ${keptBegin} on, ${newest} of them new, of at most ${maxLength}`,
    );
  if (hasGap && window === 0) throw altered(caller, `no window and yet no tokens before ${keptBegin}`);
}

function readFields(caller: string, fields: Fields): CacheLayout {
  const { dtype: code, maxLength, window, batch, numKvHeads, headDim, valueDim, sinkTokens } = fields;
  const dtype = Object.entries(DTYPE_CODES).find((entry) => entry[1] === code)?.[0] as DType | undefined;
  if (dtype === undefined) throw altered(caller, `the dtype code ${code}`);
  try {
    return readLayout({
      batch,
      numKvHeads,
      headDim,
      valueDim,
      dtype,
      sinkTokens,
      maxLength: maxLength === 0 ? null : maxLength,
      window: window === 0 ? null : window,
    });
  } catch (error) {
    if (!(error instanceof SdpaError)) throw error;
    throw new OptionError(`${caller}: the saved cache is none that this node-sdpa makes: ${error.message}`, {
      cause: error,
    });
  }
}

/** @throws OptionError where `bytes` of `needed` bytes are there */
export function checkComplete(caller: string, bytes: number, needed: number): void {
  if (bytes >= needed) return;
  throw new OptionError(
    `${caller}: the saved cache is truncated: ${bytes} of ${needed} bytes are there; copy it again, or save again`,
  );
}

/** The error for bytes that are not those which were written. */
export function altered(caller: string, what: string): OptionError {
  return new OptionError(
    `${caller}: the saved cache was altered: it has ${what}; copy it again, or save again`,
  );
}

const viewOf = ({ buffer, byteOffset, byteLength }: Uint8Array): DataView =>
  new DataView(buffer, byteOffset, byteLength);

const hex = (bytes: ArrayLike<number>): string =>
  Array.from({ length: Math.min(8, bytes.length) }, (_, n) => bytes[n].toString(16).padStart(2, '0')).join(
    ' ',
  );
