import { isLittleEndian } from './dtype.ts';
import { OptionError } from './errors.ts';
import { Tensor } from './tensor.ts';

/**
 * Rows of an int8 cache: symmetric, one float32 scale a row, that is for each token and head, of k and of v. A number x
 * becomes the nearest multiple of max|x| / 127, so that the error of each is at most max|x| / 254 of its row.
 */
export interface Int8Rows {
  /** [..., dim], whole numbers from -127 to 127. */
  readonly values: Tensor;
  /** [..., 1], float32. */
  readonly scales: Tensor;
}

/** Where the scale stands in a row of bytes: behind its numbers, which are filled up to a multiple of 4. */
export const int8ScaleOffset = (dim: number): number => 4 * Math.ceil(dim / 4);

/** Bytes of a row with its scale, as native/int8_row.h has it, and the file of a cache. */
export const int8RowBytes = (dim: number): number => int8ScaleOffset(dim) + 4;

const hasByte80 = (word: number): boolean => {
  const x = word ^ 0x80808080;
  return ((x - 0x01010101) & ~x & 0x80808080) !== 0;
};

/**
 * Whether whole rows of bytes are such as quantiseRows makes: no -128, filled up with zeros, and a scale that is finite and not
 * negative.
 */
export function areInt8Rows({ buffer, byteOffset, byteLength }: Uint8Array, dim: number): boolean {
  const view = new DataView(buffer, byteOffset, byteLength);
  const rowBytes = int8RowBytes(dim);
  for (let row = 0; row < byteLength; row += rowBytes) {
    const end = row + int8ScaleOffset(dim);
    for (let at = row; at < end; at += 4) if (hasByte80(view.getInt32(at))) return false;
    for (let at = row + dim; at < end; at++) if (view.getUint8(at) !== 0) return false;
    const scale = view.getFloat32(end, isLittleEndian);
    if (!(scale >= 0 && scale < Infinity) || Object.is(scale, -0)) return false;
  }
  return true;
}

/** The dtype from which rows of a cache are made. */
export const sourceDType = <D>(dtype: D): D | 'float32' => (dtype === 'int8' ? 'float32' : dtype);

/** Why an int8 cache refuses rows. */
export function notFinite(): OptionError {
  return new OptionError(
    'KVCache: k or v holds NaN or Infinity, which an int8 cache cannot hold; nothing was appended; use float32, float16 or bfloat16',
  );
}

/** @throws OptionError unless all of the rows are finite */
export function checkFinite(...rows: readonly Tensor[]): void {
  if (!rows.every((x) => x.toFloat32Array().every(Number.isFinite))) throw notFinite();
}

/** 2 ** 52 + 2 ** 51: adding it to a smaller number rounds that to a whole one, halves to even. */
const ROUNDER = 6755399441055744;

/** x [B, H, T, dim], float32 and contiguous, as int8 rows; bit for bit what native/int8_row.h makes. */
export function quantiseRows(x: Tensor): Int8Rows {
  const dim = x.shape[3];
  const numbers = x.toFloat32Array();
  const rows = numbers.length / dim;
  const values = new Int8Array(numbers.length);
  const scales = new Float32Array(rows);
  for (let row = 0; row < rows; row++) {
    const begin = row * dim;
    let largest = 0;
    for (let i = begin; i < begin + dim; i++) largest = Math.max(largest, Math.abs(numbers[i]));
    if (!Number.isFinite(largest)) throw notFinite();
    const scale = Math.fround(largest / 127);
    scales[row] = scale;
    for (let i = begin; i < begin + dim && scale > 0; i++) {
      const quotient = Math.min(127, Math.max(-127, Math.fround(numbers[i] / scale)));
      values[i] = quotient + ROUNDER - ROUNDER;
    }
  }
  const [batch, heads, tokens] = x.shape;
  return {
    values: new Tensor(values, x.shape, { dtype: 'int8' }),
    scales: new Tensor(scales, [batch, heads, tokens, 1]),
  };
}

/** The numbers that the rows stand for, [..., dim], float32. */
export function restoreRows({ values, scales }: Int8Rows): Tensor {
  const [v, s] = [values.contiguous(), scales.contiguous()];
  const dim = v.shape[3];
  const numbers = Float32Array.from(v.data, (value, i) => value * (s.data[Math.floor(i / dim)] as number));
  return new Tensor(numbers, v.shape);
}
