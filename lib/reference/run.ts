import { setImmediate as nextTurn } from 'node:timers/promises';
import type { AttentionProblem } from '../problem.ts';
import type { Tensor } from '../tensor.ts';
import { exactArithmetic } from './arithmetic.ts';
import { attendGroup } from './attention.ts';

/** Executes the problem: out [B, Hq, Lq, Dv] and, if it is wanted, lse [B, Hq, Lq]. */
export function run(
  problem: AttentionProblem,
  out: Tensor,
  lse: Tensor | null,
  arithmetic = exactArithmetic,
): void {
  for (let b = 0; b < problem.numSequences; b++) {
    for (let kvHead = 0; kvHead < problem.numKvHeads; kvHead++)
      attendGroup(problem, b, kvHead, out, lse, arithmetic);
  }
}

/** {@link run}, in which the event loop turns, and the signal is looked at, between the groups of heads. */
export async function runAsync(
  problem: AttentionProblem,
  out: Tensor,
  lse: Tensor | null,
  signal?: AbortSignal,
): Promise<void> {
  for (let b = 0; b < problem.numSequences; b++) {
    for (let kvHead = 0; kvHead < problem.numKvHeads; kvHead++) {
      await nextTurn();
      signal?.throwIfAborted();
      attendGroup(problem, b, kvHead, out, lse);
    }
  }
}
