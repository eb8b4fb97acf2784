import { checkFile, type ReadableFile, readUpTo, sizeOfFile } from '../byte-file.ts';
import { isLittleEndian } from '../dtype.ts';
import { ShapeError } from '../errors.ts';
import { checkOptions } from '../options.ts';
import { Tensor } from '../tensor.ts';
import { formatValue } from '../tensor-layout.ts';
import { readElements } from './elements-in.ts';
import { checkSize, type ReadOptions, readAsked } from './reading.ts';
import { checkEnd, throwNoTensor } from './safetensors.ts';
import {
  checkComplete,
  headerBytesOf,
  type LocatedEntry,
  parseSafetensorsHeader,
  SAFETENSORS_PREFIX_BYTES,
  type SafetensorsEntry,
  type SafetensorsHeader,
  storedTypeOf,
} from './safetensors-header.ts';
import { resultDType, storedBytes } from './stored-elements.ts';

/** Which part of a tensor is read, and as what. */
export interface TensorReadOptions extends ReadOptions {
  /** Rows `start` to `end` (exclusive) of the first axis, as `Tensor.slice` counts: negative from the end. Default: all. */
  readonly start?: number | null;
  readonly end?: number | null;
}

/**
 * An open .safetensors file, of which only the header was read.
 * @example
 * const file = await open('attention.safetensors');
 * const weights = await openSafetensors(file);
 * const q = await weights.read('q');
 * await file.close();
 */
export class SafetensorsFile {
  readonly #file: ReadableFile;
  readonly #dataBegin: number;
  readonly #entries: ReadonlyMap<string, LocatedEntry>;
  /** In the order of their bytes. */
  readonly names: readonly string[];
  /** Texts by their names; without a prototype. */
  readonly metadata: Readonly<Record<string, string>>;

  /** @internal */
  constructor(file: ReadableFile, { entries, metadata }: SafetensorsHeader, dataBegin: number) {
    this.#file = file;
    this.#dataBegin = dataBegin;
    this.#entries = new Map(entries.map((entry) => [entry.name, entry]));
    this.names = Object.freeze([...this.#entries.keys()]);
    this.metadata = Object.freeze(metadata);
  }

  /**
   * Whether there is a tensor of that name.
   * @example weights.has('q'); // true
   */
  has(name: string): boolean {
    return this.#entries.has(name);
  }

  /**
   * dtype, shape and bytes of a tensor, without reading it.
   *
   * @throws OptionError where there is none of that name
   * @example weights.describe('q').shape; // [1, 8, 32, 64]
   */
  describe(name: string): SafetensorsEntry {
    const { dtype, shape, byteLength } = this.#entryOf('SafetensorsFile.describe', name);
    return { dtype, shape, byteLength };
  }

  /**
   * A tensor, or some rows of it, read into memory of its own. Reads may run side by side.
   *
   * @param options `start`, `end`: which rows of the first axis; `dtype`: {@link ReadOptions}
   * @throws OptionError where there is none of that name, or the file has become shorter; ShapeError for rows of a tensor without
   *   axes; DTypeError for types that no Tensor holds; CapacityError; what `file.read` throws
   * @example const rows = await weights.read('embeddings', { start: 0, end: 4 }); // [4, 16]
   */
  async read(name: string, options?: TensorReadOptions | null): Promise<Tensor> {
    const caller = 'SafetensorsFile.read';
    const entry = this.#entryOf(caller, name);
    const given = checkOptions(caller, 'options', options, ['dtype', 'start', 'end']);
    const { start, end } = given;
    const where = `${caller}: ${formatValue(name)}`;
    const type = storedTypeOf(where, entry);
    const dtype = resultDType(where, type, readAsked(caller, given));
    const { first, count } = readRows(where, entry, start, end);
    const rowSize = entry.size === 0 ? 0 : entry.size / (entry.shape[0] ?? 1);
    const begin = this.#dataBegin + entry.begin + first * rowSize * storedBytes(type);
    const shape = entry.shape.length === 0 ? [] : [count, ...entry.shape.slice(1)];
    const size = count * rowSize;
    await checkSize(caller, this.#file, begin + size * storedBytes(type));
    const stored = { type, isSwapped: !isLittleEndian };
    const data = await readElements(caller, this.#file, begin, stored, size, dtype);
    return new Tensor(data, shape, { dtype });
  }

  #entryOf(caller: string, name: string): LocatedEntry {
    return this.#entries.get(name) ?? throwNoTensor(caller, name, this.#entries);
  }
}

/** The rows that are meant; a tensor without axes is one row. */
function readRows(
  where: string,
  { shape }: LocatedEntry,
  start: number | null | undefined,
  end: number | null | undefined,
): { first: number; count: number } {
  const isGiven = (start ?? end ?? null) !== null;
  if (shape.length === 0 && isGiven)
    throw new ShapeError(`${where} has no axes, and so no rows; leave out start and end`);
  const [length] = shape.length === 0 ? [1] : shape;
  const clamp = (name: string, value: number): number => {
    if (Number.isSafeInteger(value) || Math.abs(value) === Infinity)
      return Math.min(Math.max(value < 0 ? value + length : value, 0), length);
    throw new ShapeError(`${where}: ${name} must be an integer; got ${formatValue(value)}`);
  };
  const first = clamp('start', start ?? 0);
  return { first, count: Math.max(clamp('end', end ?? length) - first, 0) };
}

/**
 * Opens a .safetensors file of any size: only its header is read; {@link SafetensorsFile.read} reads one tensor, or some rows of
 * it.
 *
 * @param file a FileHandle, opened for reading; the caller closes it when nothing more is read
 * @throws OptionError where the header is malformed or does not fit the file; ShapeError, DTypeError; what `file.read` throws
 * @example
 * const file = await open('attention.safetensors');
 * const weights = await openSafetensors(file);
 * weights.names; // ['embeddings', 'k', 'q', 'v']
 * const rows = await weights.read('embeddings', { start: 0, end: 4 }); // [4, 16]
 * await file.close();
 */
export async function openSafetensors(file: ReadableFile): Promise<SafetensorsFile> {
  const caller = 'openSafetensors';
  checkFile(caller, file, 'read');
  const fileBytes = await sizeOfFile(file);
  const prefix = new Uint8Array(SAFETENSORS_PREFIX_BYTES);
  const present = await readUpTo(caller, file, prefix, 0);
  const headerBytes = headerBytesOf(caller, prefix.subarray(0, present));
  const dataBegin = SAFETENSORS_PREFIX_BYTES + headerBytes;
  checkComplete(caller, fileBytes ?? dataBegin, dataBegin);
  const head = new Uint8Array(headerBytes);
  const read = await readUpTo(caller, file, head, SAFETENSORS_PREFIX_BYTES);
  checkComplete(caller, SAFETENSORS_PREFIX_BYTES + read, dataBegin);
  const header = parseSafetensorsHeader(caller, head);
  if (fileBytes !== undefined) checkEnd(caller, fileBytes, dataBegin + header.dataBytes);
  return new SafetensorsFile(file, header, dataBegin);
}
