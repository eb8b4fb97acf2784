import { DTYPES, type DType, isLittleEndian } from '../dtype.ts';
import { DTypeError, OptionError, ShapeError } from '../errors.ts';
import { formatShape, formatValue, maxRank, sizeOfShape } from '../tensor-layout.ts';
import { type Stored, type StoredType, storedBytes } from './stored-elements.ts';

// The header of a .npy file (NumPy, "numpy.lib.format"):
//
//   magic        6 bytes   93 4e 55 4d 50 59: \x93NUMPY
//   version      2 bytes   1.0, 2.0 or 3.0
//   headerBytes  u16 in 1.0, else u32; little-endian
//   header       a Python dict literal of descr, fortran_order and shape, filled up with spaces, then \n; Latin-1, in 3.0 UTF-8
//
// The elements follow, nothing between or behind them.

const MAGIC = [0x93, 0x4e, 0x55, 0x4d, 0x50, 0x59];

/** Bytes that tell how long the header is, in any version. */
export const NPY_PREFIX_BYTES = 12;

/** As many as NumPy reads. One of the longest that an array has here, of 64 axes, takes 1500. */
const MAX_HEADER_BYTES = 10_000;

/** What a header says. */
export interface NpyHeader {
  readonly stored: Stored;
  /** Two bytes of which the file does not tell what they are: bfloat16, where ml_dtypes wrote it. */
  readonly isRaw: boolean;
  readonly shape: readonly number[];
  readonly size: number;
  readonly isFortranOrder: boolean;
}

/** The error for a file that is not as the format has it. */
export function malformed(caller: string, what: string): OptionError {
  return new OptionError(`${caller}: this is no .npy file as NumPy writes it: ${what}`);
}

/** @throws OptionError where `bytes` of `needed` bytes are there */
export function checkComplete(caller: string, bytes: number, needed: number): void {
  if (bytes >= needed) return;
  throw new OptionError(
    `${caller}: the .npy file is truncated: ${bytes} of ${needed} bytes are there; copy it again`,
  );
}

/**
 * Where the text of the header begins and ends, by the first bytes of a file.
 *
 * @throws OptionError
 */
export function headerTextOf(caller: string, prefix: Uint8Array): { begin: number; end: number } {
  if (!MAGIC.every((byte, n) => n >= prefix.length || prefix[n] === byte))
    throw malformed(caller, 'it does not begin with \\x93NUMPY');
  checkComplete(caller, prefix.length, 10);
  const [major, minor] = prefix.subarray(6, 8);
  if (major < 1 || major > 3 || minor !== 0)
    throw malformed(caller, `version ${major}.${minor}, where 1.0, 2.0 and 3.0 are known`);
  const begin = major === 1 ? 10 : 12;
  checkComplete(caller, prefix.length, begin);
  const view = new DataView(prefix.buffer, prefix.byteOffset, prefix.byteLength);
  const length = major === 1 ? view.getUint16(8, true) : view.getUint32(8, true);
  if (length > MAX_HEADER_BYTES)
    throw malformed(
      caller,
      `a header of ${length} bytes, where ${MAX_HEADER_BYTES} are enough for any array`,
    );
  return { begin, end: begin + length };
}

type Value = string | boolean | number | readonly number[];

/** Reads a literal of Python from left to right: what a header needs of them, and no more. */
class LiteralReader {
  readonly #caller: string;
  readonly #text: string;
  #at = 0;

  constructor(caller: string, text: string) {
    this.#caller = caller;
    this.#text = text;
  }

  /** The dict that the text is, its values by their keys. */
  readDict(): Map<string, Value> {
    const entries = new Map<string, Value>();
    this.#expect('{');
    while (!this.#accept('}')) {
      const key = this.#readString();
      if (entries.has(key)) throw this.#error(`its header has ${formatValue(key)} twice`);
      this.#expect(':');
      entries.set(key, this.#readValue());
      if (this.#accept('}')) break;
      this.#expect(',');
    }
    this.#skipSpace();
    if (this.#at < this.#text.length) throw this.#unexpected('the end of the header');
    return entries;
  }

  #readValue(): Value {
    const word = this.#match(/(True|False)(?![\w])/y);
    if (word !== undefined) return word === 'True';
    const next = this.#peek();
    if (next === '(') return this.#readTuple();
    if (next === "'" || next === '"') return this.#readString();
    if (next === '[')
      throw new DTypeError(
        `${this.#caller}: the file holds records, and no Tensor does; save one field of them: x['name']`,
      );
    throw this.#unexpected('a string, True, False or a tuple of integers');
  }

  #readString(): string {
    const quoted = this.#match(/'[^'"\\\n]*'|"[^'"\\\n]*"/y);
    if (quoted === undefined) throw this.#unexpected('a string');
    return quoted.slice(1, -1);
  }

  #readTuple(): readonly number[] {
    const integers: number[] = [];
    this.#expect('(');
    while (!this.#accept(')')) {
      if (integers.length === maxRank)
        throw new ShapeError(`${this.#caller}: shape has more than ${maxRank} axes`);
      integers.push(this.#readLength());
      if (integers.length > 1 && this.#accept(')')) break;
      this.#expect(','); // (3) is no tuple
    }
    return integers;
  }

  #readLength(): number {
    const digits = this.#match(/-?(?:0|[1-9][0-9]*)L?(?![\w.])/y); // Python 2 wrote 3L
    if (digits === undefined) throw this.#unexpected('an integer');
    const length = Number.parseInt(digits, 10);
    if (length >= 0 && Number.isSafeInteger(length)) return length + 0;
    throw new ShapeError(`${this.#caller}: shape must hold lengths below 2^53; got ${digits.slice(0, 40)}`);
  }

  #skipSpace(): void {
    while (this.#at < this.#text.length && ' \t\n\r\f'.includes(this.#text[this.#at])) this.#at++;
  }

  #peek(): string | undefined {
    this.#skipSpace();
    return this.#text[this.#at];
  }

  #accept(character: string): boolean {
    if (this.#peek() !== character) return false;
    this.#at++;
    return true;
  }

  #expect(character: string): void {
    if (!this.#accept(character)) throw this.#unexpected(`'${character}'`);
  }

  #match(pattern: RegExp): string | undefined {
    this.#skipSpace();
    pattern.lastIndex = this.#at;
    const found = pattern.exec(this.#text)?.[0];
    if (found !== undefined) this.#at += found.length;
    return found;
  }

  #unexpected(wanted: string): OptionError {
    const rest = this.#text.slice(this.#at, this.#at + 20);
    return this.#error(`its header has ${formatValue(rest)} at ${this.#at} where ${wanted} belongs`);
  }

  #error(what: string): OptionError {
    return malformed(this.#caller, what);
  }
}

const KEYS = ['descr', 'fortran_order', 'shape'];

/**
 * What the text of a header says: a pure function, which believes nothing.
 *
 * @throws OptionError, ShapeError, DTypeError
 */
export function parseNpyHeader(caller: string, bytes: Uint8Array): NpyHeader {
  // A copy: TextDecoder may refuse shared memory, and Latin-1 and UTF-8 are the same where the dict can be read.
  const entries = new LiteralReader(caller, new TextDecoder().decode(bytes.slice())).readDict();
  if (entries.size !== KEYS.length || KEYS.some((key) => !entries.has(key)))
    throw malformed(caller, `its header has ${[...entries.keys()].map(formatValue).join(', ') || 'no keys'}`);
  const [descr, isFortranOrder, shape] = KEYS.map((key) => entries.get(key));
  if (typeof descr !== 'string') throw malformed(caller, 'its descr is no string');
  if (typeof isFortranOrder !== 'boolean')
    throw malformed(caller, 'its fortran_order is neither True nor False');
  if (!Array.isArray(shape)) throw malformed(caller, 'its shape is no tuple');
  const { stored, isRaw } = readDescr(caller, descr);
  const size = sizeOfShape(`${caller}: shape`, shape);
  if (!Number.isSafeInteger(size * storedBytes(stored.type)))
    throw new ShapeError(`${caller}: shape ${formatShape(shape)} has more than 2^53 - 1 bytes`);
  return { stored, isRaw, shape: Object.freeze(shape.slice()), size, isFortranOrder };
}

const TYPES: Readonly<Record<string, StoredType>> = {
  f4: 'float32',
  f2: 'float16',
  i1: 'int8',
  u1: 'uint8',
  i4: 'int32',
  b1: 'bool',
  f8: 'float64',
  i8: 'int64',
  u8: 'uint64',
  u4: 'uint32',
  i2: 'int16',
  u2: 'uint16',
  V2: 'bfloat16',
};

/** What NumPy's word for a type means, such as <f4. */
function readDescr(caller: string, descr: string): { stored: Stored; isRaw: boolean } {
  const [order, word] = /^[<>=|]/.test(descr) ? [descr[0], descr.slice(1)] : ['=', descr];
  if (!Object.hasOwn(TYPES, word)) {
    throw new DTypeError(
      `${caller}: descr ${formatValue(descr)} is a type that no Tensor holds; write it as another, e.g. x.astype(np.float32)`,
    );
  }
  const type = TYPES[word];
  const isRaw = word === 'V2';
  const each = storedBytes(type);
  if (order === '|' && each > 1 && !isRaw)
    throw malformed(caller, `descr ${formatValue(descr)} does not tell the order of its ${each} bytes`);
  const isSwapped = each > 1 && (order === '<' || order === '>') && (order === '<') !== isLittleEndian;
  return { stored: { type, isSwapped }, isRaw };
}

const DESCRS: Readonly<Record<DType, string>> = {
  float32: 'f4',
  float16: 'f2',
  bfloat16: 'V2', // as ml_dtypes has it: NumPy itself knows no bfloat16
  int8: 'i1',
  uint8: 'u1',
  int32: 'i4',
  bool: 'b1',
};

/** What NumPy leaves free so that the first axis can grow in place. */
const GROWTH_DIGITS = 21;

/** The bytes that stand before the elements, as NumPy 2 writes them: version 1.0, a multiple of 64. */
export function encodeNpyHeader(dtype: DType, shape: readonly number[]): Uint8Array {
  const order = DTYPES[dtype].bytes === 1 ? '|' : isLittleEndian ? '<' : '>';
  const tuple = shape.length === 1 ? `(${shape[0]},)` : `(${shape.join(', ')})`;
  const growth = shape.length > 0 ? GROWTH_DIGITS - String(shape[0]).length : 0;
  const dict = `{'descr': '${order}${DESCRS[dtype]}', 'fortran_order': False, 'shape': ${tuple}, }${' '.repeat(growth)}`;
  const total = Math.ceil((10 + dict.length + 1) / 64) * 64;
  const text = `${dict.padEnd(total - 11)}\n`;
  return Uint8Array.of(
    ...MAGIC,
    1,
    0,
    text.length & 255,
    text.length >> 8,
    ...new TextEncoder().encode(text),
  );
}
