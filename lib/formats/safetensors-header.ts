import type { DType } from '../dtype.ts';
import { DTypeError, OptionError, ShapeError } from '../errors.ts';
import { formatShape, formatValue, sizeOfShape } from '../tensor-layout.ts';
import { isWellFormed, JsonReader, malformed } from './safetensors-json.ts';
import type { StoredType } from './stored-elements.ts';

// A .safetensors file (Hugging Face, "safetensors"):
//
//   headerBytes  u64       little-endian
//   header       a JSON object: of each tensor its dtype, shape and data_offsets [begin, end) in bytes of what follows; under
//                __metadata__ texts by their names; filled up with spaces
//   elements     little-endian, row-major; each byte belongs to exactly one tensor

/** Bytes that tell how long the header is. */
export const SAFETENSORS_PREFIX_BYTES = 8;

/** As the reader of Hugging Face has it. */
const MAX_HEADER_BYTES = 100_000_000;

const METADATA = '__metadata__';

/** The element types of the format, in its order: their bits, and what they are here, if anything. */
const TYPES: Readonly<Record<string, readonly [bits: number, type?: StoredType]>> = {
  BOOL: [8, 'bool'],
  F4: [4],
  F6_E2M3: [6],
  F6_E3M2: [6],
  U8: [8, 'uint8'],
  I8: [8, 'int8'],
  F8_E5M2: [8],
  F8_E4M3: [8],
  F8_E8M0: [8],
  F8_E4M3FNUZ: [8],
  F8_E5M2FNUZ: [8],
  I16: [16, 'int16'],
  U16: [16, 'uint16'],
  F16: [16, 'float16'],
  BF16: [16, 'bfloat16'],
  I32: [32, 'int32'],
  U32: [32, 'uint32'],
  F32: [32, 'float32'],
  C64: [64],
  F64: [64, 'float64'],
  I64: [64, 'int64'],
  U64: [64, 'uint64'],
};
const TYPE_NAMES = Object.keys(TYPES);
const nameOf = (dtype: DType): string => TYPE_NAMES.find((name) => TYPES[name][1] === dtype)!;

/** A tensor in a file, as its header tells of it. */
export interface SafetensorsEntry {
  /** The word of the format: 'F32', 'F16', 'BF16', 'I8', 'U8', 'I32', 'BOOL', or a type that no Tensor holds, such as 'I64'. */
  readonly dtype: string;
  readonly shape: readonly number[];
  /** Bytes of its elements. */
  readonly byteLength: number;
}

/** The same, and where its elements stand. */
export interface LocatedEntry extends SafetensorsEntry {
  readonly name: string;
  /** The first of its bytes, counted from those of the first tensor. */
  readonly begin: number;
  readonly size: number;
}

export interface SafetensorsHeader {
  /** In the order of their bytes. */
  readonly entries: readonly LocatedEntry[];
  readonly metadata: Readonly<Record<string, string>>;
  /** Of all tensors together. */
  readonly dataBytes: number;
}

/** @throws OptionError where `bytes` of `needed` bytes are there */
export function checkComplete(caller: string, bytes: number, needed: number): void {
  if (bytes >= needed) return;
  throw new OptionError(
    `${caller}: the .safetensors file is truncated: ${bytes} of ${needed} bytes are there; copy it again`,
  );
}

/** How long the header is whose first bytes these are. */
export function headerBytesOf(caller: string, prefix: Uint8Array): number {
  checkComplete(caller, prefix.length, SAFETENSORS_PREFIX_BYTES);
  const view = new DataView(prefix.buffer, prefix.byteOffset, prefix.byteLength);
  const headerBytes = view.getBigUint64(0, true);
  if (headerBytes <= MAX_HEADER_BYTES) return Number(headerBytes);
  throw malformed(caller, `a header of ${headerBytes} bytes, where at most ${MAX_HEADER_BYTES} are allowed`);
}

/**
 * What a header says, without the bytes that tell its length: a pure function, which believes nothing.
 *
 * @throws OptionError, ShapeError, DTypeError
 */
export function parseSafetensorsHeader(caller: string, bytes: Uint8Array): SafetensorsHeader {
  const text = decodeText(caller, bytes);
  if (text[0] !== '{') throw malformed(caller, "its header does not begin with '{'");
  const reader = new JsonReader(caller, text);
  const entries: LocatedEntry[] = [];
  const metadata = Object.create(null) as Record<string, string>;
  reader.readObject((name) => {
    if (name !== METADATA) return entries.push(readEntry(caller, reader, name));
    return reader.readObject((key) => {
      metadata[key] = reader.readString();
    });
  });
  reader.readEnd();
  entries.sort((a, b) => a.begin - b.begin || a.byteLength - b.byteLength);
  let end = 0;
  for (const { name, begin, byteLength } of entries) {
    if (begin !== end) {
      const what = begin < end ? 'overlap those before' : 'leave a gap to those before';
      throw malformed(
        caller,
        `the bytes of ${formatValue(name)}, from ${begin} on, ${what}, which end at ${end}`,
      );
    }
    end = begin + byteLength;
  }
  return { entries, metadata, dataBytes: end };
}

function decodeText(caller: string, bytes: Uint8Array): string {
  try {
    // A copy: TextDecoder may refuse shared memory.
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes.slice());
  } catch (cause) {
    throw new OptionError(malformed(caller, 'its header is no UTF-8').message, { cause });
  }
}

function readEntry(caller: string, reader: JsonReader, name: string): LocatedEntry {
  let dtype: string | undefined;
  let shape: readonly number[] | undefined;
  let offsets: readonly number[] | undefined;
  const where = `${caller}: ${formatValue(name)}`;
  reader.readObject((key) => {
    if (key === 'dtype') dtype = reader.readString();
    else if (key === 'shape') shape = reader.readNumbers(`shape of ${formatValue(name)}`);
    else if (key === 'data_offsets') offsets = reader.readNumbers(`data_offsets of ${formatValue(name)}`);
    else
      throw malformed(
        caller,
        `${formatValue(name)} has ${formatValue(key)} beside dtype, shape and data_offsets`,
      );
  });
  if (dtype === undefined || shape === undefined || offsets?.length !== 2)
    throw malformed(caller, `${formatValue(name)} lacks its dtype, shape or two data_offsets`);
  if (!Object.hasOwn(TYPES, dtype)) {
    throw new DTypeError(
      `${where} has the unknown dtype ${formatValue(dtype)}; the format has ${TYPE_NAMES.join(', ')}`,
    );
  }
  const [begin, end] = offsets;
  const size = sizeOfShape(`${where}: shape`, shape);
  const bits = size * TYPES[dtype][0];
  const byteLength = end - begin;
  if (!Number.isSafeInteger(bits) || bits !== byteLength * 8) {
    throw new ShapeError(
      `${where}: shape ${formatShape(shape)} of ${dtype} needs ${bits / 8} bytes, but data_offsets [${begin}, ${end}] hold ${byteLength}`,
    );
  }
  return { name, dtype, shape, byteLength, begin, size };
}

/**
 * What the elements of an entry are here.
 *
 * @throws DTypeError for float8 and other types that nothing here reads
 */
export function storedTypeOf(where: string, { dtype }: SafetensorsEntry): StoredType {
  const type = TYPES[dtype][1];
  if (type !== undefined) return type;
  throw new DTypeError(`${where} is ${dtype}, which no Tensor holds; write it as F32, F16 or BF16`);
}

/** What is to be written of a tensor. */
export interface NamedShape {
  readonly name: string;
  readonly dtype: DType;
  readonly shape: readonly number[];
  readonly byteLength: number;
}

/** The order in a file: so that all are aligned, the largest elements first; then by name, as Hugging Face's writer has it. */
export function compareEntries(a: NamedShape, b: NamedShape): number {
  const rank = ({ dtype }: NamedShape): number => TYPE_NAMES.indexOf(nameOf(dtype));
  return rank(b) - rank(a) || Buffer.compare(Buffer.from(a.name), Buffer.from(b.name));
}

/** The bytes that stand before the elements: a multiple of 8, so that those are aligned. */
export function encodeSafetensorsHeader(
  caller: string,
  entries: readonly NamedShape[],
  metadata: Readonly<Record<string, string>> | null,
): Uint8Array {
  const parts = metadata === null ? [] : [`${JSON.stringify(METADATA)}:${JSON.stringify(metadata)}`];
  let begin = 0;
  for (const { name, dtype, shape, byteLength } of entries) {
    const end = begin + byteLength;
    parts.push(
      `${JSON.stringify(name)}:{"dtype":"${nameOf(dtype)}","shape":[${shape.join(',')}],"data_offsets":[${begin},${end}]}`,
    );
    begin = end;
  }
  const text = new TextEncoder().encode(`{${parts.join(',')}}`);
  const headerBytes = Math.ceil(text.length / 8) * 8;
  if (headerBytes > MAX_HEADER_BYTES)
    throw new OptionError(
      `${caller}: a header of ${headerBytes} bytes, where readers take ${MAX_HEADER_BYTES}; write less metadata, or several files`,
    );
  const bytes = new Uint8Array(SAFETENSORS_PREFIX_BYTES + headerBytes).fill(0x20);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(headerBytes), true);
  bytes.set(text, SAFETENSORS_PREFIX_BYTES);
  return bytes;
}

/** @throws OptionError where a name cannot stand in a file */
export function checkName(caller: string, what: string, name: string): void {
  if (name === METADATA) throw new OptionError(`${caller}: no ${what} can be called ${METADATA}; rename it`);
  if (!isWellFormed(name))
    throw new OptionError(`${caller}: the ${what} ${JSON.stringify(name)} has half a character; rename it`);
}
