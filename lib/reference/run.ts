import { setImmediate as nextTurn } from 'node:timers/promises';
import type { AttentionProblem } from '../problem.ts';
import type { Tensor } from '../tensor.ts';
import { checkStillThere } from '../tensor-memory.ts';
import { exactArithmetic } from './arithmetic.ts';
import { attendGroup, attendGroupInSteps } from './attention.ts';

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

/** Milliseconds for which the event loop stands still at most, but for a single softmax. */
const TURN_MS = 4;

/**
 * {@link run}, in which the event loop turns every few milliseconds, and the signal is looked at then.
 *
 * @throws ShapeError where the memory of a tensor was transferred meanwhile, or has shrunk
 */
export async function runAsync(
  problem: AttentionProblem,
  out: Tensor,
  lse: Tensor | null,
  signal?: AbortSignal,
): Promise<void> {
  const checkMemory = memoryCheck({ ...problem, out });
  let turned = -Infinity;
  for (let b = 0; b < problem.numSequences; b++) {
    for (let kvHead = 0; kvHead < problem.numKvHeads; kvHead++) {
      for (const _ of attendGroupInSteps(problem, b, kvHead, out, lse)) {
        if (performance.now() - turned < TURN_MS) continue;
        await nextTurn();
        signal?.throwIfAborted();
        checkMemory();
        turned = performance.now();
      }
    }
  }
  signal?.throwIfAborted();
}

const TENSORS = ['q', 'k', 'v', 'mask', 'bias', 'alibiSlopes', 'sinks', 'out'] as const;

/** A check that the tensors of a call still have the memory that they have now. */
function memoryCheck(call: AttentionProblem & { readonly out: Tensor }): () => void {
  const elements = TENSORS.map((name) => call[name]?.data.length ?? 0);
  return () => {
    TENSORS.forEach((name, n) => {
      const tensor = call[name];
      if (tensor !== null) checkStillThere(call.caller, name, tensor, elements[n]);
    });
  };
}
