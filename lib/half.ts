/**
 * float16 (IEEE 754 binary16) and bfloat16 (the upper half of a float32), each held as its 16 bits.
 * Conversions to 16 bits round to nearest, ties to even, once; infinities, subnormals and signed zeros
 * survive; a NaN stays a (quiet) NaN with its sign and the upper bits of its payload.
 */

const scratchFloat = new Float32Array(1);
const scratchBits = new Int32Array(scratchFloat.buffer);

/**
 * The bits of `x` as a float32, rounded to odd: an inexact result has its last bit set. Rounding that to a
 * format at least two bits narrower equals rounding `x` itself (Boldo & Melquiond 2008, "Emulation of FMA and
 * correctly rounded sums: proved algorithms using rounding to odd", Theorem 1), so a float64 reaches 16 bits
 * without double rounding.
 */
function toOddFloat32Bits(x: number): number {
  scratchFloat[0] = x;
  const rounded = scratchFloat[0];
  let bits = scratchBits[0];
  if (rounded === x || Number.isNaN(x)) return bits;
  if (Math.abs(rounded) > Math.abs(x)) bits -= 1; // towards zero; the sign bit is apart from the magnitude
  return bits | 1;
}

/** float32 bits (int32) to float16 bits. */
function float32BitsToFloat16(bits: number): number {
  const sign = (bits >>> 16) & 0x8000;
  const magnitude = bits & 0x7fffffff;
  if (magnitude >= 0x38800000) {
    if (magnitude >= 0x47800000) {
      if (magnitude > 0x7f800000) return sign | 0x7e00 | ((magnitude >>> 13) & 0x3ff);
      return sign | 0x7c00;
    }
    // Rebias the exponent by 112; a carry out of the fraction moves into it, up to Infinity.
    return sign | ((magnitude - 0x38000000 + 0xfff + ((magnitude >>> 13) & 1)) >>> 13);
  }
  if (magnitude <= 0x33000000) return sign; // at most half of the smallest subnormal, 2^-25
  const shift = 126 - (magnitude >>> 23);
  const fraction = (magnitude & 0x7fffff) | 0x800000;
  const kept = fraction >>> shift;
  const halfway = 1 << (shift - 1);
  return sign | (kept + ((fraction & (2 * halfway - 1)) + (kept & 1) > halfway ? 1 : 0));
}

/** float32 bits (int32) to bfloat16 bits. */
function float32BitsToBfloat16(bits: number): number {
  if ((bits & 0x7fffffff) > 0x7f800000) return (bits >>> 16) | 0x40;
  return ((bits + 0x7fff + ((bits >>> 16) & 1)) | 0) >>> 16;
}

/** float16 bits to float32 bits (int32). */
function float16ToFloat32Bits(bits: number): number {
  const sign = (bits & 0x8000) << 16;
  const magnitude = bits & 0x7fff;
  if (magnitude >= 0x7c00) {
    const quiet = magnitude > 0x7c00 ? 0x400000 : 0;
    return sign | 0x7f800000 | quiet | ((magnitude & 0x3ff) << 13);
  }
  if (magnitude >= 0x400) return sign | ((magnitude << 13) + 0x38000000);
  scratchFloat[0] = magnitude * 2 ** -24;
  return sign | scratchBits[0];
}

let float16Table: Int32Array | null = null;

/**
 * All 65536 float16 values as float32 bits (256 KiB), made at first need: one load an element when converting
 * in bulk.
 */
function getFloat16Table(): Int32Array {
  if (float16Table === null)
    float16Table = Int32Array.from({ length: 65536 }, (_, bits) => float16ToFloat32Bits(bits));
  return float16Table;
}

/** The value of float16 `bits` (0 to 65535). */
export function float16ToNumber(bits: number): number {
  scratchBits[0] = float16ToFloat32Bits(bits);
  return scratchFloat[0];
}

/** The value of bfloat16 `bits` (0 to 65535). */
export function bfloat16ToNumber(bits: number): number {
  scratchBits[0] = bits << 16;
  return scratchFloat[0];
}

/**
 * The bits of the float16 nearest to the float64 `x`, ties to even. 65520 and beyond overflow to Infinity.
 */
export function numberToFloat16(x: number): number {
  return float32BitsToFloat16(toOddFloat32Bits(x));
}

/** The bits of the bfloat16 nearest to the float64 `x`, ties to even. */
export function numberToBfloat16(x: number): number {
  return float32BitsToBfloat16(toOddFloat32Bits(x));
}

const bitsOf = (values: Float32Array): Int32Array =>
  new Int32Array(values.buffer, values.byteOffset, values.length);

/** float16 bits to float32 values, element by element; `target` is at least as long as `source`. */
export function float16ToFloat32(source: Uint16Array, target: Float32Array): void {
  const targetBits = bitsOf(target);
  const table = getFloat16Table();
  for (let i = 0; i < source.length; i++) targetBits[i] = table[source[i]];
}

/** bfloat16 bits to float32 values, element by element; `target` is at least as long as `source`. */
export function bfloat16ToFloat32(source: Uint16Array, target: Float32Array): void {
  const targetBits = bitsOf(target);
  for (let i = 0; i < source.length; i++) targetBits[i] = source[i] << 16;
}

/** float32 values to float16 bits, element by element; `target` is at least as long as `source`. */
export function float32ToFloat16(source: Float32Array, target: Uint16Array): void {
  const sourceBits = bitsOf(source);
  for (let i = 0; i < sourceBits.length; i++) target[i] = float32BitsToFloat16(sourceBits[i]);
}

/** float32 values to bfloat16 bits, element by element; `target` is at least as long as `source`. */
export function float32ToBfloat16(source: Float32Array, target: Uint16Array): void {
  const sourceBits = bitsOf(source);
  for (let i = 0; i < sourceBits.length; i++) target[i] = float32BitsToBfloat16(sourceBits[i]);
}
