import type { DType } from './dtype.ts';
import type { AttentionProblem } from './problem.ts';
import type { Tensor } from './tensor.ts';

/**
 * Executes validated problems. Two implementations: `native/` (the addon) and `reference/` (float64
 * TypeScript). `out` is rank 4 [B, numHeads, Lq, valueDim] and `lse` float32 rank 3 [B, numHeads, Lq] (or
 * null); both may be strided, but for the last axis of out.
 */
export interface Backend {
  readonly name: 'native' | 'reference';
  attention(problem: AttentionProblem, out: Tensor, lse: Tensor | null): void;
  attentionAsync(problem: AttentionProblem, out: Tensor, lse: Tensor | null, signal?: AbortSignal): Promise<void>;
  createCache(layout: CacheLayout): CacheStorage;
}

/** Everything that fixes the memory layout of a KV cache. */
export interface CacheLayout {
  readonly batch: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly valueDim: number;
  readonly dtype: DType;
  /** Tokens; Infinity when the cache may grow as far as memory goes. */
  readonly maxLength: number;
}

/**
 * The memory behind one KVCache. The KVCache has validated every argument: k is [batch, numKvHeads, T, headDim],
 * v is [batch, numKvHeads, T, valueDim], rank 4, last axis contiguous. A method that throws leaves the storage as it was.
 */
export interface CacheStorage {
  readonly length: number;
  /** Tokens that fit without asking the system for more memory. */
  readonly capacity: number;
  /** Bytes of memory held now. */
  readonly byteLength: number;
  append(k: Tensor, v: Tensor): void;
  /** `problem.k` and `problem.v` are null; its kvLen is at most `length`. */
  attend(problem: AttentionProblem, out: Tensor, lse: Tensor | null): void;
  /** append, then attend, in one crossing; `problem` describes the cache as it is after the append. */
  step(k: Tensor, v: Tensor, problem: AttentionProblem, out: Tensor, lse: Tensor | null): void;
  attendAsync(problem: AttentionProblem, out: Tensor, lse: Tensor | null, signal?: AbortSignal): Promise<void>;
  truncate(length: number): void;
  /** Copies: [batch, numKvHeads, length, headDim] and [..., valueDim]. */
  keys(): Tensor;
  values(): Tensor;
  dispose(): void;
}
