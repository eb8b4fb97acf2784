import { judge, measure, type Yardstick } from '../compare-attention.ts';
import { describeAttention } from '../describe-attention.ts';
import { summarizeErrors } from '../error-summary.ts';
import { SdpaError } from '../errors.ts';
import { Tensor } from '../tensor.ts';
import { type Computation, compute, HYPOTHESES, type Hypothesis } from './verify-hypotheses.ts';

/** What a wrong output may have come of. */
export interface Diagnosis {
  /** The mistakes that explain it, one or two of them; empty where none does. */
  readonly mistakes: readonly { readonly text: string; readonly remedy: string }[];
  /** Whether the output is what these mistakes give, within the tolerance; else they only bring it much nearer. */
  readonly fits: boolean;
  /** Relative Frobenius distance of the output from the oracle, and from what the mistakes give. */
  readonly before: number;
  readonly after: number;
}

/** A mistake that brings the output so much nearer is named, though it does not explain all. */
const MUCH_NEARER = 20;
/** Pairs of mistakes are tried on problems of up to so many multiply-adds. */
const PAIR_WORK = 2 ** 28;

interface Trial {
  readonly mistakes: readonly Hypothesis[];
  readonly computation: Computation;
  readonly distance: number;
}

/** Recomputes under each of the usual mistakes, then under each pair of them, and tells which one fits. */
export function diagnose(right: Computation, claimed: Tensor, yardstick: Yardstick): Diagnosis | null {
  const before = distanceOf(claimed, yardstick.want.out, yardstick);
  const singles = HYPOTHESES.flatMap((mistake) => tryMistake(right, [], mistake, claimed, yardstick));
  const best = nearest(singles);
  if (best !== undefined && isExplained(best, claimed)) return conclude(best, before, true);
  const swapped = diagnoseLayout(claimed, before, yardstick);
  if (swapped !== null) return swapped;
  const pairs = workOf(right) > PAIR_WORK ? [] : tryPairs(singles, claimed, yardstick);
  const bestPair = nearest(pairs);
  if (bestPair !== undefined && isExplained(bestPair, claimed)) return conclude(bestPair, before, true);
  const coarse = diagnosePrecision(right, claimed, before);
  if (coarse !== null) return coarse;
  if (best !== undefined && best.distance * MUCH_NEARER < before) return conclude(best, before, false);
  return null;
}

/** The right numbers, heads and queries exchanged: a reshape in place of a transposition. */
function diagnoseLayout(claimed: Tensor, before: number, yardstick: Yardstick): Diagnosis | null {
  const [dim, qLen, numHeads, ...batch] = [...claimed.shape].reverse();
  const axis = claimed.rank - 3;
  const out = claimed
    .contiguous()
    .reshape([...batch, qLen, numHeads, dim])
    .transpose(axis, axis + 1)
    .contiguous();
  if (!judge(yardstick, { out, lse: null }, 'expected').pass) return null;
  const mistake = {
    text: 'written as [B, L, H, D]: head h of query i stands where i and h are exchanged',
    remedy: 'transpose the axes back; reshape alone does not move the numbers',
  };
  const after = distanceOf(out, yardstick.want.out, yardstick);
  return { mistakes: [mistake], fits: true, before, after };
}

/** Precisions below that of float32, and how an output of them is verified. */
const LOWER = [
  { precision: 'high', text: 'in the precision of TF32 or float16' },
  { precision: 'medium', text: 'in the precision of bfloat16' },
] as const;

/** Right, but multiplied or rounded as fewer digits than float32 has allow. */
function diagnosePrecision(
  { q, k, v, options }: Computation,
  claimed: Tensor,
  before: number,
): Diagnosis | null {
  if (q.dtype !== 'float32') return null;
  for (const { precision, text } of LOWER) {
    const problem = describeAttention('verify', q, k, v, { ...options, precision });
    if (!judge(measure(problem), { out: claimed, lse: null }, 'expected').pass) continue;
    const remedy = `compute and write it in float32, or verify with --precision ${precision}`;
    return { mistakes: [{ text, remedy }], fits: true, before, after: before };
  }
  return null;
}

/** What a wrong log-sum-exp of a right output may be: its meaning as somebody else has it, and the way back to ours. */
const OTHER_LSES: readonly { text: string; remedy: string; back: (x: number) => number }[] = [
  {
    text: 'whose lse is in base 2',
    remedy: 'multiply it by ln 2',
    back: (x) => x * Math.LN2,
  },
  {
    text: 'whose lse is the denominator itself',
    remedy: 'take its natural logarithm',
    back: Math.log,
  },
  { text: 'whose lse has the other sign', remedy: 'negate it', back: (x) => -x },
];

/** As {@link diagnose}, of the lse beside an output that is right. */
export function diagnoseLse(out: Tensor, lse: Tensor, yardstick: Yardstick): Diagnosis | null {
  const distance = (x: Tensor): number => summarizeErrors(x, yardstick.want.lse, 'float32').relativeFrobenius;
  for (const { text, remedy, back } of OTHER_LSES) {
    const meant = new Tensor(lse.toFloat32Array().map(back), lse.shape);
    if (judge(yardstick, { out, lse: meant }, 'expected').lse?.pass !== true) continue;
    return { mistakes: [{ text, remedy }], fits: true, before: distance(lse), after: distance(meant) };
  }
  return null;
}

function conclude({ mistakes, distance }: Trial, before: number, fits: boolean): Diagnosis {
  return { mistakes: mistakes.map(({ text, remedy }) => ({ text, remedy })), fits, before, after: distance };
}

function tryMistake(
  from: Computation,
  earlier: readonly Hypothesis[],
  mistake: Hypothesis,
  claimed: Tensor,
  yardstick: Yardstick,
): Trial[] {
  try {
    const computation = mistake.apply(from);
    if (computation === null) return [];
    const distance = distanceOf(claimed, compute(computation), yardstick);
    return [{ mistakes: [...earlier, mistake], computation, distance }];
  } catch (error) {
    // Some mistakes cannot be made with these options together.
    if (error instanceof SdpaError) return [];
    throw error;
  }
}

function tryPairs(singles: readonly Trial[], claimed: Tensor, yardstick: Yardstick): Trial[] {
  return singles.flatMap(({ mistakes, computation }) =>
    HYPOTHESES.slice(HYPOTHESES.indexOf(mistakes[0]) + 1).flatMap((second) =>
      tryMistake(computation, mistakes, second, claimed, yardstick),
    ),
  );
}

const nearest = (trials: readonly Trial[]): Trial | undefined =>
  trials.reduce<Trial | undefined>(
    (best, each) => (best === undefined || each.distance < best.distance ? each : best),
    undefined,
  );

function distanceOf(claimed: Tensor, computed: Tensor, { dtype }: Yardstick): number {
  return summarizeErrors(claimed, computed, dtype).relativeFrobenius;
}

/** Whether the claimed output is what the computation gives, by the tolerance of that computation itself. */
function isExplained({ computation, distance }: Trial, claimed: Tensor): boolean {
  if (!(distance < 0.1)) return false;
  const { q, k, v, options } = computation;
  const problem = describeAttention('verify', q, k, v, options);
  return judge(measure(problem), { out: claimed, lse: null }, 'expected').pass;
}

function workOf({ q, k, v }: Computation): number {
  const [qLen, kvLen] = [q.shape[q.rank - 2], k.shape[k.rank - 2]];
  const heads = q.size / (qLen * q.shape[q.rank - 1]);
  return heads * qLen * kvLen * (q.shape[q.rank - 1] + v.shape[v.rank - 1]);
}
