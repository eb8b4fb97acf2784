// How far an attention result may be from the oracle's where the house rule (twice the error of a naive evaluation) is no
// measure: of a few numbers the error of the naive evaluation is luck, and may be 0. This is what rounding can do at most.
import { makeResults } from '../../dist/attention.js';
import { describeAttention } from '../../dist/describe-attention.js';
import { exactArithmetic, gradeOf } from '../../dist/reference/arithmetic.js';
import { run } from '../../dist/reference/run.js';
import { Tensor } from '../../dist/tensor.js';

/** Unit roundoff: half the distance from 1 to the next number. */
const ROUNDOFF = { float32: 2 ** -24, tf32: 2 ** -11, float16: 2 ** -11, bfloat16: 2 ** -8 };

/** The smallest normal number: below it a unit in the last place no longer shrinks, or an ISA flushes to 0. */
const SMALLEST = { float32: 2 ** -126, float16: 2 ** -14, bfloat16: 2 ** -126 };

const U = ROUNDOFF.float32;

/** exp, tanh, log and reciprocals of the kernels: at most so many units of float32 from the truth. */
const FUNCTION_UNITS = 4;

/** Adds up p·|v|. */
const sizesOfSum = {
  ...exactArithmetic,
  addScaled(o, p, v, vBegin) {
    for (let d = 0; d < o.length; d++) o[d] += Math.abs(p * v[vBegin + d]);
  },
};

const largestOf = (x) => (x === null ? 0 : x.toFloat32Array().reduce(largerFinite, 0));
const largerFinite = (most, y) => (Number.isFinite(y) ? Math.max(most, Math.abs(y)) : most);

function normsOf(x) {
  const dim = x.shape[3];
  const values = x.toFloat32Array();
  return Array.from({ length: x.size / dim }, (_, n) =>
    Math.hypot(...values.subarray(n * dim, (n + 1) * dim)),
  );
}

/**
 * Of each query row, how far its scores may be off. With the unit roundoff g of the grade that `precision` promises:
 *
 * - q, k and the stored score are rounded to it, 3g, and float32 adds up headDim products and scales them, (headDim + 3)u, each
 *   of |scale| Σ|q||k| ≤ |scale| ‖q‖ ‖k‖;
 * - softcap has a slope of at most 1 and errs by a function's error of what it returns;
 * - bias and ALiBi are added, with one rounding each of the sum; where their size is that of a distance, that is one more;
 * - exp takes the difference to the maximum, times log2(e): two roundings of twice the largest score.
 */
function scoreErrors(problem) {
  const { q, k, bias, alibiSlopes, sequences, headDim, softcap } = problem;
  const g = gradeRoundoff(problem);
  const longest = Math.max(0, ...normsOf(k));
  const distance = Math.max(0, ...sequences.map((s) => Math.abs(s.queryOffset) + s.qLen + s.kvLen));
  const added = largestOf(bias) + largestOf(alibiSlopes) * distance + largestOf(problem.sinks);
  return normsOf(q).map((norm) => {
    const product = Math.abs(problem.scale) * norm * longest;
    const capped = softcap === 0 ? product : Math.min(product, softcap);
    return (
      (3 * g + (headDim + 3) * U) * product +
      (softcap === 0 ? 0 : 2 * FUNCTION_UNITS * U * capped) +
      3 * U * (capped + added) +
      4 * U * (capped + added)
    );
  });
}

/** 0 where the grade is float32, whose operands are what they are. */
function gradeRoundoff({ q, precision }) {
  const grade = gradeOf(q.dtype, precision);
  return grade === 'float32' ? 0 : ROUNDOFF[grade];
}

/**
 * The first element of a result that no rounding explains, in words; null where there is none.
 *
 * Scores off by at most δ change a weight by a factor of at most e^2δ (its own and the sum's), exp and the reciprocal by a
 * function's error each; a stored weight and v are rounded to the grade; float32 adds up kvLen terms twice, the weights and
 * the weighted v, and rescales them when the maximum grows. All of it relative to Σ p|v|. Then out is rounded to its dtype. Of
 * an lse: δ, what the sum of kvLen terms rounds away, and the logarithm.
 */
export function beyondRounding(q, k, v, options, got) {
  const problem = { ...describeAttention('attention', q, k, v, options), returnLse: true, out: null };
  const want = makeResults(problem);
  const sizes = Tensor.zeros(want.out.shape);
  run(problem, want.out, want.lse);
  run(problem, sizes, null, sizesOfSum);
  const dtype = problem.q.dtype;
  const { valueDim, kvLen } = problem;
  const moved = scoreErrors(problem);
  const g = gradeRoundoff(problem);
  const sums = (4 * kvLen + 4 * FUNCTION_UNITS) * U;
  const lost = kvLen * SMALLEST.float32 * largestOf(problem.v) + 4 * SMALLEST[dtype] * ROUNDOFF[dtype];
  const size = sizes.toFloat32Array();
  const outBound = (e, x) => {
    const relative = Math.expm1(2 * moved[Math.floor(e / valueDim)]) + 2 * g + sums;
    return relative * size[e] + 2 * ROUNDOFF[dtype] * Math.abs(x) + lost;
  };
  const lseBound = (row, x) => moved[row] + sums + 2 * FUNCTION_UNITS * U * Math.max(1, Math.abs(x));
  return (
    firstBeyond('out', want.out, got.out ?? got, outBound) ??
    (got.lse ? firstBeyond('lse', want.lse, got.lse, lseBound) : null)
  );
}

function firstBeyond(name, want, got, boundOf) {
  const [wanted, gotten] = [want.toFloat32Array(), got.toFloat32Array()];
  for (let e = 0; e < wanted.length; e++) {
    if (Object.is(wanted[e], gotten[e]) || wanted[e] === gotten[e]) continue;
    const bound = boundOf(e, wanted[e]);
    if (Math.abs(wanted[e] - gotten[e]) <= bound) continue;
    return `${name}[${e}] is ${gotten[e]}, and should be ${wanted[e]} within ${bound}`;
  }
  return null;
}
