import type { DType } from './dtype.ts';
import { numberToBfloat16, numberToFloat16 } from './half.ts';
import type { Tensor } from './tensor.ts';

/** How far numbers may be from the oracle's. */
export interface Tolerance {
  readonly maxAbs: number;
  readonly relativeFrobenius: number;
}

/** How far numbers are from the oracle's. Infinity where one is finite and the other is not. */
export interface ErrorSummary {
  /** Largest |got - want|. */
  readonly maxAbs: number;
  /** Largest |got - want| / |want|. */
  readonly maxRel: number;
  /** ‖got - want‖ / ‖want‖ over all elements. */
  readonly relativeFrobenius: number;
  /** Largest number of representable values from one to the other. */
  readonly maxUlp: number;
  /** Where |got - want| is largest; null where there is no difference. */
  readonly worst: { readonly index: readonly number[]; readonly got: number; readonly want: number } | null;
}

/** Compares two tensors of one shape, in units of the last place of `dtype`. */
export function summarizeErrors(got: Tensor, want: Tensor, dtype: DType): ErrorSummary {
  const gotValues = got.toFloat32Array();
  const wantValues = want.toFloat32Array();
  const ordinal = ordinalOf(dtype);
  let maxAbs = 0;
  let maxRel = 0;
  let maxUlp = 0;
  let squares = 0;
  let wantSquares = 0;
  let worst = -1;
  for (let i = 0; i < wantValues.length; i++) {
    const g = gotValues[i];
    const w = wantValues[i];
    if (Number.isFinite(w)) wantSquares += w * w;
    if (Object.is(g, w) || g === w) continue;
    const distance = Math.abs(g - w);
    const error = Number.isFinite(distance) ? distance : Infinity;
    if (error > maxAbs) {
      maxAbs = error;
      worst = i;
    }
    squares += error * error;
    maxRel = Math.max(maxRel, w === 0 || error === Infinity ? Infinity : error / Math.abs(w));
    maxUlp = Math.max(maxUlp, error === Infinity ? Infinity : Math.abs(ordinal(g) - ordinal(w)));
  }
  const relativeFrobenius = squares === 0 ? 0 : Math.sqrt(squares / wantSquares);
  const place = { index: indexOf(worst, want.shape), got: gotValues[worst], want: wantValues[worst] };
  return { maxAbs, maxRel, relativeFrobenius, maxUlp, worst: worst < 0 ? null : place };
}

/** How many elements are so many representable values away from the oracle's; Infinity: only one of both is finite. */
export interface UlpBucket {
  readonly from: number;
  readonly to: number;
  readonly count: number;
}

/** Distances in units of the last place of `dtype`, by powers of two. */
export function ulpHistogram(got: Tensor, want: Tensor, dtype: DType): UlpBucket[] {
  const gotValues = got.toFloat32Array();
  const wantValues = want.toFloat32Array();
  const ordinal = ordinalOf(dtype);
  const counts: number[] = [];
  let apart = 0;
  for (let i = 0; i < wantValues.length; i++) {
    const [g, w] = [gotValues[i], wantValues[i]];
    const isSame = Object.is(g, w) || g === w;
    if (!isSame && !Number.isFinite(g - w)) {
      apart++;
      continue;
    }
    const distance = isSame ? 0 : Math.abs(ordinal(g) - ordinal(w));
    const bucket = distance === 0 ? 0 : Math.floor(Math.log2(distance)) + 1;
    counts[bucket] = (counts[bucket] ?? 0) + 1;
  }
  const buckets = Array.from(counts, (count = 0, n) => ({
    from: n === 0 ? 0 : 2 ** (n - 1),
    to: n === 0 ? 0 : 2 ** n - 1,
    count,
  }));
  return apart === 0 ? buckets : [...buckets, { from: Infinity, to: Infinity, count: apart }];
}

const float = new Float32Array(1);
const bits = new Int32Array(float.buffer);

/** The place of a value in the order of all values of `dtype`; neighbours differ by 1. */
function ordinalOf(dtype: DType): (x: number) => number {
  const signed = (magnitude: number, sign: number): number => (sign === 0 ? magnitude : -magnitude);
  if (dtype === 'float16' || dtype === 'bfloat16') {
    const encode = dtype === 'float16' ? numberToFloat16 : numberToBfloat16;
    return (x) => signed(encode(x) & 0x7fff, encode(x) & 0x8000);
  }
  return (x) => {
    float[0] = x;
    return signed(bits[0] & 0x7fffffff, bits[0] & 0x80000000);
  };
}

function indexOf(position: number, shape: readonly number[]): number[] {
  const index = new Array<number>(shape.length);
  for (let axis = shape.length - 1, rest = position; axis >= 0; axis--) {
    index[axis] = rest % shape[axis];
    rest = Math.floor(rest / shape[axis]);
  }
  return index;
}

/** Distance from 1 to the next value. */
const EPSILON: Partial<Record<DType, number>> = { float32: 2 ** -23, float16: 2 ** -10, bfloat16: 2 ** -7 };

/** Units in the last place that any evaluation is granted: the rounding of a few last operations and of the result. */
const FLOOR_ULP = 4;

/**
 * The house rule: twice the error of a naive evaluation, and a floor of 4 units in the last place, for where the naive one
 * happens to be exact.
 *
 * @param magnitude the size of what was added up to each element of `want`, in which the floor counts
 */
export function toleranceFrom(naive: ErrorSummary, want: Tensor, magnitude: Tensor, dtype: DType): Tolerance {
  const floor = FLOOR_ULP * (EPSILON[dtype] ?? 0);
  const sizes = sizeOf(magnitude);
  const relative = sizes.norm === 0 ? 0 : sizes.norm / sizeOf(want).norm;
  return {
    maxAbs: 2 * naive.maxAbs + floor * sizes.largest,
    relativeFrobenius: 2 * naive.relativeFrobenius + floor * relative,
  };
}

/** The largest element and the Frobenius norm of what is finite in x. */
function sizeOf(x: Tensor): { largest: number; norm: number } {
  let largest = 0;
  let squares = 0;
  for (const value of x.toFloat32Array()) {
    if (!Number.isFinite(value)) continue;
    largest = Math.max(largest, Math.abs(value));
    squares += value * value;
  }
  return { largest, norm: Math.sqrt(squares) };
}

/** Whether the errors are within the tolerance, in the largest element and on the whole. */
export function isWithin(errors: ErrorSummary, tolerance: Tolerance): boolean {
  return errors.maxAbs <= tolerance.maxAbs && errors.relativeFrobenius <= tolerance.relativeFrobenius;
}
