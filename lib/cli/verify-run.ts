import { type AttentionResult, attention } from '../attention.ts';
import { attentionWeights } from '../attention-weights.ts';
import { selectBackend } from '../backend.ts';
import { judge, measure, type Report, type Yardstick } from '../compare-attention.ts';
import { describeAttention } from '../describe-attention.ts';
import { ulpHistogram } from '../error-summary.ts';
import type { Tensor } from '../tensor.ts';
import { type Diagnosis, diagnose, diagnoseLse } from './verify-diagnosis.ts';
import type { Claim } from './verify-inputs.ts';
import type { RowKey, VerifyReport, WorstRow } from './verify-report.ts';

const MAX_KEYS_SHOWN = 5;

/** Holds a claimed output, or else this package's own, against the oracle; looks for the mistake where they differ. */
export function verifyClaim(claim: Claim): VerifyReport {
  const { q, k, v, options } = claim;
  const problem = describeAttention('verify', q, k, v, options);
  const yardstick = measure(problem);
  const own = claim.expected === null ? resultOf(claim) : null;
  const claimed = claim.expected ?? (own as AttentionResult).out;
  const lse = own === null ? claim.expectedLse : own.lse;
  const backend = own === null ? 'expected' : selectBackend(problem.backend).name;
  const report = judge(yardstick, { out: claimed, lse }, backend);
  const { rows, wrongRows } = countRows(claimed, yardstick);
  return {
    pass: report.pass,
    report,
    histogram: ulpHistogram(claimed, yardstick.want.out, yardstick.dtype),
    worst: explainWorst(claim, report),
    rows,
    wrongRows,
    diagnosis: findMistake(claim, claimed, lse, report, yardstick),
    notes: claim.notes,
  };
}

function findMistake(
  { q, k, v, options }: Claim,
  out: Tensor,
  lse: Tensor | null,
  report: Report,
  yardstick: Yardstick,
): Diagnosis | null {
  if (report.pass) return null;
  const isOutWrong = !judge(yardstick, { out, lse: null }, 'expected').pass;
  if (isOutWrong) return diagnose({ q, k, v, options }, out, yardstick);
  return lse === null ? null : diagnoseLse(out, lse, yardstick);
}

function resultOf({ q, k, v, options }: Claim): AttentionResult {
  return attention(q, k, v, { ...options, returnLse: true });
}

function countRows(claimed: Tensor, { want, outTolerance }: Yardstick): { rows: number; wrongRows: number } {
  const dim = claimed.shape[claimed.rank - 1];
  const [got, right] = [claimed.toFloat32Array(), want.out.toFloat32Array()];
  const rows = dim === 0 ? 0 : got.length / dim;
  let wrongRows = 0;
  for (let row = 0; row < rows; row++) {
    let isWrong = false;
    for (let i = row * dim; i < (row + 1) * dim; i++) {
      const isSame = Object.is(got[i], right[i]) || got[i] === right[i];
      isWrong ||= !isSame && !(Math.abs(got[i] - right[i]) <= outTolerance.maxAbs);
    }
    if (isWrong) wrongRows++;
  }
  return { rows, wrongRows };
}

/** The keys of the row in which the largest error stands, the heaviest first. */
function explainWorst({ q, k, v, options }: Claim, { worst, maxAbs }: Report): WorstRow | null {
  if (worst === null) return null;
  const place = { index: worst.index, got: worst.got, want: worst.want, error: maxAbs };
  const kvLen = k.shape[k.rank - 2];
  if (options.cuSeqlensQ != null) return { ...place, visibleKeys: null, kvLen, heaviest: [] };
  const [batch, head, query] = worst.index;
  const rowOf = (stage: 'biased' | 'weights'): Float32Array =>
    attentionWeights(q, k, v, { ...options, stage, queries: [query], heads: [head] })
      .slice(0, batch, batch + 1)
      .toFloat32Array();
  const [scores, weights] = [rowOf('biased'), rowOf('weights')];
  const visible: RowKey[] = [];
  for (const [key, score] of scores.entries())
    if (score !== -Infinity) visible.push({ key, score, weight: weights[key] });
  visible.sort((a, b) => b.weight - a.weight || a.key - b.key);
  return { ...place, visibleKeys: visible.length, kvLen, heaviest: visible.slice(0, MAX_KEYS_SHOWN) };
}
