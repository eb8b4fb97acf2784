import { DTypeError } from './errors.ts';

/** The element types of a {@link Tensor}. float16 and bfloat16 are stored as their bit patterns. */
export type DType = 'float32' | 'float16' | 'bfloat16' | 'int8' | 'uint8' | 'int32' | 'bool';

/** The typed arrays that can stand behind a {@link Tensor}. */
export type TensorData = Float32Array | Uint16Array | Int8Array | Uint8Array | Int32Array;

/** What is fixed by a dtype. */
export interface DTypeInfo {
  readonly bytes: number;
  /** The typed array that stores it, and its name (which is the same in every realm). */
  readonly arrayType: new (
    length: number,
  ) => TensorData;
  readonly arrayName: string;
  readonly isFloat: boolean;
  /** Smallest and largest finite value. */
  readonly min: number;
  readonly max: number;
}

const floatRow = (arrayType: DTypeInfo['arrayType'], bytes: number, max: number): DTypeInfo =>
  Object.freeze({ bytes, arrayType, arrayName: arrayType.name, isFloat: true, min: -max, max });

const integerRow = (arrayType: DTypeInfo['arrayType'], bytes: number, min: number, max: number): DTypeInfo =>
  Object.freeze({ bytes, arrayType, arrayName: arrayType.name, isFloat: false, min, max });

/** One row a dtype; a new dtype starts here. */
export const DTYPES: Readonly<Record<DType, DTypeInfo>> = Object.freeze({
  float32: floatRow(Float32Array, 4, (2 - 2 ** -23) * 2 ** 127),
  float16: floatRow(Uint16Array, 2, 65504),
  bfloat16: floatRow(Uint16Array, 2, (2 - 2 ** -7) * 2 ** 127),
  int8: integerRow(Int8Array, 1, -128, 127),
  uint8: integerRow(Uint8Array, 1, 0, 255),
  int32: integerRow(Int32Array, 4, -(2 ** 31), 2 ** 31 - 1),
  bool: integerRow(Uint8Array, 1, 0, 1),
});

/** Whether `value` is the name of a dtype. */
export function isDType(value: unknown): value is DType {
  return typeof value === 'string' && Object.hasOwn(DTYPES, value);
}

/** Whether `dtype` is float32, float16 or bfloat16. */
export function isFloatDType(dtype: DType): boolean {
  return DTYPES[dtype].isFloat;
}

/** Bytes of one element of `dtype`. */
export function bytesPerElement(dtype: DType): number {
  return DTYPES[dtype].bytes;
}

/** `value` if it names a dtype; else a DTypeError that begins with `where` and lists the names. */
export function checkDType(where: string, value: unknown): DType {
  if (isDType(value)) return value;
  const shown = typeof value === 'string' ? `'${value.slice(0, 40)}'` : typeof value;
  throw new DTypeError(`${where}: dtype must be one of ${Object.keys(DTYPES).join(', ')}; got ${shown}`);
}

/** Whether this machine stores the lowest byte first, as nearly all do. */
export const isLittleEndian = new Uint8Array(Uint32Array.of(1).buffer)[0] === 1;

const typedArrayPrototype = Object.getPrototypeOf(Uint8Array.prototype);
const typedArrayTag = Object.getOwnPropertyDescriptor(typedArrayPrototype, Symbol.toStringTag)!.get!;
const typedArrayLength = Object.getOwnPropertyDescriptor(typedArrayPrototype, 'length')!.get!;
const typedArrayBuffer = Object.getOwnPropertyDescriptor(typedArrayPrototype, 'buffer')!.get!;
const typedArrayOffset = Object.getOwnPropertyDescriptor(typedArrayPrototype, 'byteOffset')!.get!;

/**
 * The intrinsic class name of a typed array ('Float32Array', …) and undefined for anything else. It cannot be
 * forged, and holds for subclasses and for typed arrays of another realm, where `instanceof` does not.
 */
export function typedArrayName(value: unknown): string | undefined {
  return typedArrayTag.call(value);
}

/** The true length of a typed array, whatever properties were put on it; 0 once its buffer is detached. */
export function typedArrayLengthOf(data: ArrayBufferView): number {
  return typedArrayLength.call(data);
}

/** A plain copy of an Int32Array, whatever its methods do; empty once its buffer is detached. */
export function copyInt32Array(value: Int32Array): Int32Array {
  const length = typedArrayLengthOf(value);
  const copy = new Int32Array(length);
  if (length > 0) copy.set(value);
  return copy;
}

/** Its true buffer, and the byte at which it begins there. */
export function typedArrayBufferOf(data: ArrayBufferView): ArrayBufferLike {
  return typedArrayBuffer.call(data);
}

export function typedArrayOffsetOf(data: ArrayBufferView): number {
  return typedArrayOffset.call(data);
}

const bufferResizable = Object.getOwnPropertyDescriptor(ArrayBuffer.prototype, 'resizable')?.get;

/** Whether it may shrink, whatever properties were put on it. One that is shared may only grow. */
export function isResizable(buffer: ArrayBufferLike): boolean {
  try {
    return bufferResizable?.call(buffer) === true;
  } catch {
    return false;
  }
}
