import { expect } from 'vitest';
import type { AttentionResult } from '../lib/attention.ts';
import { judge, measure, type Report, type Yardstick } from '../lib/compare-attention.ts';
import { describeAttention } from '../lib/describe-attention.ts';
import { build, type Case, type Inputs } from './cases.ts';

// The rule of the house, derived and never tuned: twice the error of a naive evaluation against float64, plus a floor of
// a few units in the last place (lib/error-summary.ts).

const yardsticks = new Map<string, Yardstick>();

/** The oracle's answer to a case and its tolerance, computed once for all backends. */
export function yardstickOf(testCase: Case): Yardstick {
  let yardstick = yardsticks.get(testCase.name);
  if (yardstick === undefined) {
    yardstick = yardstickOfInputs(build(testCase));
    yardsticks.set(testCase.name, yardstick);
  }
  return yardstick;
}

/** As {@link yardstickOf}, for inputs that are no case. */
export function yardstickOfInputs({ q, k, v, options }: Inputs): Yardstick {
  return measure(describeAttention('test', q, k, v, { ...options, out: null }));
}

/** Fails, with the report, unless `got` is within the tolerance. */
export function expectWithin(got: AttentionResult, yardstick: Yardstick): Report {
  const report = judge(yardstick, got, 'expected');
  expect(report.pass, `${report}`).toBe(true);
  return report;
}
