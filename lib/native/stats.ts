import type { StatsResults } from '../backend.ts';
import type { ResolvedWindow } from '../options.ts';
import type { AttentionProblem } from '../problem.ts';
import { Tensor } from '../tensor.ts';
import type { Addon } from './addon.ts';
import { checkStatus, guard, operandsOf } from './call.ts';
import { encodeProblem } from './encode.ts';

/** The output of a problem without values. */
const NO_OUT = Tensor.empty([0, 0, 0, 0]);

/** Statistics of the weights, by the addon; the values do not cross. */
export function writeStats(
  addon: Addon,
  problem: AttentionProblem,
  { entropy, maxWeight, argmax, lse, windowMass }: StatsResults,
  massWindow: ResolvedWindow | null,
): void {
  const call = { problem: { ...problem, v: null, valueDim: 0 }, out: NO_OUT, lse };
  const status = guard(problem.caller, () =>
    addon.attentionStats(
      encodeProblem(call),
      ...operandsOf(call),
      entropy.data,
      maxWeight.data,
      argmax.data,
      windowMass?.data ?? null,
      massWindow && Float64Array.of(massWindow.windowLeft, massWindow.windowRight, massWindow.sinkTokens),
    ),
  );
  checkStatus(problem.caller, status);
}
