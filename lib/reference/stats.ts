import type { StatsResults } from '../backend.ts';
import type { ResolvedWindow } from '../options.ts';
import type { AttentionProblem } from '../problem.ts';
import { exactArithmetic } from './arithmetic.ts';
import { writeElement } from './rows.ts';
import { forEachScoreRow } from './score-rows.ts';
import { softmax } from './softmax.ts';

/** What a row of weights is summed up as; see attentionStats. */
interface RowStats {
  readonly entropy: number;
  readonly maxWeight: number;
  readonly argmax: number;
  readonly lse: number;
  /** Of the keys in the mass window. */
  readonly windowMass: number;
}

/** Statistics of the weights of every query row, as the words say them: a row of weights at a time. */
export function writeStats(
  problem: AttentionProblem,
  results: StatsResults,
  massWindow: ResolvedWindow | null,
  arithmetic = exactArithmetic,
): void {
  for (let b = 0; b < problem.numSequences; b++) {
    const { batch, qBegin, queryOffset, kvLen } = problem.sequences[b];
    // The sink is one more key, behind the others.
    const scores = new Float64Array(kvLen + 1);
    const weights = new Float64Array(kvLen + 1);
    const visit = (h: number, i: number, rowScores: Float64Array): void => {
      scores.set(rowScores);
      scores[kvLen] = problem.sinks === null ? -Infinity : problem.sinks.at(h);
      const lse = softmax(scores, -Infinity, weights, arithmetic);
      const counts = windowAround(queryOffset + i, massWindow);
      const stats = rowStats(rowScores, weights, lse, counts, arithmetic);
      writeElement(results.entropy, batch, h, qBegin + i, stats.entropy);
      writeElement(results.maxWeight, batch, h, qBegin + i, stats.maxWeight);
      writeElement(results.argmax, batch, h, qBegin + i, stats.argmax);
      writeElement(results.lse, batch, h, qBegin + i, stats.lse);
      if (results.windowMass !== null)
        writeElement(results.windowMass, batch, h, qBegin + i, stats.windowMass);
    };
    forEachScoreRow(problem, b, visit, arithmetic);
  }
}

/** Whether key j counts as mass for the query at this position. */
function windowAround(position: number, window: ResolvedWindow | null): (j: number) => boolean {
  if (window === null) return () => false;
  const { windowLeft, windowRight, sinkTokens } = window;
  return (j) => j <= position + windowRight && (j >= position - windowLeft || j < sinkTokens);
}

/** `weights` are those of the keys, and of the sink behind them. */
function rowStats(
  scores: Float64Array,
  weights: Float64Array,
  lse: number,
  countsAsMass: (j: number) => boolean,
  { round, accumulate }: typeof exactArithmetic,
): RowStats {
  if (Number.isNaN(lse)) return { entropy: NaN, maxWeight: NaN, argmax: -1, lse, windowMass: NaN };
  let entropy = 0;
  let argmax = -1;
  let windowMass = 0;
  for (let j = 0; j < weights.length; j++) {
    if (weights[j] > 0) entropy = accumulate(entropy - round(weights[j] * round(Math.log(weights[j]))));
    if (j === scores.length || scores[j] === -Infinity) continue;
    // By scores: of two weights that underflow, one is the larger.
    if (argmax < 0 || scores[j] > scores[argmax]) argmax = j;
    if (countsAsMass(j)) windowMass = accumulate(windowMass + weights[j]);
  }
  return { entropy, maxWeight: argmax < 0 ? 0 : weights[argmax], argmax, lse, windowMass };
}
