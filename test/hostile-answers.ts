import { type AttentionResult, makeResults } from '../lib/attention.ts';
import { describeAttention } from '../lib/describe-attention.ts';
import type { DType } from '../lib/dtype.ts';
import { exactArithmetic, gradeOf, naiveArithmetic } from '../lib/reference/arithmetic.ts';
import { run as runReference } from '../lib/reference/run.ts';
import { Tensor } from '../lib/tensor.ts';
import { problemOf, type Row } from './hostile-numbers.ts';
import { denseOf, PATHS, type Problem } from './hostile-paths.ts';

// Every way to compute must put NaN and infinities exactly where the oracle puts them, and be within a derived bound
// everywhere else, element by element: what is huge in one row excuses nothing in another.

/** What any way through the code must answer. */
export interface Answer {
  readonly want: AttentionResult;
  /** The most that an element may differ. */
  readonly outBound: Float64Array;
  readonly lseBound: Float64Array;
}

const sizeOfSum = {
  ...exactArithmetic,
  addScaled(o: Float64Array, p: number, v: Float64Array, vBegin: number): void {
    for (let d = 0; d < o.length; d++) o[d] += Math.abs(p * v[vBegin + d]);
  },
};

const EPSILON: Partial<Record<DType, number>> = { float32: 2 ** -23, float16: 2 ** -10, bfloat16: 2 ** -7 };
const SMALLEST: Partial<Record<DType, number>> = {
  float32: 2 ** -126,
  float16: 2 ** -24,
  bfloat16: 2 ** -126,
};

/** What the oracle and a naive evaluation say, and the sizes of what is added up. */
function evaluate({ q, k, v, options }: Problem): Record<
  'want' | 'naive' | 'sizes' | 'wantLse' | 'naiveLse',
  Float32Array
> & {
  result: AttentionResult;
} {
  const problem = { ...describeAttention('test', q, k, v, options), returnLse: true };
  const [want, naive] = [makeResults(problem), makeResults(problem)];
  const sizes = Tensor.zeros(want.out.shape);
  runReference(problem, want.out, want.lse);
  runReference(problem, naive.out, naive.lse, naiveArithmetic(gradeOf(q.dtype, problem.precision)));
  runReference(problem, sizes, null, sizeOfSum);
  return {
    result: want.value as AttentionResult,
    want: want.out.toFloat32Array(),
    naive: naive.out.toFloat32Array(),
    sizes: sizes.toFloat32Array(),
    wantLse: want.lse!.toFloat32Array(),
    naiveLse: naive.lse!.toFloat32Array(),
  };
}

/** The largest error of a naive evaluation of these rows, in units of the size; and of their lse. */
function errorOf({ want, naive, sizes }: ReturnType<typeof evaluate>, begin: number, end: number): number {
  let relative = 0;
  for (let e = begin; e < end; e++) {
    const error = Math.abs(want[e] - naive[e]);
    if (Number.isFinite(error) && sizes[e] > 0) relative = Math.max(relative, error / sizes[e]);
  }
  return relative;
}

const plainErrors = new Map<string, { out: number; lse: number }>();

/** Of the same path and dtype with nothing in any place, so that a row whose naive evaluation is exact by luck does not count. */
function plainErrorOf(row: Row): { out: number; lse: number } {
  const name = `${row.path} ${row.dtype}`;
  let errors = plainErrors.get(name);
  if (errors === undefined) {
    const plain = { ...row, place: 'none' as never, hidden: 'no' as const, pass: 'none' as const, seed: 1 };
    const values = evaluate(denseOf(PATHS[row.path], problemOf(plain)));
    const lse = values.wantLse.map((x, i) => Math.abs(x - values.naiveLse[i]));
    errors = { out: errorOf(values, 0, values.want.length), lse: Math.max(...lse) };
    plainErrors.set(name, errors);
  }
  return errors;
}

/** Of each channel, what weights may add up to that are below float32's smallest normal number: an ISA may take them for 0. */
function lostWeights(v: Tensor): Float64Array {
  const valueDim = v.shape[3];
  const lost = new Float64Array(valueDim);
  v.toFloat32Array().forEach((x, n) => {
    if (Number.isFinite(x)) lost[n % valueDim] += 2 ** -126 * Math.abs(x);
  });
  return lost;
}

const GRADE_EPSILON = { float32: 2 ** -23, tf32: 2 ** -10, float16: 2 ** -10, bfloat16: 2 ** -7 };

/**
 * Of each query row, how far rounding q and k to a coarse grade may move its scores: eps · |scale| · ‖q‖ · ‖k‖ at most, of a
 * usual key. A naive evaluation of a row that sees few keys may be right by luck.
 */
function scoreErrors({ q, k, options }: Problem): Float64Array {
  const eps = GRADE_EPSILON[gradeOf(q.dtype, options.precision ?? 'highest')];
  const keyNorms = normsOf(k).sort();
  const usual = keyNorms[keyNorms.length >> 1] ?? 0;
  const scale = Math.abs(options.scale ?? 1 / Math.sqrt(q.shape[3]));
  return normsOf(q).map((norm) => (eps > 2 ** -20 ? eps * scale * norm * usual : 0));
}

function normsOf(x: Tensor): Float64Array {
  const dim = x.shape[3];
  const norms = new Float64Array(x.size / dim);
  x.toFloat32Array().forEach((y, n) => {
    if (Number.isFinite(y)) norms[Math.floor(n / dim)] += y * y;
  });
  return norms.map(Math.sqrt);
}

/**
 * The oracle's answer to a dense problem, and the bounds: twice the error of a naive evaluation of the row or what rounding
 * of its scores may do, and 4 ULP.
 */
export function answerOf(row: Row, problem: Problem): Answer {
  const values = evaluate(problem);
  const { want, wantLse, naiveLse, sizes } = values;
  const plain = plainErrorOf(row);
  const dtype = problem.q.dtype;
  const eps = EPSILON[dtype] ?? 0;
  const valueDim = problem.v.shape[3];
  const outBound = new Float64Array(want.length);
  const lost = lostWeights(problem.v);
  const moved = scoreErrors(problem);
  for (let begin = 0; begin < want.length; begin += valueDim) {
    const naive = Math.max(plain.out, errorOf(values, begin, begin + valueDim));
    const relative = 2 * Math.max(naive, moved[begin / valueDim]) + 4 * eps;
    for (let e = begin; e < begin + valueDim; e++)
      outBound[e] = relative * sizes[e] + 4 * (SMALLEST[dtype] ?? 0) + lost[e % valueDim];
  }
  const lseBound = Float64Array.from(wantLse, (x, i) => {
    const error = Math.abs(x - naiveLse[i]);
    const naive = Math.max(plain.lse, Number.isFinite(error) ? error : 0);
    // Of a row with one huge score, that score's.
    const ofScore = moved[i] === 0 ? 0 : GRADE_EPSILON.bfloat16 * Math.abs(x);
    return Math.max(2 * naive, moved[i], ofScore) + 4 * 2 ** -23 * Math.max(1, Math.abs(x));
  });
  return { want: values.result, outBound, lseBound };
}

/** The first element that is not as it must be, in words; undefined where all are. */
export function firstDifference(
  { want, outBound, lseBound }: Answer,
  got: AttentionResult,
): string | undefined {
  return (
    differenceOf('out', want.out.toFloat32Array(), got.out.toFloat32Array(), outBound) ??
    differenceOf('lse', want.lse.toFloat32Array(), got.lse.toFloat32Array(), lseBound)
  );
}

function differenceOf(
  name: string,
  want: Float32Array,
  got: Float32Array,
  bound: Float64Array,
): string | undefined {
  if (want.length !== got.length) return `${name}: ${got.length} elements for ${want.length}`;
  for (let i = 0; i < want.length; i++) {
    if (Object.is(want[i], got[i]) || Math.abs(want[i] - got[i]) <= bound[i]) continue;
    if (want[i] === got[i]) continue;
    return `${name}[${i}]: got ${got[i]}, want ${want[i]} within ${bound[i]}`;
  }
  return undefined;
}
