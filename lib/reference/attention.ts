import { type AttentionProblem, maskBeginOf } from '../problem.ts';
import type { Tensor } from '../tensor.ts';
import { type Arithmetic, exactArithmetic } from './arithmetic.ts';
import { fillRows, readElement, readRows, writeElement, writeRow } from './rows.ts';
import { softmax } from './softmax.ts';

// Scaled dot-product attention as the papers write it: softmax(q·kᵀ × scale)·v, one query row at a time
// (Vaswani et al. 2017, §3.2.1). GQA: Ainslie et al. 2023, §2.2. ALiBi: Press et al. 2022, §3. Softcap: Gemma 2, §2.
// Attention sinks as logits of the denominator: gpt-oss. It shares nothing with a kernel, and is their oracle.

/** One query head of one sequence, and the keys it reads, as float64 rows. */
export interface Head {
  readonly problem: AttentionProblem;
  /** Which sequence, and which query head. */
  readonly b: number;
  readonly h: number;
  /** [qLen, headDim], [kvLen, headDim]. */
  readonly q: Float64Array;
  readonly k: Float64Array;
}

/** Opens query head h of sequence b. `k` are the rows of its kv head. */
export function openHead(problem: AttentionProblem, b: number, h: number, k: Float64Array): Head {
  const { batch, qBegin, qLen } = problem.sequences[b];
  return { problem, b, h, q: readRows(problem.q, batch, h, qBegin, qLen), k };
}

/** The scores of query row i, into `scores` [kvLen]; -Infinity where a key is not visible. */
export function scoreRow(head: Head, i: number, scores: Float64Array, arithmetic = exactArithmetic): void {
  scoreKeys(head, i, 0, scores.length, scores, arithmetic);
}

/** Of {@link scoreRow}, the scores of keys [first, last). */
function scoreKeys(
  head: Head,
  i: number,
  first: number,
  last: number,
  scores: Float64Array,
  arithmetic: Arithmetic,
): void {
  const { problem, b, h } = head;
  const { headDim, scale, softcap, windowLeft, windowRight, sinkTokens, mask, bias, alibiSlopes } = problem;
  const { round, scaledDot } = arithmetic;
  const rowAt = (x: Tensor): number => x.offset + b * x.strides[0] + h * x.strides[1] + i * x.strides[2];
  const maskAt = mask === null ? 0 : rowAt(mask);
  const maskBegin = maskBeginOf(problem, problem.sequences[b]);
  const biasAt = bias === null ? 0 : rowAt(bias);
  const slope = alibiSlopes === null ? 0 : alibiSlopes.at(b, h);
  const row = { a: head.q, aBegin: i * headDim, b: head.k, length: headDim };
  const position = problem.sequences[b].queryOffset + i;
  const begin = Math.max(problem.sequences[b].keptBegin ?? 0, position - windowLeft);
  const end = Math.min(last, problem.sequences[b].kvLen, position + windowRight + 1);
  scores.fill(-Infinity, first, last);
  for (let j = Math.max(first, sinkTokens > 0 ? 0 : begin); j < end; j++) {
    if (j < begin && j >= sinkTokens) continue;
    if (mask !== null && j >= maskBegin && mask.data[maskAt + (j - maskBegin) * mask.strides[3]] === 0)
      continue;
    const added = bias === null ? 0 : readElement(bias, biasAt + j * bias.strides[3]);
    if (added === -Infinity) continue;
    let score = round(scaledDot(scale, row, j * headDim));
    if (softcap !== 0) score = round(softcap * Math.tanh(score / softcap));
    if (slope !== 0) score = round(score - round(slope * Math.abs(position - j)));
    scores[j] = round(score + added);
  }
}

/** Multiplications between two pauses of {@link attendGroupInSteps}: a fraction of a millisecond. */
const STEP_WORK = 2 ** 17;

/** The query heads of kv head `kvHead` of sequence b: writes their rows of out [B, Hq, Lq, Dv] and lse [B, Hq, Lq]. */
export function attendGroup(
  problem: AttentionProblem,
  b: number,
  kvHead: number,
  out: Tensor,
  lse: Tensor | null,
  arithmetic = exactArithmetic,
): void {
  const steps = attendGroupInSteps(problem, b, kvHead, out, lse, arithmetic);
  while (!steps.next().done);
}

/** {@link attendGroup}, which pauses often, so that something else may run meanwhile. */
export function* attendGroupInSteps(
  problem: AttentionProblem,
  b: number,
  kvHead: number,
  out: Tensor,
  lse: Tensor | null,
  arithmetic = exactArithmetic,
): Generator<void, void> {
  const { batch, qBegin, qLen, kvBegin, kvLen } = problem.sequences[b];
  const { groupSize, headDim, valueDim, sinks } = problem;
  const k = new Float64Array(kvLen * headDim);
  const v = new Float64Array(kvLen * valueDim);
  const stepKeys = Math.ceil(STEP_WORK / Math.max(headDim, valueDim));
  for (let j = 0; j < kvLen; j += stepKeys) {
    const end = Math.min(kvLen, j + stepKeys);
    fillRows(k, problem.k!, batch, kvHead, kvBegin, j, end);
    fillRows(v, problem.v!, batch, kvHead, kvBegin, j, end);
    yield;
  }
  const scores = new Float64Array(kvLen);
  const weights = new Float64Array(kvLen);
  const o = new Float64Array(valueDim);
  for (let h = kvHead * groupSize; h < (kvHead + 1) * groupSize; h++) {
    const head = openHead(problem, b, h, k);
    for (let i = 0; i < qLen; i++) {
      for (let j = 0; j < kvLen; j += stepKeys) {
        scoreKeys(head, i, j, Math.min(kvLen, j + stepKeys), scores, arithmetic);
        yield;
      }
      const rowLse = softmax(scores, sinks === null ? -Infinity : sinks.at(h), weights, arithmetic);
      // NaN among the scores is NaN in the sum of the weights, by which all is divided.
      o.fill(Number.isNaN(rowLse) ? NaN : 0);
      for (let j = 0; j < kvLen; j++) {
        // Skipped, not multiplied by 0: an invisible v may hold NaN.
        if (scores[j] !== -Infinity) arithmetic.addScaled(o, weights[j], v, j * valueDim);
        if (j % stepKeys === stepKeys - 1) yield;
      }
      writeRow(out, batch, h, qBegin + i, o);
      if (lse !== null) writeElement(lse, batch, h, qBegin + i, rowLse);
    }
  }
}
