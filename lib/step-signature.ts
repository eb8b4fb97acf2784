import type { DType } from './dtype.ts';
import type { CacheAttentionOptions } from './options.ts';
import { Tensor } from './tensor.ts';

/**
 * What the validation of a decode step has looked at, so that the next step that has the same needs none: the options,
 * value by value, and dtype, shape and strides of q, k, v and out. What changes from step to step is not in it: the
 * memory of the tensors and where in it they begin, which the backend looks at, and the length of the cache.
 *
 * It judges nothing: a step that differs from the last one in anything goes through describeAttention. So does every step
 * with an option that holds memory of its own, with a queryOffset, or that returns an lse.
 */
export class StepSignature {
  readonly #q: TensorSignature;
  readonly #k: TensorSignature;
  readonly #v: TensorSignature;
  readonly #out: TensorSignature;
  /** Whether the caller gave `out`. */
  readonly #givesOut: boolean;
  readonly #scale: unknown;
  readonly #causal: unknown;
  readonly #window: CacheAttentionOptions['window'];
  readonly #softcap: unknown;
  readonly #precision: unknown;
  readonly #threads: unknown;
  readonly #backend: unknown;

  /** Of a step that was done, with options as readCacheOptions gives them; null where each such step goes the long way. */
  static of(
    q: unknown,
    k: unknown,
    v: unknown,
    out: unknown,
    options: CacheAttentionOptions,
  ): StepSignature | null {
    if (!(q instanceof Tensor && k instanceof Tensor && v instanceof Tensor && out instanceof Tensor))
      return null;
    return isRepeatable(options) ? new StepSignature(q, k, v, out, options) : null;
  }

  private constructor(q: Tensor, k: Tensor, v: Tensor, out: Tensor, options: CacheAttentionOptions) {
    this.#q = new TensorSignature(q);
    this.#k = new TensorSignature(k);
    this.#v = new TensorSignature(v);
    this.#out = new TensorSignature(out);
    this.#givesOut = !isAbsent(options.out);
    this.#scale = options.scale;
    this.#causal = options.causal;
    this.#window = options.window;
    this.#softcap = options.softcap;
    this.#precision = options.precision;
    this.#threads = options.threads;
    this.#backend = options.backend;
  }

  /** Where the result of a step with this signature belongs, given or made; null where the step differs. */
  outOf(q: unknown, k: unknown, v: unknown, options: CacheAttentionOptions): Tensor | null {
    if (!isRepeatable(options)) return null;
    const { out, scale, causal, window, softcap, precision, threads, backend } = options;
    if (
      scale !== this.#scale ||
      causal !== this.#causal ||
      softcap !== this.#softcap ||
      precision !== this.#precision ||
      threads !== this.#threads ||
      backend !== this.#backend ||
      !isSameWindow(window, this.#window) ||
      !this.#q.fits(q) ||
      !this.#k.fits(k) ||
      !this.#v.fits(v) ||
      isAbsent(out) === this.#givesOut
    ) {
      return null;
    }
    if (!this.#givesOut) return this.#out.make();
    return this.#out.fits(out) ? out : null;
  }
}

/** Dtype and layout of a tensor, without its memory and where in that it begins. */
class TensorSignature {
  readonly #dtype: DType;
  readonly #shape: readonly number[];
  readonly #strides: readonly number[];

  constructor({ dtype, shape, strides }: Tensor) {
    this.#dtype = dtype;
    this.#shape = shape;
    this.#strides = strides;
  }

  fits(value: unknown): value is Tensor {
    return (
      value instanceof Tensor &&
      value.dtype === this.#dtype &&
      areSame(value.shape, this.#shape) &&
      areSame(value.strides, this.#strides)
    );
  }

  /** A fresh, row-major one. */
  make(): Tensor {
    return Tensor.empty(this.#shape, { dtype: this.#dtype });
  }
}

const isAbsent = (value: unknown): boolean => value === undefined || value === null;

/** Whether nothing of these options but `out` must be looked at again from step to step. */
function isRepeatable({
  mask,
  bias,
  alibiSlopes,
  sinks,
  queryOffset,
  returnLse,
}: CacheAttentionOptions): boolean {
  return (
    isAbsent(mask) &&
    isAbsent(bias) &&
    isAbsent(alibiSlopes) &&
    isAbsent(sinks) &&
    isAbsent(queryOffset) &&
    (isAbsent(returnLse) || returnLse === false)
  );
}

/** Of two windows that readCacheOptions has copied. */
function isSameWindow(a: CacheAttentionOptions['window'], b: CacheAttentionOptions['window']): boolean {
  if (!a || !b) return a === b;
  return a.left === b.left && a.right === b.right && a.sinkTokens === b.sinkTokens;
}

/** The lists of a tensor are frozen: one and the same says the same for ever, and V8 is slow to look into it. */
function areSame(a: readonly number[], b: readonly number[]): boolean {
  if (a === b) return true;
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}
