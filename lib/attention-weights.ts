import { fresh } from './attention.ts';
import { describeAttention } from './describe-attention.ts';
import { ATTENTION_OPTIONS, type AttentionOptions, checkOptions, readWord } from './options.ts';
import type { AttentionProblem } from './problem.ts';
import { forEachScoreRow } from './reference/score-rows.ts';
import { softmax } from './reference/softmax.ts';
import { type RowSelection, readSelection, selectedOf, selectedParts } from './selection.ts';
import type { Tensor } from './tensor.ts';
import type { TensorLike } from './tensor-like.ts';

/** How far the scores have come: scaled; also capped; also with ALiBi, bias and masks; through the softmax. */
export type WeightsStage = 'scores' | 'capped' | 'biased' | 'weights';

/** The options of {@link attentionWeights}. */
export interface AttentionWeightsOptions extends Omit<AttentionOptions, 'out' | 'returnLse'>, RowSelection {
  /** 'weights' by default. */
  readonly stage?: WeightsStage | null;
}

const STAGES: readonly WeightsStage[] = ['weights', 'scores', 'capped', 'biased'];

const WEIGHTS_OPTIONS: readonly string[] = [
  ...ATTENTION_OPTIONS.filter((name) => name !== 'out' && name !== 'returnLse'),
  'stage',
  'queries',
  'heads',
];

/**
 * The attention matrix, for looking at: [B, Hq, Lq, Lk] float32, computed in float64 whatever `backend` says. It is the
 * one result whose memory grows with Lq × Lk; `queries` and `heads` select rows of it, and no other is computed or held.
 * attentionStats gives statistics of all rows without it.
 *
 * Arguments as in `attention`; inputs of rank 3 give [Hq, Lq, Lk]. A ragged batch (cuSeqlensQ, cuSeqlensK) gives
 * [B, Hq, max lenQ, max lenK]. Keys and rows that do not exist (kvLengths, the padding of a ragged batch) are
 * -Infinity, and 0 among the weights.
 *
 * Stages: 'scores' is scale × q·k and 'capped' what softcap makes of it, both of every key, masked or not; 'biased'
 * has ALiBi and bias added, and -Infinity where masked; 'weights' is the softmax: rows sum to 1, to less with sinks
 * (the rest is the sink's), and to 0 where a query sees no key.
 *
 * @throws ShapeError, DTypeError, OptionError; CapacityError where there is no memory for the matrix
 * @example
 * const last = attentionWeights(q, k, v, { causal: true, queries: [31], heads: [0, 3] }); // [1, 2, 1, 1024]
 */
export function attentionWeights(
  q: TensorLike,
  k: TensorLike,
  v: TensorLike,
  options?: AttentionWeightsOptions | null,
): Tensor {
  const caller = 'attentionWeights';
  const given = { ...checkOptions(caller, 'options', options, WEIGHTS_OPTIONS) }; // each property is read once
  const stage = readWord(caller, 'stage', given.stage, STAGES);
  const selection = readSelection(caller, given);
  const described = describeAttention(caller, q, k, v, given, WEIGHTS_OPTIONS);
  const queries = selectedOf(caller, 'queries', selection.queries, described.qLen);
  const heads = selectedOf(caller, 'heads', selection.heads, described.numHeads);
  const problem = upTo(stage, described);
  const { numSequences } = problem;
  const isRagged = given.cuSeqlensK !== undefined && given.cuSeqlensK !== null;
  const keys = isRagged ? longestSequence(problem) : problem.k!.shape[2];
  const result = fresh(caller, [numSequences, heads.length, queries.length, keys], 'float32');
  if (stage !== 'weights') result.data.fill(-Infinity);
  for (let b = 0; b < numSequences; b++) {
    const weights = new Float64Array(stage === 'weights' ? problem.sequences[b].kvLen : 0);
    for (const { problem: part, headAt, rowAt } of selectedParts(problem, b, heads, queries)) {
      forEachScoreRow(part, 0, (h, i, scores) => {
        if (stage === 'weights') softmax(scores, part.sinks === null ? -Infinity : part.sinks.at(h), weights);
        const row = (b * heads.length + headAt + h) * queries.length + rowAt + i;
        result.data.set(stage === 'weights' ? weights : scores, row * keys);
      });
    }
  }
  return problem.outShape.length === 3 && !isRagged ? result.squeeze(0) : result;
}

/** The problem without what comes after `stage`: its scores with nothing masked are that stage. */
function upTo(stage: WeightsStage, problem: AttentionProblem): AttentionProblem {
  if (stage === 'weights' || stage === 'biased') return problem;
  const softcap = stage === 'scores' ? 0 : problem.softcap;
  const open = { windowLeft: Infinity, windowRight: Infinity };
  return { ...problem, ...open, softcap, mask: null, bias: null, alibiSlopes: null };
}

/** The longest of the packed sequences in the key axis of a ragged batch. */
function longestSequence(problem: AttentionProblem): number {
  const begins = problem.sequences.map((sequence) => sequence.kvBegin);
  begins.push(problem.k!.shape[2]);
  let longest = 0;
  for (let b = 0; b < problem.numSequences; b++) longest = Math.max(longest, begins[b + 1] - begins[b]);
  return longest;
}
