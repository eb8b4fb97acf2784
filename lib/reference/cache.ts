import type { AttentionCall, CacheLayout, CacheStorage, RowKind, RowStorage } from '../backend.ts';
import type { DType } from '../dtype.ts';
import { CapacityError } from '../errors.ts';
import type { AttentionProblem } from '../problem.ts';
import { Tensor } from '../tensor.ts';
import { quantiseRows, restoreRows } from '../tensor-int8.ts';
import { allocate, sizeOfShape } from '../tensor-layout.ts';
import { attendGroup } from './attention.ts';
import { copyRowsIn, copyRowsOut, type KeptTokens } from './cache-rows.ts';
import { run, runAsync } from './run.ts';

/** Tokens of room that a cache begins with. */
const FIRST_CAPACITY = 16;

/**
 * What keys, or values, are stored as: [batch, numKvHeads, capacity, dim]; of an int8 cache, that and the scale of each
 * row, [batch, numKvHeads, capacity, 1].
 */
type Parts = readonly Tensor[];

/**
 * A KV cache in JavaScript's memory, whose capacity doubles when it is full. Forks share it until one of them writes. A
 * window only hides tokens here; they stay in memory, unless the cache was restored without them.
 */
class ReferenceCache implements CacheStorage, RowStorage {
  #keptBegin = 0;
  readonly #layout: CacheLayout;
  #isShared = false;
  #length = 0;
  #k: Parts;
  #v: Parts;

  constructor(layout: CacheLayout) {
    this.#layout = layout;
    this.#k = this.#allocate(0, layout.headDim);
    this.#v = this.#allocate(0, layout.valueDim);
  }

  get keptBegin(): number {
    return this.#keptBegin;
  }

  get length(): number {
    return this.#length;
  }

  get capacity(): number {
    return this.#k[0].shape[2];
  }

  get byteLength(): number {
    return [...this.#k, ...this.#v].reduce((bytes, part) => bytes + part.byteLength, 0);
  }

  append(k: Tensor, v: Tensor): void {
    this.#appendParts(this.#partsOf(k), this.#partsOf(v));
  }

  appendRevocably(k: Tensor, v: Tensor): void {
    this.append(k, v);
  }

  confirmAppend(): void {}

  attend(problem: AttentionProblem, out: Tensor, lse: Tensor | null): void {
    run(this.#withKeys(problem), out, lse);
  }

  step(k: Tensor, v: Tensor, problem: AttentionProblem, out: Tensor, lse: Tensor | null): void {
    const before = this.#length;
    this.append(k, v);
    try {
      this.attend(problem, out, lse);
    } catch (error) {
      this.truncate(before);
      throw error;
    }
  }

  repeatStep(): boolean {
    return false;
  }

  attendAsync(
    problem: AttentionProblem,
    out: Tensor,
    lse: Tensor | null,
    signal?: AbortSignal,
  ): Promise<void> {
    return runAsync(this.#withKeys(problem), out, lse, signal);
  }

  truncate(length: number): void {
    this.#length = length;
  }

  keep(begin: number, indices: readonly number[]): void {
    const gather = (parts: Parts): Parts =>
      parts.map((x) => {
        const [batch, heads, , dim] = x.shape;
        const rows = fresh([batch, heads, indices.length, dim], x.dtype);
        indices.forEach((index, i) => {
          copyRows(rows, i, x.slice(2, begin + index, begin + index + 1));
        });
        return rows;
      });
    const [k, v] = [gather(this.#k), gather(this.#v)];
    const before = this.#length;
    this.#length = begin;
    try {
      this.#appendParts(k, v);
    } catch (error) {
      this.#length = before;
      throw error;
    }
  }

  fork(): CacheStorage {
    const fork = new ReferenceCache(this.#layout);
    fork.#length = this.#length;
    fork.#keptBegin = this.#keptBegin;
    fork.#k = this.#k;
    fork.#v = this.#v;
    fork.#isShared = this.#isShared = true;
    return fork;
  }

  keys(sinkEnd: number, begin: number): Tensor {
    return this.#copy(this.#k, sinkEnd, begin);
  }

  values(sinkEnd: number, begin: number): Tensor {
    return this.#copy(this.#v, sinkEnd, begin);
  }

  rowStorages(): readonly RowStorage[] {
    return [this];
  }

  restore(keptBegin: number, length: number): void {
    try {
      this.#grow(length);
    } catch (error) {
      throw new CapacityError(`KVCache: no memory for the ${length} tokens of the saved cache`, {
        cause: error,
      });
    }
    this.#keptBegin = keptBegin;
    this.#length = length;
  }

  readRows(kind: RowKind, first: number, bytes: Uint8Array): void {
    copyRowsOut(kind === 'keys' ? this.#k : this.#v, this.#kept(), first, bytes);
  }

  writeRows(kind: RowKind, first: number, bytes: Uint8Array): void {
    copyRowsIn(kind === 'keys' ? this.#k : this.#v, this.#kept(), first, bytes);
  }

  #kept(): KeptTokens {
    const keptBegin = this.#keptBegin;
    return { sinkEnd: Math.min(this.#layout.sinkTokens, keptBegin), keptBegin, length: this.#length };
  }

  dispose(): void {
    this.#length = 0;
    this.#k = this.#allocate(0, this.#layout.headDim);
    this.#v = this.#allocate(0, this.#layout.valueDim);
  }

  /** The step of a backend: storages[n] takes the first counts[n] tokens of entry n of k and v, and is attended to. */
  static stepAll(
    storages: readonly CacheStorage[],
    counts: readonly number[],
    k: Tensor,
    v: Tensor,
    { problem, out, lse }: AttentionCall,
  ): void {
    const caches = storages as readonly ReferenceCache[];
    const before = caches.map(({ length }) => length);
    try {
      caches.forEach((cache, n) => {
        const tokens = (x: Tensor): Tensor => x.slice(0, n, n + 1).slice(2, 0, counts[n]);
        cache.append(tokens(k), tokens(v));
      });
      caches.forEach((cache, n) => {
        const { sequences, numKvHeads } = problem;
        const sequence = { ...sequences[n], batch: 0 };
        const q = problem.q.slice(0, n, n + 1);
        const outOf = out.slice(0, n, n + 1);
        const lseOf = lse === null ? null : lse.slice(0, n, n + 1);
        const alone = cache.#withKeys({ ...problem, q, sequences: sequences.with(n, sequence) });
        for (let kvHead = 0; kvHead < numKvHeads; kvHead++) attendGroup(alone, n, kvHead, outOf, lseOf);
      });
    } catch (error) {
      caches.forEach((cache, n) => {
        cache.truncate(before[n]);
      });
      throw error;
    }
  }

  #partsOf(x: Tensor): Parts {
    const { dtype } = this.#layout;
    if (dtype !== 'int8') return [x.dtype === dtype ? x : x.to(dtype)];
    const { values, scales } = quantiseRows(x.to('float32'));
    return [values, scales];
  }

  #appendParts(k: Parts, v: Parts): void {
    const length = this.#length + k[0].shape[2];
    if (length > this.capacity || this.#isShared) this.#grow(length);
    copyParts(this.#k, this.#length, k);
    copyParts(this.#v, this.#length, v);
    this.#length = length;
  }

  /** The numbers that the cached rows stand for. */
  #restored(parts: Parts): Tensor {
    if (this.#layout.dtype !== 'int8') return parts[0];
    const [values, scales] = parts.map((part) => part.slice(2, 0, this.#length));
    return restoreRows({ values, scales });
  }

  #copy(parts: Parts, sinkEnd: number, begin: number): Tensor {
    const x = this.#restored(parts);
    const [batch, heads, , dim] = x.shape;
    const copy = fresh([batch, heads, sinkEnd + this.#length - begin, dim], x.dtype);
    copyRows(copy, 0, x.slice(2, 0, sinkEnd));
    copyRows(copy, sinkEnd, x.slice(2, begin, this.#length));
    return copy;
  }

  #withKeys(problem: AttentionProblem): AttentionProblem {
    const { keptBegin } = this;
    const sequences =
      keptBegin === 0 ? problem.sequences : problem.sequences.map((s) => ({ ...s, keptBegin }));
    return { ...problem, k: this.#restored(this.#k), v: this.#restored(this.#v), sequences };
  }

  /** Both new arrays exist before the old ones go, so that a failed allocation changes nothing. */
  #grow(length: number): void {
    const capacity = Math.max(
      length,
      Math.min(this.#layout.maxLength, Math.max(FIRST_CAPACITY, 2 * this.capacity)),
    );
    const k = this.#allocate(capacity, this.#layout.headDim);
    const v = this.#allocate(capacity, this.#layout.valueDim);
    const cached = (part: Tensor): Tensor => part.slice(2, 0, this.#length);
    copyParts(k, 0, this.#k.map(cached));
    copyParts(v, 0, this.#v.map(cached));
    this.#k = k;
    this.#v = v;
    this.#isShared = false;
  }

  #allocate(capacity: number, dim: number): Parts {
    const { batch, numKvHeads, dtype } = this.#layout;
    const rows = fresh([batch, numKvHeads, capacity, dim], dtype);
    return dtype === 'int8' ? [rows, fresh([batch, numKvHeads, capacity, 1], 'float32')] : [rows];
  }
}

function fresh(shape: readonly number[], dtype: DType): Tensor {
  const size = sizeOfShape('KVCache: the keys, or values,', shape);
  return Tensor.wrap(allocate('KVCache', dtype, size, shape), shape, dtype);
}

function copyParts(cache: Parts, begin: number, parts: Parts): void {
  parts.forEach((part, i) => {
    copyRows(cache[i], begin, part);
  });
}

/** Copies x [B, H, T, D] into the rows of `cache` from `begin` on; the dtypes are the same. */
function copyRows(cache: Tensor, begin: number, x: Tensor): void {
  const [batch, heads, tokens, dim] = x.shape;
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      for (let t = 0; t < tokens; t++) {
        const from = x.offset + b * x.strides[0] + h * x.strides[1] + t * x.strides[2];
        const to = b * cache.strides[0] + h * cache.strides[1] + (begin + t) * cache.strides[2];
        cache.data.set(x.data.subarray(from, from + dim), to);
      }
    }
  }
}

/** An empty cache of this layout. */
export function createCache(layout: CacheLayout): CacheStorage {
  return new ReferenceCache(layout);
}

/** {@link ReferenceCache.stepAll} */
export const stepAll = ReferenceCache.stepAll;
