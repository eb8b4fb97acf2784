import { makeResults, type Results, readSignal } from './attention.ts';
import { selectBackend } from './backend.ts';
import { checkBackend, readKept } from './cache-checks.ts';
import type { CacheFile, CacheLoadOptions } from './cache-file.ts';
import * as cacheFile from './cache-file.ts';
import { type KVCacheOptions, keptTokens, readLayout, withinWindow } from './cache-layout.ts';
import type { CacheAttentionAsyncOptions, CacheResult, CacheStepAsyncOptions } from './cache-result.ts';
import { CacheState } from './cache-state.ts';
import { readTokens, type Tokens } from './cache-tokens.ts';
import { describeCacheAttention } from './describe-attention.ts';
import type { DType } from './dtype.ts';
import {
  APPEND_OPTIONS,
  type AppendOptions,
  BACKENDS,
  CACHE_OPTIONS,
  type CacheAttentionOptions,
  type CacheStepOptions,
  checkOptions,
  type IntegerVector,
  readCacheOptions,
  readWord,
  STEP_OPTIONS,
} from './options.ts';
import type { AttentionProblem } from './problem.ts';
import { clearPadding, withCounts } from './ragged-cache.ts';
import { stepAll } from './step-all.ts';
import { StepSignature } from './step-signature.ts';
import type { Tensor } from './tensor.ts';
import type { TensorLike } from './tensor-like.ts';

export type {
  AppendOptions,
  CacheAttentionAsyncOptions,
  CacheAttentionOptions,
  CacheResult,
  CacheStepAsyncOptions,
  CacheStepOptions,
  KVCacheOptions,
};

/**
 * Keys and values of the tokens so far, [batch, numKvHeads, length, headDim], in memory that grows in place: append
 * never copies what is already there.
 *
 * The memory is freed by `dispose`, by `using`, or with the object; a disposed cache throws DisposedError. One
 * asynchronous call may run on a cache at a time; until it settles every other use is refused.
 *
 * @example
 * using cache = new KVCache({ numKvHeads: 2, headDim: 64 });
 * cache.append(promptK, promptV); // the prompt, [1, 2, T, 64]
 * const out = cache.step(q, k, v); // [1, 8, 1, 64]
 */
export class KVCache {
  readonly #state: CacheState;
  /** Of the last step that was validated, where one like it can be repeated. */
  #signature: StepSignature | null = null;

  /** @throws OptionError, DTypeError; CapacityError where `maxLength` tokens find no address space */
  constructor(options: KVCacheOptions) {
    if (options instanceof CacheState) {
      this.#state = options;
      return;
    }
    const layout = readLayout(options);
    const backend = selectBackend(readWord('KVCache', 'backend', options.backend, BACKENDS));
    this.#state = new CacheState(layout, backend, backend.createCache(layout), 0);
  }

  /** Tokens cached; of the longest entry, where they differ. */
  get length(): number {
    return this.#state.length;
  }

  /** Tokens of each batch entry. */
  get lengths(): Int32Array {
    return this.#state.lengths ?? new Int32Array(this.#state.layout.batch).fill(this.length);
  }

  /** Tokens that fit without new address space. */
  get capacity(): number {
    if (this.#state.disposed) return 0;
    const { window, maxLength } = this.#state.layout;
    return window === 0 ? this.#state.storage.capacity : maxLength;
  }

  /** Bytes of memory held now; 0 once disposed. */
  get byteLength(): number {
    return this.#state.disposed ? 0 : this.#state.storage.byteLength;
  }

  get dtype(): DType {
    return this.#state.layout.dtype;
  }

  /**
   * Appends T tokens.
   *
   * @param k [batch, numKvHeads, T, headDim], any float dtype; without batch where that is 1
   * @param v [batch, numKvHeads, T, valueDim]
   * @param options `lengths`: of the T tokens, how many each batch entry takes; entries of different lengths attend each
   *   to its own
   * @throws ShapeError, DTypeError; CapacityError, and nothing is appended, beyond `maxLength` or out of memory
   * @example cache.append(k, v).length; // 101
   */
  append(k: TensorLike, v: TensorLike, options?: AppendOptions | null): this {
    this.#state.checkUsable('KVCache.append');
    const { length } = this.#state;
    const { lengths } = checkOptions<AppendOptions>('KVCache.append', 'options', options, APPEND_OPTIONS);
    const tokens = readTokens('KVCache.append', this.#state, k, v, lengths);
    this.#state.checkUnchanged('KVCache.append', length);
    this.#state.storageFor(tokens).append(tokens.k, tokens.v, tokens.counts);
    this.#state.grow(tokens);
    return this;
  }

  /**
   * Attention of q over all that is cached.
   *
   * @param q [batch, numHeads, Lq, headDim]; its last row is at the last cached token unless `queryOffset` says otherwise
   * @returns [batch, numHeads, Lq, valueDim] in q's dtype; or { out, lse } with `returnLse: true`
   * @example const out = cache.attend(q, { window: { left: 63 } }); // [1, 8, 1, 64]
   */
  attend<Options extends CacheAttentionOptions = CacheAttentionOptions>(
    q: TensorLike,
    options?: Options | null,
  ): CacheResult<Options> {
    const given = this.#readOptions('KVCache.attend', options, CACHE_OPTIONS);
    const { problem, results } = this.#describe('KVCache.attend', q, given, this.#state.length, null);
    this.#state.storage.attend(problem, results.out, results.lse);
    return results.value as CacheResult<Options>;
  }

  /**
   * The decode step: append k and v, then attend with q, in one call of the addon. On an error nothing has been appended.
   *
   * @param q [batch, numHeads, T, headDim]
   * @param k [batch, numKvHeads, T, headDim]
   * @param v [batch, numKvHeads, T, valueDim]
   * @param options those of attend, and `lengths` as append takes it: then the first lengths[b] rows of q belong to the
   *   tokens of entry b; the others are padding, and give 0 and an lse of -Infinity
   * @example const out = cache.step(q, k, v); // [1, 8, 1, 64]
   */
  step<Options extends CacheStepOptions = CacheStepOptions>(
    q: TensorLike,
    k: TensorLike,
    v: TensorLike,
    options?: Options | null,
  ): CacheResult<Options> {
    type Result = CacheResult<Options>;
    const given = this.#readOptions('KVCache.step', options, STEP_OPTIONS);
    const lengths = options?.lengths ?? null;
    const place = this.#signature === null || lengths !== null ? null : this.#signature.outOf(q, k, v, given);
    if (place !== null && this.#repeatStep(q as Tensor, k as Tensor, v as Tensor, place))
      return place as Result;
    const { length } = this.#state;
    const tokens = readTokens('KVCache.step', this.#state, k, v, lengths);
    const { problem, results } = this.#describe('KVCache.step', q, given, length, tokens);
    this.#signature = null;
    this.#state.storageFor(tokens).step(tokens.k, tokens.v, problem, results.out, results.lse, tokens.counts);
    this.#state.grow(tokens);
    if (tokens.counts !== null) clearPadding({ ...results, problem });
    else if (tokens.areStored) this.#signature = StepSignature.of(q, k, v, results.value, given);
    return results.value as Result;
  }

  /** {@link KVCache.attend} off the event loop; `signal` aborts it. q must not change until the promise settles. */
  async attendAsync<Options extends CacheAttentionAsyncOptions = CacheAttentionAsyncOptions>(
    q: TensorLike,
    options?: Options | null,
  ): Promise<CacheResult<Options>> {
    const given = this.#readOptions('KVCache.attendAsync', options, [...CACHE_OPTIONS, 'signal']);
    return this.#attendLater('KVCache.attendAsync', q, given, options?.signal, this.#state.length, null);
  }

  /**
   * {@link KVCache.step} off the event loop; when it fails or is aborted, nothing stays appended.
   * @example const out = await cache.stepAsync(q, k, v, { signal: AbortSignal.timeout(1000) });
   */
  async stepAsync<Options extends CacheStepAsyncOptions = CacheStepAsyncOptions>(
    q: TensorLike,
    k: TensorLike,
    v: TensorLike,
    options?: Options | null,
  ): Promise<CacheResult<Options>> {
    const given = this.#readOptions('KVCache.stepAsync', options, [...STEP_OPTIONS, 'signal']);
    const { length } = this.#state;
    const tokens = readTokens('KVCache.stepAsync', this.#state, k, v, options?.lengths);
    return this.#attendLater('KVCache.stepAsync', q, given, options?.signal, length, tokens);
  }

  /**
   * One decode step of N independent caches in one call, the inner loop of continuous batching: append entry n of k and v
   * to caches[n], then attend to it with entry n of q. The caches may differ in length; each has batch 1. What forks
   * share is read once for all of them (not with a window, alibiSlopes, mask or bias: right then too, but each by itself).
   *
   * @param q [N, numHeads, T, headDim]; k [N, numKvHeads, T, headDim]; v [N, numKvHeads, T, valueDim]
   * @param options those of attend, for all of them; alibiSlopes may be [N, numHeads], mask and bias broadcast to
   *   [N, numHeads, T, longest], queryOffset may be one number a cache
   * @returns [N, numHeads, T, valueDim] in q's dtype; or { out, lse } with `returnLse: true`
   * @throws ShapeError, DTypeError, OptionError (a cache given twice or in use, layouts that differ), CapacityError,
   *   DisposedError; no cache has changed then
   * @example const out = KVCache.stepAll([cache, cache.fork()], q2, k2, v2); // [2, 8, 1, 64]
   */
  static stepAll<Options extends CacheAttentionOptions = CacheAttentionOptions>(
    caches: readonly KVCache[],
    q: TensorLike,
    k: TensorLike,
    v: TensorLike,
    options?: Options | null,
  ): CacheResult<Options> {
    const stateOf = (cache: unknown): CacheState | null =>
      typeof cache === 'object' && cache !== null && #state in cache ? cache.#state : null;
    return stepAll(caches, stateOf, q, k, v, options) as CacheResult<Options>;
  }

  /**
   * Forgets the newest tokens: the rollback of speculative decoding.
   *
   * @param length tokens to keep, from 0 to the present length; or a list of them, one per batch entry. One number
   *   leaves a shorter entry as it is
   * @example cache.truncate(96).length; // 96
   */
  truncate(length: number | IntegerVector): this {
    this.#state.checkUsable('KVCache.truncate');
    this.#state.truncate('KVCache.truncate', length);
    return this;
  }

  /**
   * After a draft tree was appended: of the newest tokens, those of the last append or step, keeps these, in this order;
   * they then end the cache.
   *
   * @param indices whole numbers from 0 to T - 1, where T tokens came with the last append; each at most once
   * @throws OptionError where an index is no such number
   * @example cache.append(tree.k, tree.v).keep([0, 2, 3]).length; // 103
   */
  keep(indices: ArrayLike<number>): this {
    this.#state.checkUsable('KVCache.keep');
    this.#state.keep(readKept(indices, this.#state.newest));
    return this;
  }

  /**
   * An independent continuation: it shares what is cached so far with this cache; what either of them appends later is its
   * own. Takes no memory except for what is appended afterwards.
   * @example const [left, right] = [cache.fork(), cache.fork()]; // 100 tokens each, in memory once
   */
  fork(): KVCache {
    this.#state.checkUsable('KVCache.fork');
    return KVCache.#of(this.#state.fork());
  }

  /**
   * A copy of the keys, [batch, numKvHeads, length, headDim]. A cache with a window gives the tokens that it keeps; one of
   * int8 gives the numbers that it holds, in float32. Shorter entries end with zeros.
   * @example cache.keys().shape; // [1, 2, 100, 64]
   */
  keys(): Tensor {
    this.#state.checkUsable('KVCache.keys');
    const { layout, storage } = this.#state;
    const { sinkEnd, begin } = keptTokens(layout, storage);
    return storage.keys(sinkEnd, begin);
  }

  /** A copy of the values, [batch, numKvHeads, length, valueDim], as {@link KVCache.keys} gives the keys. */
  values(): Tensor {
    this.#state.checkUsable('KVCache.values');
    const { layout, storage } = this.#state;
    const { sinkEnd, begin } = keptTokens(layout, storage);
    return storage.values(sinkEnd, begin);
  }

  /**
   * The cache as the bytes of a file: its tokens and all that its behaviour depends on, the same for every instruction set.
   *
   * @throws CapacityError where there is no memory for that; saveTo needs none
   * @example KVCache.load(cache.save()).length; // 100
   */
  save(): Uint8Array {
    this.#state.checkUsable('KVCache.save');
    return cacheFile.save('KVCache.save', this.#state);
  }

  /**
   * The cache that `save` or `saveTo` wrote; every byte is checked before it is made.
   *
   * @throws OptionError where bytes are missing, altered, of a newer format or of something else; CapacityError
   * @example const restored = KVCache.load(await readFile('session.kv'));
   */
  static load(bytes: Uint8Array, options?: CacheLoadOptions | null): KVCache {
    return KVCache.#of(cacheFile.load('KVCache.load', bytes, options));
  }

  /**
   * Writes what `save` returns at the current position of `file`, in pieces of a few MiB: the cache as it is at the call. It
   * may be used, appended to and disposed meanwhile. A file may hold several caches, one after another.
   *
   * @param file a FileHandle, opened for writing; the caller closes it
   * @throws what `file.write` throws; what was written by then does not load
   * @example await cache.saveTo(file); // file = await open('session.kv', 'w')
   */
  async saveTo(file: CacheFile): Promise<void> {
    this.#state.checkUsable('KVCache.saveTo');
    await cacheFile.saveTo('KVCache.saveTo', file, this.#state);
  }

  /**
   * `load` from the current position of `file`, in pieces of a few MiB; the position is then behind the cache.
   *
   * @param file a FileHandle, opened for reading; the caller closes it
   * @throws as load does, and what `file.read` throws; no memory stays taken
   */
  static async loadFrom(file: CacheFile, options?: CacheLoadOptions | null): Promise<KVCache> {
    return KVCache.#of(await cacheFile.loadFrom('KVCache.loadFrom', file, options));
  }

  static #of(state: CacheState): KVCache {
    return new KVCache(state as unknown as KVCacheOptions);
  }

  /** Frees the memory, at once or when the asynchronous call that runs has ended. Disposing twice is harmless. */
  dispose(): void {
    this.#state.dispose();
  }

  [Symbol.dispose](): void {
    this.dispose();
  }

  #readOptions(
    caller: string,
    options: CacheAttentionOptions | null | undefined,
    names: readonly string[],
  ): CacheAttentionOptions {
    this.#state.checkUsable(caller);
    return readCacheOptions(caller, options, names);
  }

  /** A step with the signature of the last one. False, and nothing has changed, where it must be done in full. */
  #repeatStep(q: Tensor, k: Tensor, v: Tensor, out: Tensor): boolean {
    const state = this.#state;
    const count = k.shape[k.shape.length - 2];
    const length = state.length + count;
    if (state.disposed || state.busy || length > state.layout.maxLength) return false;
    if (!state.changing().repeatStep(q, k, v, out)) return false;
    state.become(length, count);
    return true;
  }

  /** A call on the cache once `tokens` have joined the `length` that it held when the arguments were read. */
  #describe(
    caller: string,
    q: TensorLike,
    options: CacheAttentionOptions,
    length: number,
    tokens: Tokens | null,
  ): { problem: AttentionProblem; results: Results } {
    const { layout } = this.#state;
    const keys = { ...layout, kvLen: tokens === null ? length : tokens.length };
    const kvLengths = tokens === null ? this.#state.lengths : tokens.lengths;
    const within = { ...withinWindow(options, layout), kvLengths };
    let problem = describeCacheAttention(caller, q, keys, within);
    checkBackend(caller, problem, this.#state.backend);
    this.#state.checkUnchanged(caller, length);
    if (tokens !== null)
      problem = withCounts(caller, problem, tokens, (options.queryOffset ?? null) !== null);
    return { problem, results: makeResults(problem) };
  }

  async #attendLater<Options>(
    caller: string,
    q: TensorLike,
    options: CacheAttentionOptions,
    signalOption: unknown,
    length: number,
    tokens: Tokens | null,
  ): Promise<CacheResult<Options>> {
    const { problem, results } = this.#describe(caller, q, options, length, tokens);
    const signal = readSignal(caller, signalOption);
    signal?.throwIfAborted();
    const state = this.#state;
    state.checkUnchanged(caller, length);
    const takeBack = tokens === null ? null : state.appendRevocably(tokens);
    state.busy = true;
    try {
      await state.storage.attendAsync(problem, results.out, results.lse, signal);
      if (tokens !== null && !state.disposed) state.confirmAppend(tokens);
      clearPadding({ ...results, problem });
    } catch (error) {
      takeBack?.();
      throw error;
    } finally {
      state.busy = false;
      if (state.disposed) state.free();
    }
    return results.value as CacheResult<Options>;
  }
}
