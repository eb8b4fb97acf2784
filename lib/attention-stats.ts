import { fresh } from './attention.ts';
import { type Backend, type StatsResults, selectBackend } from './backend.ts';
import { describeAttention } from './describe-attention.ts';
import {
  ATTENTION_OPTIONS,
  type AttentionOptions,
  type AttentionWindow,
  checkOptions,
  type ResolvedWindow,
  readWindow,
} from './options.ts';
import type { AttentionProblem } from './problem.ts';
import { cut } from './problem-slice.ts';
import { type RowSelection, readSelection, selectedOf, selectedParts } from './selection.ts';
import type { Tensor } from './tensor.ts';
import type { TensorLike } from './tensor-like.ts';

/** The options of {@link attentionStats}. */
export interface AttentionStatsOptions extends Omit<AttentionOptions, 'out' | 'returnLse'>, RowSelection {
  /**
   * The keys whose weights are added up to `windowMass`: those that a `window` with the same sides would leave visible.
   * It hides nothing.
   */
  readonly massWindow?: AttentionWindow | null;
}

/** What {@link attentionStats} returns: tensors [B, Hq, Lq], float32 but for argmax. */
export interface AttentionStats {
  /** -Σ w·ln w, in nats, over the weights of the keys and, with `sinks`, of the sink: from 0 to ln of their number. */
  readonly entropy: Tensor;
  /** The largest weight of a key; a sink is none. */
  readonly maxWeight: Tensor;
  /** int32: which key has it, the first of several; -1 where no key is visible, or the weights are NaN. */
  readonly argmax: Tensor;
  /** As `attention` gives it. */
  readonly lse: Tensor;
}

/** What {@link attentionStats} returns with `massWindow`. */
export interface AttentionStatsWithMass extends AttentionStats {
  /** The sum of the weights in the window, from 0 to 1. */
  readonly windowMass: Tensor;
}

const CALLER = 'attentionStats';

const STATS_OPTIONS: readonly string[] = [
  ...ATTENTION_OPTIONS.filter((name) => name !== 'out' && name !== 'returnLse'),
  'massWindow',
  'queries',
  'heads',
];

/**
 * How the weights of each query are distributed, without the matrix: it is walked in tiles, and memory grows with Lq + Lk.
 *
 * Arguments as in `attention`; v is checked and not read. Results are [B, Hq, Lq]; [Hq, Lq] for inputs of rank 3;
 * [Hq, totalQ] for a ragged batch. `queries` and `heads` select from the last two axes, and nothing else is computed.
 * A kernel computes in float32, whatever `precision` says, and the reference in float64.
 *
 * A sink takes part as one more key: its weight counts in the entropy, and is 1 minus the sum of the keys' weights; it is
 * never the argmax. A query that sees no key has the entropy 0, the maxWeight 0, the argmax -1, no mass, and an lse of
 * -Infinity, or the sink. What is masked contributes nothing; NaN in a visible score gives NaN, and the argmax -1.
 *
 * @returns entropy, maxWeight, argmax, lse; and windowMass with `massWindow`
 * @throws ShapeError, DTypeError, OptionError; NativeLoadError for `backend: 'native'` without one
 * @example
 * // which of the last 16 queries look far back, and where to?
 * const queries = Array.from({ length: 16 }, (_, n) => q.shape[2] - 16 + n);
 * const options = { causal: true, queries, massWindow: { left: 127, right: 0 } };
 * const { windowMass, argmax } = attentionStats(q, k, v, options);
 * argmax.shape; // [1, 8, 16]
 */
export function attentionStats(
  q: TensorLike,
  k: TensorLike,
  v: TensorLike,
  options: AttentionStatsOptions & { readonly massWindow: AttentionWindow },
): AttentionStatsWithMass;
export function attentionStats(
  q: TensorLike,
  k: TensorLike,
  v: TensorLike,
  options?: (AttentionStatsOptions & { readonly massWindow?: null }) | null,
): AttentionStats;
export function attentionStats(
  q: TensorLike,
  k: TensorLike,
  v: TensorLike,
  options?: AttentionStatsOptions | null,
): AttentionStats | AttentionStatsWithMass;
export function attentionStats(
  q: TensorLike,
  k: TensorLike,
  v: TensorLike,
  options?: AttentionStatsOptions | null,
): AttentionStats | AttentionStatsWithMass {
  const given = { ...checkOptions(CALLER, 'options', options, STATS_OPTIONS) }; // each property is read once
  const { massWindow } = given;
  const hasMass = massWindow !== undefined && massWindow !== null;
  const window = hasMass ? readWindow(CALLER, massWindow, false, 'massWindow') : null;
  const selection = readSelection(CALLER, given);
  const problem = describeAttention(CALLER, q, k, v, given, STATS_OPTIONS);
  const [batch, numHeads, rows] = problem.q.shape;
  const selected = {
    heads: selectedOf(CALLER, 'heads', selection.heads, numHeads),
    queries: selectedOf(CALLER, 'queries', selection.queries, rows),
  };
  const backend = selectBackend(problem.backend);
  const results = makeStats([batch, selected.heads.length, selected.queries.length], hasMass);
  if ((selection.queries ?? selection.heads) === null) backend.attentionStats(problem, results, window);
  else selectStats(backend, problem, selected, results, window);
  return toCaller(problem, results);
}

function makeStats(shape: readonly number[], hasMass: boolean): StatsResults {
  return {
    entropy: fresh(CALLER, shape, 'float32'),
    maxWeight: fresh(CALLER, shape, 'float32'),
    argmax: fresh(CALLER, shape, 'int32'),
    lse: fresh(CALLER, shape, 'float32'),
    windowMass: hasMass ? fresh(CALLER, shape, 'float32') : null,
  };
}

/** Runs of selected rows, each a problem whose results are a view of the whole's. */
function selectStats(
  backend: Backend,
  problem: AttentionProblem,
  { heads, queries }: { readonly heads: ArrayLike<number>; readonly queries: ArrayLike<number> },
  { entropy, maxWeight, argmax, lse, windowMass }: StatsResults,
  window: ResolvedWindow | null,
): void {
  for (let b = 0; b < problem.numSequences; b++) {
    const { batch, qBegin } = problem.sequences[b];
    for (const { problem: part, headAt, rowAt } of selectedParts(problem, b, heads, queries, qBegin)) {
      const runs = [
        { begin: batch, end: batch + 1 },
        { begin: headAt, end: headAt + part.numHeads },
        { begin: rowAt, end: rowAt + part.qLen },
      ];
      const views = {
        entropy: cut(entropy, runs),
        maxWeight: cut(maxWeight, runs),
        argmax: cut(argmax, runs),
        lse: cut(lse, runs),
        windowMass: windowMass && cut(windowMass, runs),
      };
      backend.attentionStats(part, views, window);
    }
  }
}

/** The results in the rank of the caller's tensors. */
function toCaller(
  { lseShape }: AttentionProblem,
  { entropy, maxWeight, argmax, lse, windowMass }: StatsResults,
): AttentionStats | AttentionStatsWithMass {
  const ranked = (x: Tensor): Tensor => (lseShape.length === 3 ? x : x.squeeze(0));
  const stats = {
    entropy: ranked(entropy),
    maxWeight: ranked(maxWeight),
    argmax: ranked(argmax),
    lse: ranked(lse),
  };
  return windowMass === null ? stats : { ...stats, windowMass: ranked(windowMass) };
}
