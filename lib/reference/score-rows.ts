import type { AttentionProblem } from '../problem.ts';
import { sliceProblem } from '../problem-slice.ts';
import { exactArithmetic } from './arithmetic.ts';
import { openHead, scoreRow } from './attention.ts';
import { readRows } from './rows.ts';

/** Scores held at a time, 2 MiB of them, unless one row has more. */
const MAX_SCORES = 2 ** 18;

/** Keys converted to float64 at a time. */
const KEY_BLOCK = 1024;

/**
 * visit(head, row, scores) for each query head and row of sequence b: all scores of a row, [kvLen] in float64, -Infinity
 * where a key is not visible. `scores` is good until the next visit. A few rows and a block of keys are in memory at a
 * time, never a matrix.
 */
export function forEachScoreRow(
  problem: AttentionProblem,
  b: number,
  visit: (h: number, i: number, scores: Float64Array) => void,
  arithmetic = exactArithmetic,
): void {
  const { qLen, kvLen } = problem.sequences[b];
  const most = Math.max(1, Math.min(qLen, Math.floor(MAX_SCORES / Math.max(1, kvLen))));
  const scores = new Float64Array(most * kvLen);
  for (let h = 0; h < problem.numHeads; h++) {
    for (let begin = 0; begin < qLen; begin += most) {
      const queries = { begin, end: Math.min(qLen, begin + most) };
      const part = sliceProblem(problem, b, { heads: { begin: h, end: h + 1 }, queries });
      scoreRows(part, scores, arithmetic);
      for (let i = queries.begin; i < queries.end; i++) {
        visit(h, i, scores.subarray((i - begin) * kvLen, (i - begin + 1) * kvLen));
      }
    }
  }
}

/** The scores of all rows of a problem of one head, [qLen, kvLen]: block by block of keys, each a problem of its own. */
function scoreRows(
  problem: AttentionProblem,
  scores: Float64Array,
  arithmetic: typeof exactArithmetic,
): void {
  const { qLen, kvLen } = problem.sequences[0];
  const { q } = openHead(problem, 0, 0, new Float64Array(0));
  for (let begin = 0; begin < kvLen; begin += KEY_BLOCK) {
    const end = Math.min(kvLen, begin + KEY_BLOCK);
    const block = sliceProblem(problem, 0, { keys: { begin, end } });
    const k = readRows(block.k!, 0, 0, 0, end - begin);
    for (let i = 0; i < qLen; i++) {
      const row = scores.subarray(i * kvLen + begin, i * kvLen + end);
      scoreRow({ problem: block, b: 0, h: 0, q, k }, i, row, arithmetic);
    }
  }
}
