import type { DType } from '../dtype.ts';
import { bfloat16ToNumber, float16ToNumber, numberToBfloat16, numberToFloat16 } from '../half.ts';
import type { Tensor } from '../tensor.ts';

/** The value of a stored element of `dtype`, exactly. */
function decoderOf(dtype: DType): ((stored: number) => number) | null {
  if (dtype === 'float16') return float16ToNumber;
  if (dtype === 'bfloat16') return bfloat16ToNumber;
  return null;
}

/**
 * Rows `begin` to `begin + count` of head (b, h) of a rank-4 tensor [B, H, L, D], exactly, as float64 [count, D].
 * The last axis of `x` is contiguous.
 */
export function readRows(x: Tensor, b: number, h: number, begin: number, count: number): Float64Array {
  const rows = new Float64Array(count * x.shape[3]);
  fillRows(rows, x, b, h, begin, 0, count);
  return rows;
}

/** Of {@link readRows}, fills rows [first, end) of `rows`. */
export function fillRows(
  rows: Float64Array,
  x: Tensor,
  b: number,
  h: number,
  begin: number,
  first: number,
  end: number,
): void {
  const dim = x.shape[3];
  const decode = decoderOf(x.dtype);
  const data = x.data;
  for (let row = first; row < end; row++) {
    const from = x.offset + b * x.strides[0] + h * x.strides[1] + (begin + row) * x.strides[2];
    const to = row * dim;
    if (decode === null) for (let d = 0; d < dim; d++) rows[to + d] = data[from + d];
    else for (let d = 0; d < dim; d++) rows[to + d] = decode(data[from + d]);
  }
}

/** The float64 value of the element at `index` of x.data. */
export function readElement(x: Tensor, index: number): number {
  const decode = decoderOf(x.dtype);
  return decode === null ? x.data[index] : decode(x.data[index]);
}

/** Writes `values` to row i of head (b, h) of x [B, H, L, D], rounding once to the dtype of x. */
export function writeRow(x: Tensor, b: number, h: number, i: number, values: Float64Array): void {
  const data = x.data;
  const at = x.offset + b * x.strides[0] + h * x.strides[1] + i * x.strides[2];
  if (x.dtype === 'float16')
    for (let d = 0; d < values.length; d++) data[at + d] = numberToFloat16(values[d]);
  else if (x.dtype === 'bfloat16')
    for (let d = 0; d < values.length; d++) data[at + d] = numberToBfloat16(values[d]);
  else for (let d = 0; d < values.length; d++) data[at + d] = values[d];
}

/** Writes element i of head (b, h) of a float32 x [B, H, L]. */
export function writeElement(x: Tensor, b: number, h: number, i: number, value: number): void {
  x.data[x.offset + b * x.strides[0] + h * x.strides[1] + i * x.strides[2]] = value;
}
