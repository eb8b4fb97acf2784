import type { AttentionCall, CacheLayout, CacheStorage, RowKind, RowStorage } from '../backend.ts';
import { CapacityError } from '../errors.ts';
import type { AttentionProblem } from '../problem.ts';
import { Tensor } from '../tensor.ts';
import { notFinite, sourceDType } from '../tensor-int8.ts';
import { allocate, sizeOfShape } from '../tensor-layout.ts';
import type { Addon, NativeCache, RepeatStep } from './addon.ts';
import { checkStatus, guard, operandsOf, settle } from './call.ts';
import { dtypeCode, encodeProblem } from './encode.ts';

/** A cache whose memory belongs to the addon. */
export class NativeCacheStorage implements CacheStorage, RowStorage {
  readonly #addon: Addon;
  readonly #layout: CacheLayout;
  readonly #cache: NativeCache;
  readonly #repeat: RepeatStep;

  private constructor(addon: Addon, layout: CacheLayout, cache: NativeCache) {
    this.#addon = addon;
    this.#layout = layout;
    this.#cache = cache;
    this.#repeat = cache.repeater();
  }

  /** An empty cache. */
  static create(addon: Addon, layout: CacheLayout): NativeCacheStorage {
    try {
      return new NativeCacheStorage(addon, layout, new addon.KvCache(encodeLayout(layout)));
    } catch (error) {
      const { batch, numKvHeads, headDim, maxLength } = layout;
      const isBound = maxLength !== Infinity;
      throw new CapacityError(
        `KVCache: no address space for [${batch}, ${numKvHeads}, ${isBound ? maxLength : 'a few'} tokens, ${headDim}] keys ` +
          `and as many values; lower ${isBound ? 'maxLength' : 'the sizes'}`,
        { cause: error },
      );
    }
  }

  /** Of the backend, in one crossing. */
  static stepAll(
    addon: Addon,
    storages: readonly NativeCacheStorage[],
    counts: readonly number[],
    k: Tensor,
    v: Tensor,
    call: AttentionCall,
  ): void {
    const caches = storages.map((storage) => storage.#cache);
    const tokens = Float64Array.from(counts);
    const status = guard('KVCache.stepAll', () =>
      addon.stepAll(
        caches,
        tokens,
        appendLayout(k, v),
        k.data,
        v.data,
        encodeProblem(call),
        ...operandsOf(call),
      ),
    );
    if (status !== 2) return;
    throw new CapacityError(
      `KVCache.stepAll: no memory for ${k.shape[2]} more tokens of ${caches.length} caches; they are unchanged`,
    );
  }

  fork(): CacheStorage {
    const fork = guard('KVCache', () => new this.#addon.KvCache(encodeLayout(this.#layout), this.#cache));
    return new NativeCacheStorage(this.#addon, this.#layout, fork);
  }

  get length(): number {
    return this.#cache.length();
  }

  get capacity(): number {
    return this.#cache.capacity();
  }

  get byteLength(): number {
    return this.#cache.byteLength();
  }

  append(k: Tensor, v: Tensor): void {
    this.#checkHolds(k, v);
    if (!guard('KVCache', () => this.#cache.append(appendLayout(k, v), k.data, v.data)))
      throw this.#full(k.shape[2]);
  }

  appendRevocably(k: Tensor, v: Tensor): void {
    this.#checkHolds(k, v);
    if (!guard('KVCache', () => this.#cache.appendRevocably(appendLayout(k, v), k.data, v.data)))
      throw this.#full(k.shape[2]);
  }

  confirmAppend(): void {
    this.#cache.confirmAppend();
  }

  attend(problem: AttentionProblem, out: Tensor, lse: Tensor | null): void {
    const call = { problem, out, lse };
    const { caller } = problem;
    checkStatus(
      caller,
      guard(caller, () => this.#cache.attend(encodeProblem(call), ...operandsOf(call))),
    );
  }

  step(k: Tensor, v: Tensor, problem: AttentionProblem, out: Tensor, lse: Tensor | null): void {
    this.#checkHolds(k, v);
    const call = { problem, out, lse };
    const status = guard(problem.caller, () =>
      this.#cache.step(appendLayout(k, v), k.data, v.data, encodeProblem(call), ...operandsOf(call)),
    );
    if (status === 2) throw this.#full(k.shape[2]);
  }

  repeatStep(q: Tensor, k: Tensor, v: Tensor, out: Tensor): boolean {
    const repeat = this.#repeat;
    return repeat(q.data, k.data, v.data, out.data, q.offset, k.offset, v.offset, out.offset);
  }

  async attendAsync(
    problem: AttentionProblem,
    out: Tensor,
    lse: Tensor | null,
    signal?: AbortSignal,
  ): Promise<void> {
    const call = { problem, out, lse };
    await settle(this.#addon, call, signal, (...operandsAndId) =>
      this.#cache.attendAsync(encodeProblem(call), ...operandsAndId),
    );
  }

  truncate(length: number): void {
    this.#cache.truncate(length);
  }

  get keptBegin(): number {
    return this.#cache.keptBegin();
  }

  keep(begin: number, indices: readonly number[]): void {
    if (!guard('KVCache', () => this.#cache.keep(begin, Float64Array.from(indices))))
      throw this.#full(indices.length);
  }

  keys(sinkEnd: number, begin: number): Tensor {
    return this.#copy(0, this.#layout.headDim, sinkEnd, begin);
  }

  values(sinkEnd: number, begin: number): Tensor {
    return this.#copy(1, this.#layout.valueDim, sinkEnd, begin);
  }

  rowStorages(): readonly RowStorage[] {
    return [this];
  }

  restore(keptBegin: number, length: number): void {
    if (!guard('KVCache', () => this.#cache.restore(keptBegin, length))) throw this.#full(length);
  }

  readRows(kind: RowKind, first: number, bytes: Uint8Array): void {
    guard('KVCache', () => this.#cache.copyRowsOut(kind === 'keys' ? 0 : 1, first, bytes));
  }

  writeRows(kind: RowKind, first: number, bytes: Uint8Array): void {
    guard('KVCache', () => this.#cache.copyRowsIn(kind === 'keys' ? 0 : 1, first, bytes));
  }

  dispose(): void {
    this.#cache.dispose();
  }

  #copy(which: 0 | 1, dim: number, sinkEnd: number, begin: number): Tensor {
    const { batch, numKvHeads, dtype } = this.#layout;
    const shape = [batch, numKvHeads, sinkEnd + this.length - begin, dim];
    const size = sizeOfShape('KVCache: the keys, or values,', shape);
    const type = sourceDType(dtype);
    const copy = Tensor.wrap(allocate('KVCache', type, size, shape), shape, type);
    guard('KVCache', () => this.#cache.copyRows(which, copy.data, sinkEnd, begin));
    return copy;
  }

  #checkHolds(k: Tensor, v: Tensor): void {
    if (this.#layout.dtype !== 'int8') return;
    if (!guard('KVCache', () => this.#cache.holds(appendLayout(k, v), k.data, v.data))) throw notFinite();
  }

  #full(tokens: number): CapacityError {
    return new CapacityError(
      `KVCache: no memory for ${tokens} more tokens beside the ${this.length} that are cached; the cache is unchanged`,
    );
  }
}

function encodeLayout(layout: CacheLayout): Float64Array {
  const { batch, numKvHeads, headDim, valueDim, dtype, maxLength, window, sinkTokens } = layout;
  const bound = maxLength === Infinity ? 0 : maxLength;
  return Float64Array.of(
    batch,
    numKvHeads,
    headDim,
    valueDim,
    dtypeCode(dtype),
    bound,
    window,
    window === 0 ? 0 : sinkTokens,
  );
}

const layoutOfAppend = new Float64Array(9);

/** tokens, then offset and batch, head, row strides of k and of v, as the addon's append reads them. Good until the next. */
function appendLayout(k: Tensor, v: Tensor): Float64Array {
  const layout = layoutOfAppend;
  layout[0] = k.shape[2];
  layout[1] = k.offset;
  layout[5] = v.offset;
  for (let axis = 0; axis < 3; axis++) {
    layout[2 + axis] = k.strides[axis];
    layout[6 + axis] = v.strides[axis];
  }
  return layout;
}
