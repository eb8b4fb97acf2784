import { attention } from '../../attention.ts';
import type { DType } from '../../dtype.ts';
import { KVCache } from '../../kv-cache.ts';
import { Tensor } from '../../tensor.ts';
import type { ScoreOptions } from '../prepare.ts';
import { randomTensor } from '../random-tensor.ts';
import type { System } from '../time-in-turn.ts';
import type { LayerGroup } from '../workloads.ts';
import { cachedAttention, flatAttention, groupQueryAttention, type HeadShape } from './graphs.ts';
import { encodeModel, type Graph } from './model.ts';
import { Float } from './protobuf.ts';
import type { Runtime, RuntimeTensor } from './runtime.ts';

/** What is compared: one layer, in both phases at a context each. */
export interface PeerRequest {
  readonly group: LayerGroup;
  readonly scores: ScoreOptions;
  readonly dtype: DType;
  readonly causal: boolean;
  readonly threads: number;
  readonly contexts: Readonly<Record<'prefill' | 'decode', number>>;
}

/** One that computes it, ours or theirs. */
export interface Peer extends System {
  readonly name: string;
  /** [1, numHeads, qLen, headDim] */
  readOut(): Tensor;
  dispose(): unknown;
}

/** q [1, numHeads, qLen, headDim], k and v [1, numKvHeads, context, headDim] as views of [1, length, heads · headDim]. */
export interface Inputs {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
}

const flatten = (x: Tensor): Tensor => {
  const [, heads, length, dim] = x.shape;
  return x
    .transpose(1, 2)
    .contiguous()
    .reshape([1, length, heads * dim]);
};
const splitHeads = (x: Tensor, headDim: number): Tensor => {
  const [, length, width] = x.shape;
  return x.reshape([1, length, width / headDim, headDim]).transpose(1, 2);
};

/** The same numbers for all. */
export function makeInputs({ group, dtype }: PeerRequest, qLen: number, context: number): Inputs {
  const { numHeads, numKvHeads, headDim } = group.shape;
  const make = (length: number, heads: number, seed: number): Tensor =>
    splitHeads(randomTensor([1, length, heads * headDim], seed, dtype), headDim);
  return { q: make(qLen, numHeads, 1), k: make(context, numKvHeads, 2), v: make(context, numKvHeads, 3) };
}

/** What the others are held against: `attention` of a prompt, `KVCache.step` of a token. */
export function prepareOurs(inputs: Inputs, request: PeerRequest, phase: 'prefill' | 'decode'): Peer {
  return phase === 'decode' ? prepareStep(inputs, request) : preparePrompt(inputs, request);
}

function preparePrompt({ q, k, v }: Inputs, { scores, threads }: PeerRequest): Peer {
  const out = Tensor.empty(q.shape, { dtype: q.dtype });
  const options = { ...scores, causal: true, threads, out };
  return {
    name: 'node-sdpa',
    run: () => void attention(q, k, v, options),
    rewind: () => {},
    readOut: () => out,
    dispose: () => {},
  };
}

function prepareStep({ q, k, v }: Inputs, { scores, threads, group }: PeerRequest): Peer {
  const { numKvHeads, headDim } = group.shape;
  const [, , context] = k.shape;
  const dtype = q.dtype as 'float32';
  const cache = new KVCache({ numKvHeads, headDim, dtype, maxLength: context });
  cache.append(k.slice(2, 0, context - 1), v.slice(2, 0, context - 1));
  const [newK, newV] = [k, v].map((x) => x.slice(2, context - 1).contiguous());
  const out = Tensor.empty(q.shape, { dtype });
  return {
    name: 'node-sdpa',
    run: () => void cache.step(q, newK, newV, { ...scores, threads, out }),
    rewind: () => void cache.truncate(context - 1),
    readOut: () => out,
    dispose: () => cache.dispose(),
  };
}

type Feed = Tensor | readonly [dtype: 'int32', numbers: readonly number[], dims: readonly number[]];

/** A way of computing it: the graph, what goes in, what comes out beside `out`, and whether `out` has its heads apart. */
interface Route {
  readonly name: string;
  build(shape: HeadShape, dtype: string, scale: Float): Graph;
  feed(inputs: Inputs): Record<string, Feed>;
  readonly fetches: readonly string[];
  readonly isFlat: boolean;
}

const lengths = ({ k }: Inputs): Record<string, Feed> => ({
  seqlensK: ['int32', [k.shape[2] - 1], [1]],
  totalLength: ['int32', [k.shape[2]], []],
});
const flat = ({ q, k, v }: Inputs): Record<string, Feed> => ({ q: flatten(q), k: flatten(k), v: flatten(v) });
const newest = (x: Tensor): Tensor => x.slice(2, x.shape[2] - 1).contiguous();
const past = (x: Tensor): Tensor => x.slice(2, 0, x.shape[2] - 1).contiguous();

const prefillRoutes: readonly Route[] = [
  {
    name: 'GroupQueryAttention',
    build: (shape, dtype, scale) => groupQueryAttention(shape, dtype, false, { scale }),
    feed: (inputs) => ({ ...flat(inputs), ...lengths(inputs) }),
    fetches: [],
    isFlat: true,
  },
  {
    name: 'Attention',
    build: (shape, dtype, scale) => flatAttention(shape, dtype, { is_causal: 1, scale }),
    feed: flat,
    fetches: [],
    isFlat: true,
  },
];

/** The past goes in and the present, longer by a token, comes out: what a caller of the operator has to do. */
const decodeRoutes: readonly Route[] = [
  {
    name: 'GroupQueryAttention',
    build: (shape, dtype, scale) => groupQueryAttention(shape, dtype, true, { scale }),
    feed: (inputs) => ({
      ...flat({ q: inputs.q, k: newest(inputs.k), v: newest(inputs.v) }),
      pastK: past(inputs.k),
      pastV: past(inputs.v),
      ...lengths(inputs),
    }),
    fetches: ['presentK', 'presentV'],
    isFlat: true,
  },
  {
    name: 'Attention',
    build: (shape, dtype, scale) => cachedAttention(shape, dtype, { scale }),
    feed: ({ q, k, v }) => ({
      q: q.contiguous(),
      k: newest(k),
      v: newest(v),
      pastK: past(k),
      pastV: past(v),
    }),
    fetches: ['presentK', 'presentV'],
    isFlat: false,
  },
];

/** ONNX Runtime's operators, one after the other. */
export function* prepareTheirs(
  runtime: Runtime,
  inputs: Inputs,
  request: PeerRequest,
  phase: 'prefill' | 'decode',
): Iterable<Promise<Peer>> {
  for (const route of phase === 'decode' ? decodeRoutes : prefillRoutes)
    yield prepareRoute(runtime, route, inputs, request);
}

async function prepareRoute(
  runtime: Runtime,
  route: Route,
  inputs: Inputs,
  { group, dtype, scores, threads }: PeerRequest,
): Promise<Peer> {
  const { headDim } = group.shape;
  const scale = new Float(scores.scale ?? 1 / Math.sqrt(headDim));
  const session = await runtime.InferenceSession.create(encodeModel(route.build(group.shape, dtype, scale)), {
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    logSeverityLevel: 3,
  });
  const wrap = (feed: Feed): RuntimeTensor =>
    feed instanceof Tensor
      ? new runtime.Tensor(feed.dtype, feed.data, feed.shape)
      : new runtime.Tensor(feed[0], Int32Array.from(feed[1]), feed[2]);
  const feeds = Object.fromEntries(
    Object.entries(route.feed(inputs)).map(([name, feed]) => [name, wrap(feed)]),
  );
  const fetches = Object.fromEntries(['out', ...route.fetches].map((name) => [name, null]));
  let results: Record<string, RuntimeTensor> | null = null;
  return {
    name: route.name,
    async run() {
      results = await session.run(feeds, fetches);
    },
    rewind() {
      results = null;
    },
    readOut() {
      const { data, dims } = (results as Record<string, RuntimeTensor>).out;
      const out = new Tensor(data, dims, { dtype });
      return route.isFlat ? splitHeads(out, headDim) : out;
    },
    dispose: () => session.release(),
  };
}
