import { DTYPES, type DType, type TensorData } from './dtype.ts';
import {
  bfloat16ToFloat32,
  bfloat16ToNumber,
  float16ToFloat32,
  float16ToNumber,
  float32ToBfloat16,
  float32ToFloat16,
  numberToBfloat16,
  numberToFloat16,
} from './half.ts';
import { allocate, checkExtent } from './tensor-layout.ts';

/** Rows shorter than this are copied by a loop: a typed-array `set` costs more to start. */
const minSetLength = 64;

/**
 * Float32 elements as integers: copies bits, where a copy of numbers may turn a signaling NaN into a quiet
 * one.
 */
function withoutFloats(data: TensorData): TensorData {
  return data instanceof Float32Array ? new Int32Array(data.buffer, data.byteOffset, data.length) : data;
}

/** A strided layout, as far as copying it needs to know. */
interface StridedData {
  readonly data: TensorData;
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  readonly offset: number;
  readonly dtype: DType;
  readonly size: number;
}

/** A fresh array of the elements of a view in row-major order, exactly `size` long. */
export function gather(where: string, view: StridedData): TensorData {
  const { shape, strides, offset, dtype, size } = view;
  checkExtent(`${where}: shape`, view); // the buffer may have been detached since
  const result = allocate(where, dtype, size);
  if (size === 0) return result;
  const source = withoutFloats(view.data);
  const target = withoutFloats(result);
  const lastAxis = shape.length - 1;
  const length = lastAxis < 0 ? 1 : shape[lastAxis];
  const stride = lastAxis < 0 ? 1 : strides[lastAxis];
  let written = 0;
  const copyRow = (from: number): void => {
    if (stride === 1 && length >= minSetLength) target.set(source.subarray(from, from + length), written);
    else for (let i = 0; i < length; i++) target[written + i] = source[from + i * stride];
    written += length;
  };
  const walk = (axis: number, from: number): void => {
    if (axis >= lastAxis) copyRow(from);
    else for (let i = 0; i < shape[axis]; i++) walk(axis + 1, from + i * strides[axis]);
  };
  walk(0, offset);
  return result;
}

/** The number that one stored element stands for: 0 or 1 for bool. */
export function decodeElement(dtype: DType, stored: number): number {
  if (dtype === 'float16') return float16ToNumber(stored);
  if (dtype === 'bfloat16') return bfloat16ToNumber(stored);
  if (dtype === 'bool') return stored === 0 ? 0 : 1;
  return stored;
}

/**
 * How one number is stored. Floats round to nearest, ties to even. Integers truncate toward zero as NumPy's
 * astype does, but saturate where NumPy's result is undefined or wraps: the nearest value is the least wrong
 * one, it is the same on every machine, and it is what Rust, WebAssembly and ARM do; NaN becomes 0. For bool
 * all but 0 is true, NaN included.
 */
export function encoderOf(dtype: DType): (value: number) => number {
  if (dtype === 'float32') return (value) => value; // the Float32Array rounds
  if (dtype === 'float16') return numberToFloat16;
  if (dtype === 'bfloat16') return numberToBfloat16;
  if (dtype === 'bool') return (value) => (value === 0 ? 0 : 1);
  const { min, max } = DTYPES[dtype];
  return (value) => (value >= max ? max : value <= min ? min : Math.trunc(value)); // storing NaN gives 0
}

/** The elements as numbers that can be read by index; bool becomes 0 and 1. May be `data` itself. */
export function decodeAll(where: string, data: TensorData, dtype: DType): TensorData {
  if (dtype === 'float16' || dtype === 'bfloat16') {
    const values = allocate(where, 'float32', data.length) as Float32Array;
    if (dtype === 'float16') float16ToFloat32(data as Uint16Array, values);
    else bfloat16ToFloat32(data as Uint16Array, values);
    return values;
  }
  return dtype === 'bool' ? (data as Uint8Array).map((stored) => (stored === 0 ? 0 : 1)) : data;
}

/** Converts elements from one dtype to another, by the rules of {@link encoderOf}; always a fresh array. */
export function convert(where: string, data: TensorData, from: DType, to: DType): TensorData {
  if (from === to) return data.slice();
  const values = decodeAll(where, data, from);
  if (to === 'float32' && values instanceof Float32Array) return values;
  const result = allocate(where, to, data.length);
  if (to === 'float32') {
    result.set(values);
  } else if (values instanceof Float32Array && to === 'float16') {
    float32ToFloat16(values, result as Uint16Array);
  } else if (values instanceof Float32Array && to === 'bfloat16') {
    float32ToBfloat16(values, result as Uint16Array);
  } else {
    const encode = encoderOf(to);
    for (let i = 0; i < values.length; i++) result[i] = encode(values[i]);
  }
  return result;
}
