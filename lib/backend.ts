import type { DType } from './dtype.ts';
import { OptionError } from './errors.ts';
import { loadNativeBackend } from './native/backend.ts';
import type { ResolvedWindow } from './options.ts';
import type { AttentionProblem } from './problem.ts';
import { referenceBackend } from './reference/backend.ts';
import type { Tensor } from './tensor.ts';

/** Who computes: the addon, the TypeScript oracle, or the better one that can be had. */
export type BackendChoice = 'auto' | 'native' | 'reference';

/**
 * Executes validated problems. Two implementations: `native/` (the addon) and `reference/` (float64
 * TypeScript). `out` is rank 4 [B, numHeads, Lq, valueDim] and `lse` float32 rank 3 [B, numHeads, Lq] (or
 * null); both may be strided, but for the last axis of out.
 */
export interface Backend {
  readonly name: 'native' | 'reference';
  attention(problem: AttentionProblem, out: Tensor, lse: Tensor | null): void;
  attentionAsync(
    problem: AttentionProblem,
    out: Tensor,
    lse: Tensor | null,
    signal?: AbortSignal,
  ): Promise<void>;
  /** Statistics of the weights; `massWindow` is given where results.windowMass is. v is not read. */
  attentionStats(problem: AttentionProblem, results: StatsResults, massWindow: ResolvedWindow | null): void;
  createCache(layout: CacheLayout): CacheStorage;
  /**
   * Appends the first counts[n] tokens of entry n of k and v to storages[n], then attends to it with sequence n of the
   * problem, whose k and v are null. The storages are distinct, of this backend, of batch 1 and of one layout. Where it
   * throws, nothing has been appended to any.
   */
  stepAll(
    storages: readonly CacheStorage[],
    counts: readonly number[],
    k: Tensor,
    v: Tensor,
    call: AttentionCall,
  ): void;
}

/** A problem with the tensors that receive its results, as a backend takes them. */
export interface AttentionCall {
  readonly problem: AttentionProblem;
  /** [B, numHeads, Lq, valueDim] */
  readonly out: Tensor;
  /** [B, numHeads, Lq] */
  readonly lse: Tensor | null;
}

/** Where the statistics of a problem's rows go: [B, numHeads, Lq] each, all of the same strides and offset. */
export interface StatsResults {
  readonly entropy: Tensor;
  readonly maxWeight: Tensor;
  /** int32; the others are float32. */
  readonly argmax: Tensor;
  readonly lse: Tensor;
  /** null where it is not wanted. */
  readonly windowMass: Tensor | null;
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
  /** The newest tokens that are kept; 0 where all are. */
  readonly window: number;
  /** The first tokens that are kept beside them. */
  readonly sinkTokens: number;
}

/**
 * What a cache holds, in the order of a file: [batch, numKvHeads, kept tokens] rows, where the tokens of a head are those of
 * [0, sinkTokens) and of [keptBegin, length).
 */
export type RowKind = 'keys' | 'values';

/** The rows of a storage, for files. */
export interface RowStorage {
  readonly length: number;
  readonly keptBegin: number;
  /**
   * Makes an empty storage one of `length` tokens, those from sinkTokens up to keptBegin gone, whose rows writeRows brings.
   * After an error it is good for nothing but dispose.
   *
   * @throws CapacityError
   */
  restore(keptBegin: number, length: number): void;
  /** Copies rows out of the storage or into it, from `first` on, as many as `bytes` holds; see {@link RowKind}. */
  readRows(kind: RowKind, first: number, bytes: Uint8Array): void;
  writeRows(kind: RowKind, first: number, bytes: Uint8Array): void;
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
  /** `counts`, how many tokens each batch entry takes, comes only to storages whose entries may differ in length. */
  append(k: Tensor, v: Tensor, counts?: readonly number[] | null): void;
  /** append in two parts, between which truncate takes the tokens back without a trace, also from a window. */
  appendRevocably(k: Tensor, v: Tensor, counts?: readonly number[] | null): void;
  confirmAppend(): void;
  /** `problem.k` and `problem.v` are null; its kvLen is at most `length`. */
  attend(problem: AttentionProblem, out: Tensor, lse: Tensor | null): void;
  /** append, then attend, in one crossing; `problem` describes the cache as it is after the append. */
  step(
    k: Tensor,
    v: Tensor,
    problem: AttentionProblem,
    out: Tensor,
    lse: Tensor | null,
    counts?: readonly number[] | null,
  ): void;
  /**
   * Does the last `step` again, on tensors of the same dtypes, shapes and strides in other memory, their last query at the
   * last token. q, k, v and out may have the rank that the caller gave them. False, with nothing changed, where only `step`
   * can do or refuse it: that one had more operands, the memory is gone, full, or shared by q and out, or
   * this storage repeats nothing.
   */
  repeatStep(q: Tensor, k: Tensor, v: Tensor, out: Tensor): boolean;
  attendAsync(
    problem: AttentionProblem,
    out: Tensor,
    lse: Tensor | null,
    signal?: AbortSignal,
  ): Promise<void>;
  /** `length` is at least keptBegin. */
  truncate(length: number): void;
  /** Tokens from sinkTokens up to here are gone. */
  readonly keptBegin: number;
  /** Of the tokens from `begin` on, keeps those at begin + indices[i], in that order. begin is at least keptBegin. */
  keep(begin: number, indices: readonly number[]): void;
  /** An independent continuation. */
  fork(): CacheStorage;
  /** Copies of tokens [0, sinkEnd) and [begin, length): [batch, numKvHeads, tokens, headDim] and [..., valueDim]. */
  keys(sinkEnd: number, begin: number): Tensor;
  values(sinkEnd: number, begin: number): Tensor;
  /** Who holds the rows: this storage, or one for each batch entry, in order. */
  rowStorages(): readonly RowStorage[];
  dispose(): void;
}

let warned = false;

/**
 * The backend that serves a call. `requested` is the call's own option; `NODE_SDPA_BACKEND` decides where that
 * is 'auto'. 'native' throws a NativeLoadError where the addon cannot be had; 'auto' falls back to the reference
 * and says so once on stderr.
 */
export function selectBackend(requested: BackendChoice = 'auto'): Backend {
  const choice = requested === 'auto' ? environmentBackend() : requested;
  if (choice === 'reference') return referenceBackend;
  const native = loadNativeBackend();
  if (!(native instanceof Error)) return native;
  if (choice === 'native') throw native;
  if (!warned) {
    warned = true;
    process.stderr.write(`node-sdpa: using the slow TypeScript backend: ${native.message}\n`);
  }
  return referenceBackend;
}

function environmentBackend(): BackendChoice {
  const value = process.env.NODE_SDPA_BACKEND;
  if (value === undefined || value === '' || value === 'auto') return 'auto';
  if (value === 'native' || value === 'reference') return value;
  throw new OptionError(
    `NODE_SDPA_BACKEND must be 'auto', 'native' or 'reference', got '${value}'; unset it or choose one of these`,
  );
}
