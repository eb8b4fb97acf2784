import type { Backend } from '../backend.ts';
import { createCache } from './cache.ts';
import { run, runAsync } from './run.ts';

/**
 * The TypeScript backend: the oracle itself, exact and slow, in the calling thread. `threads` and `precision` change
 * nothing.
 */
export const referenceBackend: Backend = Object.freeze({
  name: 'reference',
  attention: run,
  attentionAsync: runAsync,
  createCache,
});
