import { DTYPES, type DType, isDType, type TensorData } from '../dtype.ts';
import { DTypeError } from '../errors.ts';
import { convert, encoderOf } from '../tensor-convert.ts';
import { allocate } from '../tensor-layout.ts';

// How files of other libraries store elements, and how they become elements of a dtype.

/** The types of elements that files have beside the dtypes of a Tensor. */
export type WideType = 'float64' | 'int64' | 'uint64' | 'uint32' | 'int16' | 'uint16';
export type StoredType = DType | WideType;

interface StoredArray {
  readonly length: number;
  readonly [index: number]: number | bigint;
}

interface StoredInfo {
  readonly bytes: number;
  readonly arrayType: new (buffer: ArrayBufferLike, byteOffset: number, length: number) => StoredArray;
}

const WIDE: Readonly<Record<WideType, StoredInfo>> = {
  float64: { bytes: 8, arrayType: Float64Array },
  int64: { bytes: 8, arrayType: BigInt64Array },
  uint64: { bytes: 8, arrayType: BigUint64Array },
  uint32: { bytes: 4, arrayType: Uint32Array },
  int16: { bytes: 2, arrayType: Int16Array },
  uint16: { bytes: 2, arrayType: Uint16Array },
};

const infoOf = (type: StoredType): StoredInfo =>
  (isDType(type) ? DTYPES[type] : WIDE[type]) as unknown as StoredInfo;

/** Bytes of one stored element. */
export const storedBytes = (type: StoredType): number => infoOf(type).bytes;

/**
 * The dtype that elements of a stored type become: the one that was asked for, else their own.
 *
 * @param where begins the message
 * @throws DTypeError where they are of a type that no Tensor has, and none was asked for
 */
export function resultDType(where: string, type: StoredType, asked: DType | undefined): DType {
  if (asked !== undefined) return asked;
  if (isDType(type)) return type;
  const nearest = type === 'float64' ? 'float32' : 'int32';
  throw new DTypeError(
    `${where} is ${type}, which no Tensor holds; read it as the nearest values of another dtype, e.g. ` +
      `{ dtype: '${nearest}' }, or write it as ${nearest} (NumPy: x.astype(np.${nearest}))`,
  );
}

/** Elements in a file. */
export interface Stored {
  readonly type: StoredType;
  /** Whether their bytes stand in the other order than this machine's. */
  readonly isSwapped: boolean;
}

/**
 * Whole elements, decoded: a view of `bytes` where they are stored as the dtype, in this machine's order and aligned; else
 * fresh memory.
 */
export function decodeElements(where: string, bytes: Uint8Array, stored: Stored, dtype: DType): TensorData {
  const { type, isSwapped } = stored;
  const { bytes: each, arrayType } = infoOf(type);
  const isAligned = bytes.byteOffset % each === 0;
  const source = isSwapped ? swapped(where, bytes, each) : isAligned ? bytes : copied(where, bytes);
  const length = bytes.length / each;
  const elements = new arrayType(source.buffer, source.byteOffset, length);
  if (isDType(type)) {
    const data = elements as unknown as TensorData;
    return type === dtype ? data : convert(where, data, type, dtype);
  }
  const encode = encoderOf(dtype);
  const result = allocate(where, dtype, length);
  for (let i = 0; i < length; i++) result[i] = encode(Number(elements[i]));
  return result;
}

/** A copy in memory of its own, aligned to any element. */
function copied(where: string, bytes: Uint8Array): Uint8Array {
  const copy = allocate(where, 'uint8', bytes.length) as Uint8Array;
  copy.set(bytes);
  return copy;
}

function swapped(where: string, bytes: Uint8Array, each: number): Uint8Array {
  const copy = copied(where, bytes);
  swapInPlace(copy, each);
  return copy;
}

/** The bytes of each element in the other order. */
export function swapInPlace({ buffer, byteOffset, byteLength }: Uint8Array, each: number): void {
  const bytes = Buffer.from(buffer, byteOffset, byteLength);
  if (each === 2) bytes.swap16();
  if (each === 4) bytes.swap32();
  if (each === 8) bytes.swap64();
}
