import { exactArithmetic } from './arithmetic.ts';

/**
 * weights = softmax(scores), in which a sink (-Infinity for none) joins the denominator only. Returns the lse.
 * A key with the score -Infinity has the weight 0; where there is no other, all weights are 0 and the lse is the sink.
 */
export function softmax(
  scores: Float64Array,
  sink: number,
  weights: Float64Array,
  arithmetic = exactArithmetic,
): number {
  const { round, accumulate } = arithmetic;
  let m = sink;
  for (let j = 0; j < scores.length; j++) m = Math.max(m, scores[j]);
  weights.fill(0);
  if (m === -Infinity) return -Infinity;
  let l = sink === -Infinity ? 0 : round(Math.exp(round(sink - m)));
  for (let j = 0; j < scores.length; j++) {
    if (scores[j] === -Infinity) continue;
    weights[j] = round(Math.exp(round(scores[j] - m)));
    l = accumulate(l + weights[j]);
  }
  for (let j = 0; j < scores.length; j++) if (scores[j] !== -Infinity) weights[j] = round(weights[j] / l);
  return accumulate(m + accumulate(Math.log(l)));
}
