import type { Backend, StatsResults } from '../backend.ts';
import type { ResolvedWindow } from '../options.ts';
import type { AttentionProblem } from '../problem.ts';
import type { Tensor } from '../tensor.ts';
import { createCache, stepAll } from './cache.ts';
import { run, runAsync } from './run.ts';
import { writeStats } from './stats.ts';

/**
 * The TypeScript backend: the oracle itself, exact and slow, in the calling thread. `threads` and `precision` change
 * nothing.
 */
export const referenceBackend: Backend = Object.freeze({
  name: 'reference',
  // Three arguments: how it rounds is not the caller's.
  attention(problem: AttentionProblem, out: Tensor, lse: Tensor | null): void {
    run(problem, out, lse);
  },
  attentionAsync: runAsync,
  attentionStats(problem: AttentionProblem, results: StatsResults, massWindow: ResolvedWindow | null): void {
    writeStats(problem, results, massWindow);
  },
  createCache,
  stepAll,
});
