import { type AttentionResult, makeResults } from './attention.ts';
import { selectBackend } from './backend.ts';
import { describeAttention } from './describe-attention.ts';
import { type DType, isFloatDType } from './dtype.ts';
import {
  type ErrorSummary,
  isWithin,
  summarizeErrors,
  type Tolerance,
  toleranceFrom,
} from './error-summary.ts';
import { DTypeError, ShapeError } from './errors.ts';
import { ATTENTION_OPTIONS, type AttentionOptions } from './options.ts';
import type { AttentionProblem } from './problem.ts';
import { gradeOf, naiveArithmetic, sumOfSquares } from './reference/arithmetic.ts';
import { run } from './reference/run.ts';
import { Tensor } from './tensor.ts';
import { formatShape } from './tensor-layout.ts';
import { asTensor, type TensorLike } from './tensor-like.ts';

/** The verdict on one tensor. */
export interface Verdict extends ErrorSummary {
  readonly pass: boolean;
  readonly tolerance: Tolerance;
}

/** What {@link compareAttention} found: the verdict on out, and on the lse where there is one. */
export interface Report extends Verdict {
  readonly dtype: DType;
  /** Whose numbers were checked. */
  readonly backend: 'native' | 'reference' | 'expected';
  readonly lse: Verdict | null;
  /** One line each for out and lse. */
  toString(): string;
}

/** The options of {@link compareAttention}. */
export type CompareOptions = Omit<AttentionOptions, 'out' | 'returnLse'>;

const COMPARE_OPTIONS: readonly string[] = ATTENTION_OPTIONS.filter(
  (name) => name !== 'out' && name !== 'returnLse',
);
const CALLER = 'compareAttention';

/**
 * Checks an attention result against the oracle (float64): that of the backend in use or, where it is given, `expected`.
 *
 * Passes where the largest error and the relative Frobenius error are at most twice those of a naive evaluation of the
 * same problem (in float32; for 16-bit inputs in their type; for precision 'high' and 'medium' in TF32 and bfloat16), plus
 * a floor of 4 units in the last place. Costs about three runs of the oracle.
 *
 * Arguments as in `attention`, and:
 *
 * @param expected an out, or { out, lse }, of another implementation
 * @throws ShapeError, DTypeError, OptionError
 * @example
 * const report = compareAttention(q, k, v, { causal: true });
 * if (!report.pass) console.error(`${report}`);
 */
export function compareAttention(
  q: TensorLike,
  k: TensorLike,
  v: TensorLike,
  options?: CompareOptions | null,
  expected?: TensorLike | { readonly out: TensorLike; readonly lse?: TensorLike },
): Report {
  const problem = withLse(describeAttention(CALLER, q, k, v, options, COMPARE_OPTIONS));
  if (expected !== undefined) return judge(measure(problem), checkExpected(problem, expected), 'expected');
  const backend = selectBackend(problem.backend);
  const results = makeResults(problem);
  backend.attention(problem, results.out, results.lse);
  return judge(measure(problem), results.value as AttentionResult, backend.name);
}

function withLse(problem: AttentionProblem): AttentionProblem {
  return { ...problem, returnLse: true, out: null };
}

function checkExpected(
  problem: AttentionProblem,
  expected: TensorLike | { readonly out: TensorLike; readonly lse?: TensorLike },
): { out: Tensor; lse: Tensor | null } {
  const isPair = typeof expected === 'object' && expected !== null && 'out' in expected;
  const out = checkResult('expected', isPair ? expected.out : expected, problem.outShape);
  if (!isPair || expected.lse === undefined) return { out, lse: null };
  return { out, lse: checkResult('expected.lse', expected.lse, problem.lseShape) };
}

function checkResult(name: string, value: unknown, shape: readonly number[]): Tensor {
  const x = asTensor(CALLER, name, value);
  if (formatShape(x.shape) !== formatShape(shape)) {
    throw new ShapeError(
      `${CALLER}: ${name} must have the shape of the result; ${name} ${formatShape(x.shape)}, result ${formatShape(shape)}`,
    );
  }
  if (isFloatDType(x.dtype)) return x;
  throw new DTypeError(`${CALLER}: ${name} must be a float; got ${x.dtype}; convert with .to('float32')`);
}

/** The oracle's answer to a problem, and how far from it any answer may be. */
export interface Yardstick {
  readonly dtype: DType;
  readonly want: AttentionResult;
  readonly outTolerance: Tolerance;
  readonly lseTolerance: Tolerance;
}

/** Solves the problem in float64, and once more naively. */
export function measure(described: AttentionProblem): Yardstick {
  const problem = withLse(described);
  const dtype = problem.q.dtype;
  const want = makeResults(problem);
  const naive = makeResults(problem);
  run(problem, want.out, want.lse);
  run(problem, naive.out, naive.lse, naiveArithmetic(gradeOf(dtype, problem.precision)));
  const [wantLse, naiveLse] = [want.lse as Tensor, naive.lse as Tensor];
  const outErrors = summarizeErrors(naive.out, want.out, dtype);
  const lseErrors = summarizeErrors(naiveLse, wantLse, 'float32');
  // A logarithm near 0 comes of numbers near 1.
  const lseMagnitude = Tensor.wrap(
    (wantLse.data as Float32Array).map((x) => Math.max(1, Math.abs(x))),
    wantLse.shape,
    'float32',
  );
  return {
    dtype,
    want: want.value as AttentionResult,
    outTolerance: toleranceFrom(outErrors, want.out, outMagnitude(problem, want.out), dtype),
    lseTolerance: toleranceFrom(lseErrors, wantLse, lseMagnitude, 'float32'),
  };
}

/** Results of fewer elements may be small by chance, all of them. */
const FEW_ELEMENTS = 4096;

/**
 * What is added up to each element of out, by its size: sqrt(Σ p²v²), which is about |out| where signs are random. Of many
 * elements out itself tells it.
 */
function outMagnitude(problem: AttentionProblem, want: Tensor): Tensor {
  if (want.size > FEW_ELEMENTS) return want;
  const magnitude = Tensor.zeros(want.shape);
  run(problem, magnitude, null, sumOfSquares);
  return Tensor.wrap((magnitude.data as Float32Array).map(Math.sqrt), want.shape, 'float32');
}

/** Compares an answer with the oracle's. */
export function judge(
  yardstick: Yardstick,
  got: { readonly out: Tensor; readonly lse: Tensor | null },
  backend: Report['backend'],
): Report {
  const { dtype, want, outTolerance, lseTolerance } = yardstick;
  const out = verdictOn(got.out, want.out, dtype, outTolerance);
  const lse = got.lse === null ? null : verdictOn(got.lse, want.lse, 'float32', lseTolerance);
  const pass = out.pass && (lse === null || lse.pass);
  const text = [formatVerdict(`out (${dtype}, ${backend})`, out)];
  if (lse !== null) text.push(formatVerdict('lse (float32)', lse));
  const print = (): string => text.join('\n');
  // The methods are not enumerable, so that a report is plain data to JSON and to deep comparison.
  return Object.defineProperties(
    { ...out, pass, dtype, backend, lse },
    { toString: { value: print }, [Symbol.for('nodejs.util.inspect.custom')]: { value: print } },
  );
}

function verdictOn(got: Tensor, want: Tensor, dtype: DType, tolerance: Tolerance): Verdict {
  const errors = summarizeErrors(got, want, dtype);
  return { ...errors, pass: isWithin(errors, tolerance), tolerance };
}

function formatVerdict(name: string, { pass, tolerance, worst, ...errors }: Verdict): string {
  const number = (x: number): string => x.toPrecision(3);
  const where =
    worst === null ? '' : `; worst at ${formatShape(worst.index)}: got ${worst.got}, want ${worst.want}`;
  return (
    `${pass ? 'pass' : 'FAIL'} ${name}: max abs ${number(errors.maxAbs)} (at most ${number(tolerance.maxAbs)}), ` +
    `relative Frobenius ${number(errors.relativeFrobenius)} (at most ${number(tolerance.relativeFrobenius)}), ` +
    `max ULP ${errors.maxUlp}${where}`
  );
}
