import { describeAttention } from './describe-attention.ts';
import { OptionError } from './errors.ts';
import {
  ATTENTION_OPTIONS,
  type AttentionOptions,
  type IntegerVector,
  readIntegers,
  readWord,
} from './options.ts';
import type { AttentionProblem } from './problem.ts';
import { openHead, scoreRow } from './reference/attention.ts';
import { readRows } from './reference/rows.ts';
import { softmax } from './reference/softmax.ts';
import { Tensor } from './tensor.ts';
import type { TensorLike } from './tensor-like.ts';

/** How far the scores have come: scaled; capped too; with ALiBi, bias and masks too; through the softmax. */
export type WeightsStage = 'scores' | 'capped' | 'biased' | 'weights';

/** The options of {@link attentionWeights}. */
export interface AttentionWeightsOptions extends Omit<AttentionOptions, 'out' | 'returnLse'> {
  /** 'weights' by default. */
  readonly stage?: WeightsStage | null;
  /** Which query rows the result has, in this order; all by default. */
  readonly queries?: IntegerVector | null;
  /** Which query heads the result has, in this order; all by default. */
  readonly heads?: IntegerVector | null;
}

const STAGES: readonly WeightsStage[] = ['weights', 'scores', 'capped', 'biased'];

const WEIGHTS_OPTIONS: readonly string[] = [
  ...ATTENTION_OPTIONS.filter((name) => name !== 'out' && name !== 'returnLse'),
  'stage',
  'queries',
  'heads',
];

/**
 * The attention matrix, for looking at: [B, Hq, Lq, Lk] float32, computed in float64. It is the one result whose
 * memory grows with Lq × Lk; `queries` and `heads` select rows of it.
 *
 * Arguments as in `attention`; inputs of rank 3 give [Hq, Lq, Lk]. A ragged batch (cuSeqlensQ, cuSeqlensK) gives
 * [B, Hq, max lenQ, max lenK]. Keys and rows that do not exist (kvLengths, the padding of a ragged batch) are
 * -Infinity, and 0 among the weights.
 *
 * Stages: 'scores' is scale × q·k and 'capped' what softcap makes of it, both of every key, masked or not; 'biased'
 * has ALiBi and bias added, and -Infinity where masked; 'weights' is the softmax: rows sum to 1, to less with sinks
 * (the rest is the sink's), and to 0 where a query sees no key.
 *
 * @throws ShapeError, DTypeError, OptionError; CapacityError where the matrix cannot be had
 * @example
 * const last = attentionWeights(q, k, v, { causal: true, queries: [511], heads: [0, 3] }); // [1, 2, 1, Lk]
 */
export function attentionWeights(
  q: TensorLike,
  k: TensorLike,
  v: TensorLike,
  options?: AttentionWeightsOptions | null,
): Tensor {
  const caller = 'attentionWeights';
  const described = describeAttention(caller, q, k, v, options, WEIGHTS_OPTIONS);
  const stage = readWord(caller, 'stage', options?.stage, STAGES);
  const queries = readSelection(caller, 'queries', options?.queries, described.qLen);
  const heads = readSelection(caller, 'heads', options?.heads, described.numHeads);
  const problem = upTo(stage, described);
  const { numSequences, groupSize, sinks } = problem;
  const isRagged = options?.cuSeqlensK !== undefined && options.cuSeqlensK !== null;
  const keys = isRagged ? longestSequence(problem) : problem.k!.shape[2];
  const result = Tensor.full(
    [numSequences, heads.length, queries.length, keys],
    stage === 'weights' ? 0 : -Infinity,
  );
  for (let b = 0; b < numSequences; b++) {
    const { batch, qLen, kvBegin, kvLen } = problem.sequences[b];
    const scores = new Float64Array(kvLen);
    const weights = new Float64Array(kvLen);
    for (let n = 0; n < heads.length; n++) {
      const h = heads[n];
      const head = openHead(
        problem,
        b,
        h,
        readRows(problem.k!, batch, Math.floor(h / groupSize), kvBegin, kvLen),
      );
      for (let row = 0; row < queries.length; row++) {
        if (queries[row] >= qLen) continue;
        scoreRow(head, queries[row], scores);
        if (stage === 'weights') softmax(scores, sinks === null ? -Infinity : sinks.at(h), weights);
        const at = ((b * heads.length + n) * queries.length + row) * keys;
        result.data.set(stage === 'weights' ? weights : scores, at);
      }
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

/** Indices below `length`; all of them where none are given. */
function readSelection(caller: string, name: string, value: unknown, length: number): ArrayLike<number> {
  if (value === undefined || value === null) return Array.from({ length }, (_, index) => index);
  const indices = readIntegers(caller, name, value, -1);
  for (let n = 0; n < indices.length; n++) {
    if (indices[n] >= 0 && indices[n] < length) continue;
    throw new OptionError(
      `${caller}: ${name} must be indices from 0 to ${length - 1}; element ${n} is ${indices[n]}; there are ${length}`,
    );
  }
  return indices;
}
