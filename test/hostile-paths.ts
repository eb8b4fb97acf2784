import { type AttentionResult, attention } from '../lib/attention.ts';
import type { DType } from '../lib/dtype.ts';
import { KVCache } from '../lib/kv-cache.ts';
import type { AttentionOptions } from '../lib/options.ts';
import { Tensor } from '../lib/tensor.ts';
import type { BackendUnderTest } from './backends.ts';

// Every way through the code, each as a function of one dense problem.

type Backend = BackendUnderTest['backend'];

export interface Shape {
  readonly batch: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly qLen: number;
  readonly kvLen: number;
  readonly headDim: number;
  readonly valueDim: number;
}

/** One way through the code. */
export interface Path {
  readonly shape: Shape;
  /** The dtype of a cache, where it is not that of q. */
  readonly cacheDType?: DType;
  readonly run: (backend: Backend, problem: Problem) => AttentionResult;
}

export interface Problem {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly options: AttentionOptions;
  readonly cacheDType: DType;
}

const BASE: Shape = { batch: 1, numHeads: 2, numKvHeads: 1, qLen: 1, kvLen: 1, headDim: 16, valueDim: 16 };

const dense: Path['run'] = (backend, { q, k, v, options }) =>
  attention(q, k, v, { ...options, backend, returnLse: true }) as AttentionResult;

function makeCache(backend: Backend, { k, v, cacheDType: dtype }: Problem, batch = k.shape[0]): KVCache {
  return new KVCache({
    batch,
    numKvHeads: k.shape[1],
    headDim: k.shape[3],
    valueDim: v.shape[3],
    dtype,
    backend,
  });
}

/** The options as a call on a cache takes them. */
function cacheOptions({ kvLengths: _, ...options }: AttentionOptions): Omit<AttentionOptions, 'backend'> {
  return { causal: false, ...options, returnLse: true };
}

const attend: Path['run'] = (backend, problem) => {
  using cache = makeCache(backend, problem).append(problem.k, problem.v);
  return cache.attend(problem.q, cacheOptions(problem.options)) as unknown as AttentionResult;
};

const step: Path['run'] = (backend, problem) => {
  const { q, k, v, options } = problem;
  const [length, count] = [k.shape[2], q.shape[2]];
  using cache = makeCache(backend, problem).append(
    k.slice(2, 0, length - count),
    v.slice(2, 0, length - count),
  );
  return cache.step(
    q,
    k.slice(2, length - count),
    v.slice(2, length - count),
    cacheOptions(options),
  ) as unknown as AttentionResult;
};

/** The prefix is that of entry 0, for all. */
const stepAll: Path['run'] = (backend, problem) => {
  const { q, k, v, options } = problem;
  const begin = k.shape[2] - q.shape[2];
  const root = makeCache(backend, problem, 1).append(
    k.slice(0, 0, 1).slice(2, 0, begin),
    v.slice(0, 0, 1).slice(2, 0, begin),
  );
  const caches = [root, ...Array.from({ length: q.shape[0] - 1 }, () => root.fork())];
  try {
    return KVCache.stepAll(
      caches,
      q,
      k.slice(2, begin),
      v.slice(2, begin),
      cacheOptions(options),
    ) as unknown as AttentionResult;
  } finally {
    for (const cache of caches) cache.dispose();
  }
};

/** Entries of the batch, packed one behind the other, as many keys of each as kvLengths says. */
const ragged: Path['run'] = (backend, { q, k, v, options }) => {
  const [batch, , qLen] = q.shape;
  const { kvLengths, ...rest } = options;
  const lengths = Array.from({ length: batch }, (_, b) => (kvLengths as Int32Array)?.[b] ?? k.shape[2]);
  const ends = (counts: readonly number[]): Int32Array =>
    Int32Array.from([0, ...counts.map((_, b) => counts.slice(0, b + 1).reduce((sum, n) => sum + n, 0))]);
  const longest = Math.max(...lengths);
  const narrow = (x: unknown): Tensor | undefined =>
    x === undefined ? undefined : (x as Tensor).slice(3, 0, longest).contiguous();
  const { out, lse } = attention(pack(q, Array(batch).fill(qLen)), pack(k, lengths), pack(v, lengths), {
    ...rest,
    mask: narrow(rest.mask),
    bias: narrow(rest.bias),
    cuSeqlensQ: ends(Array(batch).fill(qLen)),
    cuSeqlensK: ends(lengths),
    backend,
    returnLse: true,
  }) as AttentionResult;
  const heads = q.shape[1];
  const unpack = (x: Tensor, ...rest: number[]): Tensor =>
    x
      .reshape(heads, batch, qLen, ...rest)
      .transpose(0, 1)
      .contiguous();
  return { out: unpack(out, v.shape[3]), lse: unpack(lse) };
};

/** x [B, H, L, D] as [H, total, D], the first lengths[b] rows of each entry. */
function pack(x: Tensor, lengths: readonly number[]): Tensor {
  const [batch, heads, , dim] = x.shape;
  const total = lengths.reduce((sum, n) => sum + n, 0);
  const packed = Tensor.empty([heads, total, dim], { dtype: x.dtype });
  for (let h = 0, at = 0; h < heads; h++) {
    for (let b = 0; b < batch; b++) {
      const rows = x
        .slice(0, b, b + 1)
        .slice(1, h, h + 1)
        .slice(2, 0, lengths[b])
        .contiguous();
      packed.data.set(rows.data, at);
      at += rows.size;
    }
  }
  return packed;
}

/** Every path of a kernel; the lengths pass the edges of tiles and blocks. */
export const PATHS: Readonly<Record<string, Path>> = {
  'prefill, one tile': { shape: { ...BASE, qLen: 17, kvLen: 33 }, run: dense },
  'prefill, many tiles': { shape: { ...BASE, qLen: 65, kvLen: 97, headDim: 24, valueDim: 20 }, run: dense },
  'prefill, two key blocks': { shape: { ...BASE, qLen: 49, kvLen: 300 }, run: dense },
  ragged: { shape: { ...BASE, batch: 2, qLen: 19, kvLen: 40 }, run: ragged },
  'ragged decode': { shape: { ...BASE, batch: 2, qLen: 1, kvLen: 130 }, run: ragged },
  'decode of one row': { shape: { ...BASE, numHeads: 1, kvLen: 150 }, run: dense },
  'decode of a few rows': { shape: { ...BASE, numHeads: 3, qLen: 2, kvLen: 129 }, run: dense },
  'decode of many rows': { shape: { ...BASE, numHeads: 16, qLen: 4, kvLen: 260 }, run: dense },
  'decode in chunks': { shape: { ...BASE, kvLen: 1100 }, run: dense },
  'cache, attend': { shape: { ...BASE, qLen: 20, kvLen: 60 }, run: attend },
  'cache, step': { shape: { ...BASE, kvLen: 130 }, run: step },
  'cache, step of several': { shape: { ...BASE, numHeads: 8, qLen: 6, kvLen: 140 }, run: step },
  'shared prefix': { shape: { ...BASE, batch: 3, kvLen: 200 }, run: stepAll },
  'float16 cache': { shape: { ...BASE, kvLen: 140 }, cacheDType: 'float16', run: step },
  'bfloat16 cache': { shape: { ...BASE, kvLen: 140 }, cacheDType: 'bfloat16', run: step },
  'int8 cache': { shape: { ...BASE, kvLen: 140 }, cacheDType: 'int8', run: step },
  'int8 cache, prefill': { shape: { ...BASE, qLen: 30, kvLen: 70 }, cacheDType: 'int8', run: attend },
};

/** The same problem without a cache: the rows as a cache of its dtype holds them. */
export function denseOf(path: Path, problem: Problem): Problem {
  if (path.run === dense || path.run === ragged) return problem;
  const { q, k, v, options, cacheDType } = problem;
  const count = path.run === stepAll ? q.shape[2] : k.shape[2];
  using cache = makeCache('reference', problem).append(k, v);
  const [keys, values] = [cache.keys(), cache.values()].map((x) => {
    const rows = x.to(q.dtype).clone();
    // A shared prefix is that of entry 0.
    const own = (k.shape[2] - count) * rows.shape[3];
    for (let at = rows.size / rows.shape[0]; at < rows.size; at += rows.size / rows.shape[0])
      rows.data.copyWithin(at, 0, own);
    return rows;
  });
  return { q, k: keys, v: values, options: cacheOptions(options), cacheDType };
}
