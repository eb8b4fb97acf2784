// What is compared: one attention layer of Llama 3 8B (32 query heads, 8 key/value heads of 128), a prompt and a decode step.
import { SHAPES } from '../../dist/cli/workloads.js';
import { threadCounts } from '../machine.mjs';

const PROMPTS = [512, 2048];
const CACHES = [2048, 8192];
const LONG_CACHE = 32768;

/** Workloads as lib/cli/workloads.ts describes them, and the number of threads, the same for every system. */
export function workloadsOf({ isQuick, isLong, hasBFloat16 }) {
  if (isQuick) return [...prefills([2048], 'float32'), ...decodes([8192], 'float32')].filter(hasAllThreads);
  const caches = isLong ? [...CACHES, LONG_CACHE] : CACHES;
  const dtypes = ['float32', 'float16', ...(hasBFloat16 ? ['bfloat16'] : [])];
  return dtypes.flatMap((dtype) => [...prefills(PROMPTS, dtype), ...decodes(caches, dtype)]);
}

/** Whether a workload is among those that the plot and the closer looks are about. */
export function isMain(workload) {
  return workload.dtype === 'float32' && hasAllThreads(workload);
}

function hasAllThreads({ threads }) {
  return threads === Math.max(...threadCounts);
}

const prefills = (lengths, dtype) => make('prefill', lengths, dtype);
const decodes = (lengths, dtype) => make('decode', lengths, dtype);

function make(phase, lengths, dtype) {
  return lengths.flatMap((context) =>
    threadCounts.map((threads) => ({
      phase,
      shape: SHAPES.llama,
      context,
      causal: true,
      window: Infinity,
      dtype,
      threads,
    })),
  );
}
