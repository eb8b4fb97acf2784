import { type Backend, selectBackend } from './backend.ts';
import { describeAttention } from './describe-attention.ts';
import type { DType } from './dtype.ts';
import { OptionError } from './errors.ts';
import { ATTENTION_OPTIONS, type AttentionAsyncOptions, type AttentionOptions } from './options.ts';
import type { AttentionProblem } from './problem.ts';
import { referenceBackend } from './reference/backend.ts';
import { Tensor } from './tensor.ts';
import { allocate, formatValue, sizeOfShape } from './tensor-layout.ts';
import type { TensorLike } from './tensor-like.ts';

/** What attention returns with `returnLse: true`. */
export interface AttentionResult {
  /** [B, Hq, Lq, Dv], or as q without B; the dtype of q. */
  readonly out: Tensor;
  /** [B, Hq, Lq] or [Hq, Lq]; float32: the natural logarithm of the softmax's denominator. */
  readonly lse: Tensor;
}

type WithLse<Options> = Options & { readonly returnLse: true };
type WithoutLse<Options> = Options & { readonly returnLse?: false | null };

/** The names that the options of the asynchronous forms may have. */
const ASYNC_OPTIONS: readonly string[] = [...ATTENTION_OPTIONS, 'signal'];

/**
 * Exact scaled-dot-product attention: softmax(q·kᵀ × scale)·v.
 *
 * Shapes: q [B, Hq, Lq, D], k [B, Hkv, Lk, D], v [B, Hkv, Lk, Dv], out [B, Hq, Lq, Dv]; Hq is a multiple of Hkv, and
 * query head h reads kv head floor(h / (Hq / Hkv)). All of rank 3 means B = 1. One dtype of float32, float16,
 * bfloat16. Any strides, but for the last axis, which is contiguous.
 *
 * `causal` aligns the last query with the last key (queryOffset = Lk - Lq), as FlashAttention does; PyTorch's
 * is_causal is `queryOffset: 0`. A query that sees no key gives 0, and an lse of -Infinity. Lq = 0, Lk = 0, B = 0
 * and Dv = 0 are legal; D = 0 or no heads are not.
 *
 * @returns out; or { out, lse } with `returnLse: true`
 * @throws ShapeError, DTypeError, OptionError, before any work; NativeLoadError for `backend: 'native'` without one
 * @example
 * const q = Tensor.randn([1, 32, 1, 128]); // one new token
 * const k = Tensor.randn([1, 8, 4096, 128]); // 8 kv heads serve 32 query heads
 * const v = Tensor.randn([1, 8, 4096, 128]);
 * const out = attention(q, k, v, { causal: true }); // [1, 32, 1, 128]
 */
export function attention(
  q: TensorLike,
  k: TensorLike,
  v: TensorLike,
  options: WithLse<AttentionOptions>,
): AttentionResult;
export function attention(
  q: TensorLike,
  k: TensorLike,
  v: TensorLike,
  options?: WithoutLse<AttentionOptions> | null,
): Tensor;
export function attention(
  q: TensorLike,
  k: TensorLike,
  v: TensorLike,
  options?: AttentionOptions | null,
): Tensor | AttentionResult;
export function attention(
  q: TensorLike,
  k: TensorLike,
  v: TensorLike,
  options?: AttentionOptions | null,
): Tensor | AttentionResult {
  const problem = describeAttention('attention', q, k, v, options);
  return execute(problem, selectBackend(problem.backend));
}

/**
 * {@link attention} off the event loop. The inputs must not change until the promise settles; their memory is held until
 * then, even if a buffer is transferred meanwhile (where the engine cannot hold it, Bun and Windows, the call works on
 * copies). A resizable ArrayBuffer is refused: it could shrink. Short calls do not wait for long ones; those run in order.
 *
 * @param options those of attention, and `signal`: aborting rejects with `signal.reason`; `out` holds unspecified values then
 * @returns a promise of what attention returns; every error, bad input included, rejects it
 * @throws beside those of attention: ShapeError where `out` was transferred meanwhile
 * @example
 * const out = await attentionAsync(q, k, v, { causal: true, signal: AbortSignal.timeout(1000) });
 */
export function attentionAsync(
  q: TensorLike,
  k: TensorLike,
  v: TensorLike,
  options: WithLse<AttentionAsyncOptions>,
): Promise<AttentionResult>;
export function attentionAsync(
  q: TensorLike,
  k: TensorLike,
  v: TensorLike,
  options?: WithoutLse<AttentionAsyncOptions> | null,
): Promise<Tensor>;
export function attentionAsync(
  q: TensorLike,
  k: TensorLike,
  v: TensorLike,
  options?: AttentionAsyncOptions | null,
): Promise<Tensor | AttentionResult>;
export async function attentionAsync(
  q: TensorLike,
  k: TensorLike,
  v: TensorLike,
  options?: AttentionAsyncOptions | null,
): Promise<Tensor | AttentionResult> {
  const problem = describeAttention('attentionAsync', q, k, v, options, ASYNC_OPTIONS);
  const signal = readSignal('attentionAsync', options?.signal);
  signal?.throwIfAborted();
  const results = makeResults(problem);
  await selectBackend(problem.backend).attentionAsync(problem, results.out, results.lse, signal);
  return results.value;
}

/**
 * The oracle: {@link attention} in plain TypeScript, float64 inside and rounded once at the end. Same arguments, same
 * results; `threads`, `precision` and `backend` are checked and change nothing.
 *
 * @throws ShapeError, DTypeError, OptionError
 * @example
 * const { out, lse } = referenceAttention(q, k, v, { causal: true, returnLse: true });
 */
export function referenceAttention(
  q: TensorLike,
  k: TensorLike,
  v: TensorLike,
  options: WithLse<AttentionOptions>,
): AttentionResult;
export function referenceAttention(
  q: TensorLike,
  k: TensorLike,
  v: TensorLike,
  options?: WithoutLse<AttentionOptions> | null,
): Tensor;
export function referenceAttention(
  q: TensorLike,
  k: TensorLike,
  v: TensorLike,
  options?: AttentionOptions | null,
): Tensor | AttentionResult;
export function referenceAttention(
  q: TensorLike,
  k: TensorLike,
  v: TensorLike,
  options?: AttentionOptions | null,
): Tensor | AttentionResult {
  return execute(describeAttention('referenceAttention', q, k, v, options), referenceBackend);
}

function execute(problem: AttentionProblem, backend: Backend): Tensor | AttentionResult {
  const results = makeResults(problem);
  backend.attention(problem, results.out, results.lse);
  return results.value;
}

/** The memory of a call's results: as a backend takes them (rank 4 and 3), and as the caller gets them. */
export interface Results {
  readonly out: Tensor;
  readonly lse: Tensor | null;
  readonly value: Tensor | AttentionResult;
}

/** Allocates what the caller has not given. */
export function makeResults(problem: AttentionProblem): Results {
  const { caller, outShape, lseShape } = problem;
  const out = problem.out ?? fresh(caller, outShape, problem.q.dtype);
  const backendOut = outShape.length === 4 ? out : out.unsqueeze(0);
  if (!problem.returnLse) return { out: backendOut, lse: null, value: out };
  const lse = fresh(caller, lseShape, 'float32');
  return { out: backendOut, lse: lseShape.length === 3 ? lse : lse.unsqueeze(0), value: { out, lse } };
}

/** A result of that shape. @throws ShapeError where it has more elements than can be counted; CapacityError */
export function fresh(caller: string, shape: readonly number[], dtype: DType): Tensor {
  const size = sizeOfShape(`${caller}: the result`, shape);
  return Tensor.wrap(allocate(caller, dtype, size, shape), shape, dtype);
}

/** `signal` as an AbortSignal, which may be of another realm or a polyfill. */
export function readSignal(caller: string, signal: unknown): AbortSignal | undefined {
  if (signal === undefined || signal === null) return undefined;
  const isSignal = (x: Partial<AbortSignal>): boolean =>
    typeof x.aborted === 'boolean' &&
    typeof x.throwIfAborted === 'function' &&
    typeof x.addEventListener === 'function' &&
    typeof x.removeEventListener === 'function';
  if (typeof signal === 'object' && isSignal(signal)) return signal as AbortSignal;
  throw new OptionError(`${caller}: signal must be an AbortSignal; got ${formatValue(signal)}`);
}
