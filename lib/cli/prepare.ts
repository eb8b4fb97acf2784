import { attention, attentionAsync } from '../attention.ts';
import type { BackendChoice } from '../backend.ts';
import { compareAttention } from '../compare-attention.ts';
import type { DType } from '../dtype.ts';
import { KVCache } from '../kv-cache.ts';
import type { CacheDType } from '../modules/describe-model.ts';
import type { AttentionOptions } from '../options.ts';
import { Tensor } from '../tensor.ts';
import { quantiseRows, restoreRows } from '../tensor-int8.ts';
import { UsageError } from './command.ts';
import type { Repeatable } from './measure.ts';
import { randomTensor } from './random-tensor.ts';
import { CHUNK, cachedBytes, inputDType, type Workload } from './workloads.ts';

/** What of a model's attention is the same in every phase. Per-head lists are float32 tensors [numHeads]. */
export interface ScoreOptions {
  readonly scale?: number;
  readonly softcap?: number;
  readonly sinks?: Tensor;
  readonly alibiSlopes?: Tensor;
}

/** A workload with its random inputs, ready to be timed. */
export interface Prepared extends Repeatable {
  /** Runs once and holds sampled queries and heads against the oracle. Rejects with a UsageError where they differ. */
  check(): Promise<void>;
  dispose(): void;
}

/** How to prepare. */
export interface PrepareOptions extends ScoreOptions {
  readonly backend?: BackendChoice;
  /** At most so many; default: all. */
  readonly threads?: number;
  /** Decode goes through caches of so many bytes in turn, so that their data are cold. Default: one cache. */
  readonly coldBytes?: number;
  /** Whether prefill runs off the event loop: what takes long is not to hold it up. */
  readonly yields?: boolean;
}

/** Beyond this number of caches in turn, making them takes longer than reading them. */
const MAX_CACHES = 256;

/** Makes inputs, outputs and caches. Results go into a tensor given as `out`, so that no allocation is timed. */
export function prepare(workload: Workload, options: PrepareOptions = {}): Prepared {
  const { phase, shape, context, dtype, precision } = workload;
  const { numHeads, numKvHeads, headDim, valueDim } = shape;
  // A sliding layer keeps no more than its window.
  const kvLen = phase === 'decode' ? Math.min(context, workload.window) : context;
  const qLen = phase === 'decode' ? 1 : context;
  const inputs: Inputs = {
    q: randomTensor([1, numHeads, qLen, headDim], 1, inputDType(dtype)),
    k: randomTensor([1, numKvHeads, kvLen, headDim], 2, inputDType(dtype)),
    v: randomTensor([1, numKvHeads, kvLen, valueDim], 3, inputDType(dtype)),
    out: Tensor.empty([1, numHeads, qLen, valueDim], { dtype: inputDType(dtype) }),
    cacheDType: dtype,
  };
  const { backend, threads, coldBytes = 0, yields = false, ...scores } = options;
  const windowed = workload.window < kvLen ? { window: { left: workload.window - 1 } } : {};
  const attentionOptions = { ...scores, ...windowed, causal: workload.causal, precision };
  const check = () => checkSamples(phase === 'prefill' ? inputs : asCached(inputs), attentionOptions);
  const runOptions = { ...attentionOptions, backend, threads };
  if (phase === 'prefill') return preparePrefill(inputs, runOptions, yields, check);
  if (phase === 'chunked') return prepareChunked(inputs, runOptions, yields, check);
  const numCaches = Math.min(MAX_CACHES, Math.max(1, Math.ceil(coldBytes / cachedBytes(workload))));
  return prepareDecode(inputs, runOptions, numCaches, check);
}

/** q [1, numHeads, qLen, headDim], k and v [1, numKvHeads, kvLen, ...], and the place of the result. */
export interface Inputs {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly out: Tensor;
  /** Default: that of k. */
  readonly cacheDType?: DType;
}

/** With k and v as a cache holds them, in the dtype of q. */
function asCached({ q, k, v, out, cacheDType }: Inputs): Inputs {
  if (cacheDType !== 'int8') return { q, k, v, out };
  const held = (x: Tensor): Tensor => restoreRows(quantiseRows(x.to('float32'))).to(q.dtype);
  return { q, k: held(k), v: held(v), out };
}

function preparePrefill(
  { q, k, v, out }: Inputs,
  options: AttentionOptions,
  yields: boolean,
  check: () => void,
): Prepared {
  const runSync = (): void => void attention(q, k, v, { ...options, out });
  const run = yields ? () => attentionAsync(q, k, v, { ...options, out }) : runSync;
  return {
    run,
    rewind: () => {},
    check: async () => {
      await run();
      check();
    },
    dispose: () => {},
  };
}

function prepareChunked(
  inputs: Inputs,
  options: AttentionOptions,
  yields: boolean,
  check: () => void,
): Prepared {
  const context = inputs.q.shape[2];
  const cache = makeCache(inputs, options);
  const steps: Inputs[] = [];
  for (let begin = 0; begin < context; begin += CHUNK) {
    const end = Math.min(context, begin + CHUNK);
    const part = (x: Tensor): Tensor => x.slice(2, begin, end);
    steps.push({ q: part(inputs.q), k: part(inputs.k), v: part(inputs.v), out: part(inputs.out) });
  }
  const runSync = (): void => {
    for (const { q, k, v, out } of steps) cache.step(q, k, v, { ...options, out });
  };
  const runAsync = async (): Promise<void> => {
    for (const { q, k, v, out } of steps) await cache.stepAsync(q, k, v, { ...options, out });
  };
  const run = yields ? runAsync : runSync;
  const rewind = (): void => void cache.truncate(0);
  return {
    run,
    rewind,
    check: async () => {
      await run();
      rewind();
      check();
    },
    dispose: () => cache.dispose(),
  };
}

function prepareDecode(
  inputs: Inputs,
  options: AttentionOptions,
  numCaches: number,
  check: () => void,
): Prepared {
  const { q, k, v, out } = inputs;
  const past = k.shape[2] - 1;
  const [newK, newV] = [k.slice(2, past), v.slice(2, past)];
  const caches = Array.from({ length: numCaches }, () =>
    makeCache(inputs, options).append(k.slice(2, 0, past), v.slice(2, 0, past)),
  );
  let turn = 0;
  const run = (): void => void caches[turn].step(q, newK, newV, { ...options, out });
  const rewind = (): void => {
    caches[turn].truncate(past);
    turn = (turn + 1) % numCaches;
  };
  return {
    run,
    rewind,
    check: async () => {
      await run();
      rewind();
      check();
    },
    dispose: () => {
      for (const cache of caches) cache.dispose();
    },
  };
}

function makeCache({ k, v, cacheDType }: Inputs, { backend }: AttentionOptions): KVCache {
  const [, numKvHeads, maxLength, headDim] = k.shape;
  const dtype = (cacheDType ?? k.dtype) as CacheDType;
  return new KVCache({ numKvHeads, headDim, valueDim: v.shape[3], maxLength, dtype, backend });
}

/**
 * Compares the first, the middle and the last query of the first and the last query group with the oracle.
 *
 * @returns the largest relative error (Frobenius) among them
 * @throws UsageError where one is wrong
 */
export function checkSamples({ q, k, v, out }: Inputs, options: AttentionOptions): number {
  const [, numHeads, qLen] = q.shape;
  const [, numKvHeads, kvLen] = k.shape;
  const groupSize = numHeads / numKvHeads;
  let error = 0;
  for (const kvHead of new Set([0, numKvHeads - 1])) {
    const group = (x: Tensor, axis: number): Tensor =>
      x.slice(axis, kvHead * groupSize, (kvHead + 1) * groupSize);
    const perHead = (x: unknown): Tensor | undefined => (x === undefined ? undefined : group(x as Tensor, 0));
    for (const i of new Set([0, qLen >> 1, qLen - 1])) {
      const query = (x: Tensor): Tensor => group(x, 1).slice(2, i, i + 1);
      const head = (x: Tensor): Tensor => x.slice(1, kvHead, kvHead + 1);
      const sampled = {
        ...options,
        queryOffset: kvLen - qLen + i,
        sinks: perHead(options.sinks),
        alibiSlopes: perHead(options.alibiSlopes),
      };
      const report = compareAttention(query(q), head(k), head(v), sampled, query(out));
      if (!report.pass)
        throw new UsageError(`the result is wrong at query ${i}, kv head ${kvHead}: ${report}`);
      error = Math.max(error, report.relativeFrobenius);
    }
  }
  return error;
}
