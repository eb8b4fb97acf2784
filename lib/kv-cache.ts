import { type AttentionResult, makeResults, type Results, readSignal } from './attention.ts';
import {
  type Backend,
  type BackendChoice,
  type CacheLayout,
  type CacheStorage,
  selectBackend,
} from './backend.ts';
import { checkTruncation, readKept } from './cache-checks.ts';
import { type KVCacheOptions, readLayout, withinWindow } from './cache-layout.ts';
import { readTokens, type Tokens } from './cache-tokens.ts';
import { describeCacheAttention } from './describe-attention.ts';
import type { DType } from './dtype.ts';
import { DisposedError, OptionError } from './errors.ts';
import { ForkSeed } from './fork-seed.ts';
import { CACHE_OPTIONS, type CacheAttentionOptions, readCacheOptions, readWord } from './options.ts';
import type { AttentionProblem } from './problem.ts';
import { type CacheMember, type StepAllResult, stepAll } from './step-all.ts';
import { StepSignature } from './step-signature.ts';
import type { Tensor } from './tensor.ts';
import type { TensorLike } from './tensor-like.ts';

export type { CacheAttentionOptions, KVCacheOptions, StepAllResult };

/** The same, for the asynchronous forms. */
export type CacheAttentionAsyncOptions = CacheAttentionOptions & { readonly signal?: AbortSignal | null };

const ASYNC_CACHE_OPTIONS = [...CACHE_OPTIONS, 'signal'];
const BACKENDS: readonly BackendChoice[] = ['auto', 'native', 'reference'];

/**
 * Keys and values of the tokens so far, [batch, numKvHeads, length, headDim], in memory that grows in place: append
 * never copies what is already there.
 *
 * The memory is freed by `dispose`, by `using`, or with the object; a disposed cache throws DisposedError. One
 * asynchronous call may run on a cache at a time; until it settles every other use is refused.
 *
 * @example
 * using cache = new KVCache({ numKvHeads: 8, headDim: 128 });
 * cache.append(promptK, promptV);              // [1, 8, T, 128]
 * const out = cache.step(q, k, v);             // q [1, 32, 1, 128], k and v [1, 8, 1, 128]
 */
export class KVCache {
  readonly #layout: CacheLayout;
  readonly #backend: Backend;
  readonly #storage: CacheStorage;
  #length = 0;
  /** Tokens of the newest append that are still there. */
  #newest = 0;
  /** Of the last step that was validated, where one like it can be repeated. */
  #signature: StepSignature | null = null;
  #busy = false;
  #disposed = false;

  /** @throws OptionError, DTypeError; CapacityError where `maxLength` tokens find no address space */
  constructor(options: KVCacheOptions) {
    if (options instanceof ForkSeed) {
      this.#layout = options.layout;
      this.#backend = options.backend;
      this.#storage = options.storage;
      this.#length = options.storage.length;
      this.#newest = options.newest;
      return;
    }
    this.#layout = readLayout(options);
    const backend = selectBackend(readWord('KVCache', 'backend', options.backend, BACKENDS));
    this.#backend = backend;
    this.#storage = backend.createCache(this.#layout);
  }

  /** Tokens cached. */
  get length(): number {
    return this.#length;
  }

  /** Tokens that fit without new address space. */
  get capacity(): number {
    if (this.#disposed) return 0;
    const { window, maxLength } = this.#layout;
    return window === 0 ? this.#storage.capacity : maxLength;
  }

  /** Bytes of memory held now; 0 once disposed. */
  get byteLength(): number {
    return this.#disposed ? 0 : this.#storage.byteLength;
  }

  get dtype(): DType {
    return this.#layout.dtype;
  }

  /**
   * Appends T tokens.
   *
   * @param k [batch, numKvHeads, T, headDim], any float dtype; without batch where that is 1
   * @param v [batch, numKvHeads, T, valueDim]
   * @throws ShapeError, DTypeError; CapacityError, and nothing is appended, beyond `maxLength` or out of memory
   */
  append(k: TensorLike, v: TensorLike): this {
    this.#checkUsable('KVCache.append');
    const before = this.#length;
    const tokens = readTokens('KVCache.append', this.#layout, before, k, v);
    this.#checkUnchanged('KVCache.append', before);
    this.#storage.append(tokens.k, tokens.v);
    this.#length += tokens.count;
    this.#newest = tokens.count;
    return this;
  }

  /**
   * Attention of q over all that is cached.
   *
   * @param q [batch, numHeads, Lq, headDim]; its last row stands at the last cached token unless `queryOffset` says else
   * @returns [batch, numHeads, Lq, valueDim] in q's dtype; or { out, lse } with `returnLse: true`
   */
  attend(q: TensorLike, options: CacheAttentionOptions & { readonly returnLse: true }): AttentionResult;
  attend(q: TensorLike, options?: CacheAttentionOptions | null): Tensor;
  attend(q: TensorLike, options?: CacheAttentionOptions | null): Tensor | AttentionResult {
    const given = this.#readOptions('KVCache.attend', options, CACHE_OPTIONS);
    const { problem, results } = this.#describe('KVCache.attend', q, given, this.#length, 0);
    this.#storage.attend(problem, results.out, results.lse);
    return results.value;
  }

  /**
   * The decode step: append k and v, then attend with q, in one crossing. On an error nothing has been appended.
   *
   * @param q [batch, numHeads, T, headDim]
   * @param k [batch, numKvHeads, T, headDim]
   * @param v [batch, numKvHeads, T, valueDim]
   */
  step(
    q: TensorLike,
    k: TensorLike,
    v: TensorLike,
    options: CacheAttentionOptions & { readonly returnLse: true },
  ): AttentionResult;
  step(q: TensorLike, k: TensorLike, v: TensorLike, options?: CacheAttentionOptions | null): Tensor;
  step(
    q: TensorLike,
    k: TensorLike,
    v: TensorLike,
    options?: CacheAttentionOptions | null,
  ): Tensor | AttentionResult {
    const given = this.#readOptions('KVCache.step', options, CACHE_OPTIONS);
    const place = this.#signature === null ? null : this.#signature.outOf(q, k, v, given);
    if (place !== null && this.#repeatStep(q as Tensor, k as Tensor, v as Tensor, place)) return place;
    const before = this.#length;
    const tokens = readTokens('KVCache.step', this.#layout, before, k, v);
    const { problem, results } = this.#describe('KVCache.step', q, given, before, tokens.count);
    this.#signature = null;
    this.#storage.step(tokens.k, tokens.v, problem, results.out, results.lse);
    this.#length = before + tokens.count;
    this.#newest = tokens.count;
    if (tokens.areStored) this.#signature = StepSignature.of(q, k, v, results.value, given);
    return results.value;
  }

  /** {@link KVCache.attend} off the event loop; `signal` aborts it. q must not change until the promise settles. */
  attendAsync(
    q: TensorLike,
    options: CacheAttentionAsyncOptions & { readonly returnLse: true },
  ): Promise<AttentionResult>;
  attendAsync(q: TensorLike, options?: CacheAttentionAsyncOptions | null): Promise<Tensor>;
  async attendAsync(
    q: TensorLike,
    options?: CacheAttentionAsyncOptions | null,
  ): Promise<Tensor | AttentionResult> {
    const given = this.#readOptions('KVCache.attendAsync', options, ASYNC_CACHE_OPTIONS);
    return this.#attendLater('KVCache.attendAsync', q, given, options?.signal, this.#length, null);
  }

  /** {@link KVCache.step} off the event loop; when it fails or is aborted, nothing stays appended. */
  stepAsync(
    q: TensorLike,
    k: TensorLike,
    v: TensorLike,
    options: CacheAttentionAsyncOptions & { readonly returnLse: true },
  ): Promise<AttentionResult>;
  stepAsync(
    q: TensorLike,
    k: TensorLike,
    v: TensorLike,
    options?: CacheAttentionAsyncOptions | null,
  ): Promise<Tensor>;
  async stepAsync(
    q: TensorLike,
    k: TensorLike,
    v: TensorLike,
    options?: CacheAttentionAsyncOptions | null,
  ): Promise<Tensor | AttentionResult> {
    const given = this.#readOptions('KVCache.stepAsync', options, ASYNC_CACHE_OPTIONS);
    const before = this.#length;
    const tokens = readTokens('KVCache.stepAsync', this.#layout, before, k, v);
    return this.#attendLater('KVCache.stepAsync', q, given, options?.signal, before, tokens);
  }

  /**
   * One decode step of N independent caches in one crossing, the inner loop of continuous batching: append entry n of k and v
   * to caches[n], then attend to it with entry n of q. The caches may differ in length; each has batch 1. What forks
   * share is read once for all of them (not with a window, alibiSlopes, mask or bias: right then too, but each by itself).
   *
   * @param q [N, numHeads, T, headDim]; k [N, numKvHeads, T, headDim]; v [N, numKvHeads, T, valueDim]
   * @param options those of attend, for all of them; alibiSlopes may be [N, numHeads], mask and bias broadcast to
   *   [N, numHeads, T, longest], queryOffset may be one number a cache
   * @returns [N, numHeads, T, valueDim] in q's dtype; or { out, lse } with `returnLse: true`
   * @throws ShapeError, DTypeError, OptionError (a cache given twice or in use, layouts that differ), CapacityError,
   *   DisposedError; no cache has changed then
   */
  static stepAll<Options extends CacheAttentionOptions = CacheAttentionOptions>(
    caches: readonly KVCache[],
    q: TensorLike,
    k: TensorLike,
    v: TensorLike,
    options?: Options | null,
  ): StepAllResult<Options> {
    const memberOf = (cache: unknown): CacheMember | null =>
      typeof cache === 'object' && cache !== null && #storage in cache ? cache.#member() : null;
    return stepAll(caches, memberOf, q, k, v, options) as StepAllResult<Options>;
  }

  #member(): CacheMember {
    return {
      layout: this.#layout,
      backend: this.#backend,
      storage: this.#storage,
      length: this.#length,
      checkUsable: (caller) => this.#checkUsable(caller),
      checkUnchanged: (caller, length) => this.#checkUnchanged(caller, length),
      grow: (tokens) => {
        this.#length += tokens;
        this.#newest = tokens;
      },
    };
  }

  /**
   * Forgets the newest tokens: the rollback of speculative decoding.
   *
   * @param length tokens to keep, from 0 to the present length
   */
  truncate(length: number): this {
    this.#checkUsable('KVCache.truncate');
    checkTruncation(length, this.#length, this.#storage.keptBegin, this.#layout);
    this.#storage.truncate(length);
    this.#newest = Math.max(0, this.#newest - (this.#length - length));
    this.#length = length;
    return this;
  }

  /**
   * After a draft tree was appended: of the newest tokens, those of the last append or step, keeps these, in this order;
   * they then end the cache.
   *
   * @param indices whole numbers from 0 to T - 1, where T tokens came with the last append; each at most once
   * @throws OptionError where an index is no such number
   */
  keep(indices: ArrayLike<number>): this {
    this.#checkUsable('KVCache.keep');
    const kept = readKept(indices, this.#newest);
    const begin = this.#length - this.#newest;
    this.#storage.keep(begin, kept);
    this.#length = begin + kept.length;
    this.#newest = kept.length;
    return this;
  }

  /**
   * An independent continuation: what is cached is shared with this cache until one of both writes there, what comes is
   * not. Costs no memory but for what is appended afterwards.
   */
  fork(): KVCache {
    this.#checkUsable('KVCache.fork');
    const storage = this.#storage.fork();
    const seed = new ForkSeed(this.#layout, this.#backend, storage, this.#newest);
    return new KVCache(seed as unknown as KVCacheOptions);
  }

  /** A copy of the keys, [batch, numKvHeads, length, headDim]; of a cache with a window, of the tokens that it keeps. */
  keys(): Tensor {
    this.#checkUsable('KVCache.keys');
    const { sinkEnd, begin } = this.#kept();
    return this.#storage.keys(sinkEnd, begin);
  }

  /** A copy of the values, [batch, numKvHeads, length, valueDim]; likewise. */
  values(): Tensor {
    this.#checkUsable('KVCache.values');
    const { sinkEnd, begin } = this.#kept();
    return this.#storage.values(sinkEnd, begin);
  }

  /** Tokens [0, sinkEnd) and [begin, length) are those that the window keeps. */
  #kept(): { sinkEnd: number; begin: number } {
    const { window, sinkTokens } = this.#layout;
    const begin = window === 0 ? 0 : Math.max(0, this.#length - window);
    const sinkEnd = Math.min(sinkTokens, begin);
    return { sinkEnd, begin };
  }

  /** Frees the memory, at once or when the asynchronous call that runs has ended. Disposing twice is harmless. */
  dispose(): void {
    if (this.#disposed) return;
    this.#disposed = true;
    this.#length = 0;
    if (!this.#busy) this.#storage.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #checkUsable(caller: string): void {
    if (this.#disposed) throw new DisposedError(`${caller}: the cache was disposed; make a new KVCache`);
    if (this.#busy) {
      throw new OptionError(`${caller}: an asynchronous call is running on this cache; await it first`);
    }
  }

  /** That the cache still is `length` tokens long: while arguments are read their getters run, and may use it. */
  #checkUnchanged(caller: string, length: number): void {
    this.#checkUsable(caller);
    if (this.#length === length) return;
    throw new OptionError(
      `${caller}: a getter of an argument changed the cache from ${length} to ${this.#length} tokens while it was read; ` +
        'read it before the call',
    );
  }

  #readOptions(
    caller: string,
    options: CacheAttentionOptions | null | undefined,
    names: readonly string[],
  ): CacheAttentionOptions {
    this.#checkUsable(caller);
    return readCacheOptions(caller, options, names);
  }

  /** A step with the signature of the last one. False, and nothing has changed, where it must be done in full. */
  #repeatStep(q: Tensor, k: Tensor, v: Tensor, out: Tensor): boolean {
    const length = this.#length + k.shape[k.shape.length - 2];
    if (this.#disposed || this.#busy || length > this.#layout.maxLength) return false;
    if (!this.#storage.repeatStep(q, k, v, out)) return false;
    this.#newest = length - this.#length;
    this.#length = length;
    return true;
  }

  /** A call on the cache once `count` tokens have joined the `length` that it held when the arguments were read. */
  #describe(
    caller: string,
    q: TensorLike,
    options: CacheAttentionOptions,
    length: number,
    count: number,
  ): { problem: AttentionProblem; results: Results } {
    const { batch, numKvHeads, headDim, valueDim } = this.#layout;
    const keys = { batch, numKvHeads, kvLen: length + count, headDim, valueDim };
    const problem = describeCacheAttention(caller, q, keys, withinWindow(options, this.#layout));
    if (problem.backend !== 'auto' && problem.backend !== this.#backend.name) {
      throw new OptionError(
        `${caller}: this cache belongs to the ${this.#backend.name} backend, not '${problem.backend}'; ` +
          'choose the backend when the cache is made',
      );
    }
    this.#checkUnchanged(caller, length);
    return { problem, results: makeResults(problem) };
  }

  async #attendLater(
    caller: string,
    q: TensorLike,
    options: CacheAttentionOptions,
    signalOption: unknown,
    before: number,
    tokens: Tokens | null,
  ): Promise<Tensor | AttentionResult> {
    const count = tokens?.count ?? 0;
    const { problem, results } = this.#describe(caller, q, options, before, count);
    const signal = readSignal(caller, signalOption);
    signal?.throwIfAborted();
    if (tokens !== null) this.#storage.append(tokens.k, tokens.v);
    this.#busy = true;
    try {
      await this.#storage.attendAsync(problem, results.out, results.lse, signal);
      if (!this.#disposed) {
        this.#length = before + count;
        if (tokens !== null) this.#newest = count;
      }
    } catch (error) {
      this.#storage.truncate(before);
      throw error;
    } finally {
      this.#busy = false;
      if (this.#disposed) this.#storage.dispose();
    }
    return results.value;
  }
}
