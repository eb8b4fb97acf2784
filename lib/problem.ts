import type { Tensor } from './tensor.ts';

/** One entry of the batch: a dense batch index, or one sequence of a packed ragged batch. */
export interface SequenceView {
  /** Index on the batch axis of q, k, v and out. Always 0 for a ragged batch. */
  readonly batch: number;
  /** First query row (0, or `cuSeqlensQ[b]`) and number of query rows. */
  readonly qBegin: number;
  readonly qLen: number;
  /** First key row (0, or `cuSeqlensK[b]`) and number of keys that exist (`kvLengths[b]` where given). */
  readonly kvBegin: number;
  readonly kvLen: number;
  /** Absolute position of the first query row; row i stands at `queryOffset + i`. May be negative. */
  readonly queryOffset: number;
  /** Keys from `sinkTokens` up to here are gone from the cache and hidden from every query; none where it is not given. */
  readonly keptBegin?: number;
}

/**
 * A validated attention problem: every default resolved, nothing optional. Both backends execute it and
 * neither validates its meaning again.
 *
 * Visibility of key j for query row i of a sequence, with p = queryOffset + i:
 *   `j < kvLen && j <= p + windowRight && (j >= p - windowLeft || j < sinkTokens)` and the mask says so.
 * `causal` has been folded into windowRight. Scores, in this order:
 *   q·k × scale → softcap → - slope·|p - j| → + bias → masked = -Infinity → softmax with sinks → · v.
 * A key whose score is -Infinity contributes nothing, whatever its bytes in k and v.
 */
export interface AttentionProblem {
  /** The public function that was called, which begins every message. */
  readonly caller: string;
  /** Batch size, or the number of ragged sequences; equals `sequences.length`. */
  readonly numSequences: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  /** numHeads / numKvHeads; query head h reads kv head floor(h / groupSize). */
  readonly groupSize: number;
  readonly headDim: number;
  readonly valueDim: number;
  /** The longest qLen and kvLen of `sequences` (where there are none, Lq of a dense batch, and 0). */
  readonly qLen: number;
  readonly kvLen: number;
  /** [B, numHeads, Lq, headDim]; B = 1 for a ragged batch. Rank 4 always, last axis contiguous. */
  readonly q: Tensor;
  /** [B, numKvHeads, Lk, headDim]; null when the keys live in a KVCache. */
  readonly k: Tensor | null;
  /** [B, numKvHeads, Lk, valueDim]; null when the values live in a KVCache. */
  readonly v: Tensor | null;
  readonly sequences: readonly SequenceView[];
  readonly scale: number;
  /** 0 means none. */
  readonly softcap: number;
  /** Infinity means open. */
  readonly windowLeft: number;
  readonly windowRight: number;
  readonly sinkTokens: number;
  /** bool, rank 4 [numSequences, numHeads, qLen, kvLen]; stride 0 where broadcast; last stride 0 or 1. */
  readonly mask: Tensor | null;
  /**
   * Whether the mask speaks of the newest qLen keys of each sequence only, [.., qLen, qLen]: its first column is then
   * {@link maskBeginOf} the sequence, and earlier keys are visible as far as it goes.
   */
  readonly maskNewest: boolean;
  /** float32, float16 or bfloat16; shape and strides as for mask. */
  readonly bias: Tensor | null;
  /** float32 [numSequences, numHeads]; stride 0 where broadcast. */
  readonly alibiSlopes: Tensor | null;
  /** float32 [numHeads]. */
  readonly sinks: Tensor | null;
  readonly precision: 'highest' | 'high' | 'medium';
  /** At most this many threads; 0 = all. */
  readonly threads: number;
  readonly backend: 'auto' | 'native' | 'reference';
  readonly returnLse: boolean;
  /** Public shapes of the results (rank 3 or 4 for out, one less for lse). */
  readonly outShape: readonly number[];
  readonly lseShape: readonly number[];
  /** The caller's `out` exactly as given (public rank), already validated; null when it is to be made. */
  readonly out: Tensor | null;
}

/** The key that the first column of the mask belongs to. */
export function maskBeginOf({ maskNewest }: AttentionProblem, { kvLen, qLen }: SequenceView): number {
  return maskNewest ? kvLen - qLen : 0;
}

/** What `describeAttention` needs to know of keys and values that live in a KVCache. */
export interface KeyValueShape {
  readonly batch: number;
  readonly numKvHeads: number;
  readonly kvLen: number;
  readonly headDim: number;
  readonly valueDim: number;
}
