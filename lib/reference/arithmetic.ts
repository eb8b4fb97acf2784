import type { DType } from '../dtype.ts';
import { bfloat16ToNumber, float16ToNumber, numberToBfloat16, numberToFloat16 } from '../half.ts';
import type { AttentionProblem } from '../problem.ts';

/**
 * How the steps of attention round. The oracle runs in {@link exactArithmetic}; the same steps in
 * {@link naiveArithmetic} are the textbook evaluation from whose error every tolerance is derived.
 */
export interface Arithmetic {
  /** Rounding of a stored intermediate: a score, a probability. */
  readonly round: (x: number) => number;
  /** Rounding of a running sum. */
  readonly accumulate: (x: number) => number;
  /** scale × the dot product of a[aBegin..] and b[bBegin..], `length` elements each. */
  readonly scaledDot: (scale: number, row: DotOperands, bBegin: number) => number;
  /** o += p × v[vBegin..], over the length of o. */
  readonly addScaled: (o: Float64Array, p: number, v: Float64Array, vBegin: number) => void;
}

/** One row of a, against any row of b. */
export interface DotOperands {
  readonly a: Float64Array;
  readonly aBegin: number;
  readonly b: Float64Array;
  readonly length: number;
}

const identity = (x: number): number => x;

/** Half a unit in the last place beyond the largest float32: from here on a number rounds to Infinity. */
const FLOAT32_OVERFLOW = 2 ** 128 - 2 ** 103;

/** Everything in float64, but that a score beyond float32's range is infinite, as it is in every kernel. */
export const exactArithmetic: Arithmetic = {
  round: (x) => (x < FLOAT32_OVERFLOW && x > -FLOAT32_OVERFLOW ? x : Math.fround(x)),
  accumulate: identity,
  scaledDot(scale, { a, aBegin, b, length }, bBegin) {
    // Four sums, because one would wait for its own addition at every step.
    let s0 = 0;
    let s1 = 0;
    let s2 = 0;
    let s3 = 0;
    let i = 0;
    for (; i + 3 < length; i += 4) {
      s0 += a[aBegin + i] * b[bBegin + i];
      s1 += a[aBegin + i + 1] * b[bBegin + i + 1];
      s2 += a[aBegin + i + 2] * b[bBegin + i + 2];
      s3 += a[aBegin + i + 3] * b[bBegin + i + 3];
    }
    for (; i < length; i++) s0 += a[aBegin + i] * b[bBegin + i];
    return scale * (s0 + s1 + (s2 + s3));
  },
  addScaled(o, p, v, vBegin) {
    for (let d = 0; d < o.length; d++) o[d] += p * v[vBegin + d];
  },
};

/** How finely a plain evaluation stores its intermediates. tf32 has the range of float32 and 10 bits of fraction. */
export type Grade = 'float32' | 'tf32' | 'float16' | 'bfloat16';

/** The grade that `precision` promises for inputs of `dtype`. */
export function gradeOf(dtype: DType, precision: AttentionProblem['precision']): Grade {
  if (dtype === 'float16' || dtype === 'bfloat16') return dtype;
  if (precision === 'medium') return 'bfloat16';
  return precision === 'high' ? 'tf32' : 'float32';
}

function roundingTo(grade: Grade): (x: number) => number {
  if (grade === 'float16') return (x) => float16ToNumber(numberToFloat16(x));
  if (grade === 'bfloat16') return (x) => bfloat16ToNumber(numberToBfloat16(x));
  // Veltkamp's splitting leaves the upper 53 - 42 = 11 significant bits.
  if (grade === 'tf32') return (x) => (Number.isFinite(x) ? x * VELTKAMP - (x * VELTKAMP - x) : x);
  return Math.fround;
}

const VELTKAMP = 2 ** 42 + 1;

/**
 * What a plain evaluation does: operands and intermediates of that grade, and float32 sums, one addend after another.
 */
export function naiveArithmetic(grade: Grade): Arithmetic {
  const fround = Math.fround;
  const round = roundingTo(grade);
  return {
    round,
    accumulate: fround,
    scaledDot(scale, { a, aBegin, b, length }, bBegin) {
      let sum = 0;
      for (let i = 0; i < length; i++)
        sum = fround(sum + fround(round(a[aBegin + i]) * round(b[bBegin + i])));
      return round(fround(fround(scale) * sum));
    },
    addScaled(o, p, v, vBegin) {
      for (let d = 0; d < o.length; d++) o[d] = fround(o[d] + fround(p * round(v[vBegin + d])));
    },
  };
}

/** Exact, but that o gathers p²v²: the square of how large rounding errors may be expected to be, in units of eps. */
export const sumOfSquares: Arithmetic = {
  ...exactArithmetic,
  addScaled(o, p, v, vBegin) {
    for (let d = 0; d < o.length; d++) o[d] += (p * v[vBegin + d]) ** 2;
  },
};
