// The graphs that are built for ONNX Runtime: one operator each, or three. All take dims that are free where a length
// stands, so that nothing is known at build time which a decoder would not know.
import { type Attributes, type Graph, MICROSOFT, makeNode, type ValueType } from './model.ts';

/** The heads of a layer whose values are as wide as its keys. */
export interface HeadShape {
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
}

type Dim = number | string;

/**
 * com.microsoft GroupQueryAttention, causal: q [1, L, numHeads · headDim], k and v [1, L, numKvHeads · headDim], the
 * caches [1, numKvHeads, length, headDim]. seqlensK is the number of keys - 1.
 */
export function groupQueryAttention(
  { numHeads, numKvHeads, headDim }: HeadShape,
  dtype: string,
  hasPast: boolean,
  attributes: Attributes = {},
): Graph {
  const cache: ValueType = [dtype, [1, numKvHeads, 'cached', headDim]];
  const flat = (heads: number, length: string): ValueType => [dtype, [1, length, heads * headDim]];
  const past: Graph['inputs'] = hasPast ? { pastK: cache, pastV: cache } : {};
  return {
    opset: 21,
    nodes: [
      makeNode(
        'GroupQueryAttention',
        ['q', 'k', 'v', hasPast ? 'pastK' : '', hasPast ? 'pastV' : '', 'seqlensK', 'totalLength'],
        ['out', 'presentK', 'presentV'],
        { num_heads: numHeads, kv_num_heads: numKvHeads, ...attributes },
        MICROSOFT,
      ),
    ],
    inputs: {
      q: flat(numHeads, 'length'),
      k: flat(numKvHeads, 'newLength'),
      v: flat(numKvHeads, 'newLength'),
      ...past,
      seqlensK: ['int32', [1]],
      totalLength: ['int32', []],
    },
    outputs: { out: flat(numHeads, 'length'), presentK: cache, presentV: cache },
  };
}

/** ONNX Attention: q [1, queryHeads, L, headDim], k and v [1, numKvHeads, length, headDim], no cache of its own. */
export function attention(
  { numKvHeads, headDim }: HeadShape,
  dtype: string,
  queryHeads: number,
  attributes: Attributes = {},
): Graph {
  const heads = (count: number, length: string): ValueType => [dtype, [1, count, length, headDim]];
  return {
    opset: 24,
    nodes: [makeNode('Attention', ['q', 'k', 'v'], ['out'], attributes)],
    inputs: { q: heads(queryHeads, 'length'), k: heads(numKvHeads, 'keys'), v: heads(numKvHeads, 'keys') },
    outputs: { out: heads(queryHeads, 'length') },
  };
}

/** The same with heads side by side, [1, L, heads · headDim], as projections leave them. */
export function flatAttention(
  { numHeads, numKvHeads, headDim }: HeadShape,
  dtype: string,
  attributes: Attributes,
): Graph {
  const flat = (heads: number): ValueType => [dtype, [1, 'length', heads * headDim]];
  return {
    opset: 24,
    nodes: [
      makeNode('Attention', ['q', 'k', 'v'], ['out'], {
        ...attributes,
        q_num_heads: numHeads,
        kv_num_heads: numKvHeads,
      }),
    ],
    inputs: { q: flat(numHeads), k: flat(numKvHeads), v: flat(numKvHeads) },
    outputs: { out: flat(numHeads) },
  };
}

/** The same with a cache that comes in as past and goes out as present, longer by what is new. */
export function cachedAttention(
  { numHeads, numKvHeads, headDim }: HeadShape,
  dtype: string,
  attributes: Attributes = {},
): Graph {
  const heads = (count: number, length: string): ValueType => [dtype, [1, count, length, headDim]];
  const [past, present] = [heads(numKvHeads, 'past'), heads(numKvHeads, 'present')];
  return {
    opset: 23,
    nodes: [
      makeNode(
        'Attention',
        ['q', 'k', 'v', '', 'pastK', 'pastV'],
        ['out', 'presentK', 'presentV'],
        attributes,
      ),
    ],
    inputs: {
      q: heads(numHeads, 'length'),
      k: heads(numKvHeads, 'length'),
      v: heads(numKvHeads, 'length'),
      pastK: past,
      pastV: past,
    },
    outputs: { out: heads(numHeads, 'length'), presentK: present, presentV: present },
  };
}

/** The same over a buffer of which the first numKeys rows count (opset 24's cache outside of the graph). */
export function bufferedAttention(shape: HeadShape, dtype: string, queryHeads: number): Graph {
  const graph = attention(shape, dtype, queryHeads);
  return {
    ...graph,
    nodes: [makeNode('Attention', ['q', 'k', 'v', '', '', '', 'numKeys'], ['out'])],
    inputs: { ...graph.inputs, numKeys: ['int64', [1]] },
  };
}

/** com.microsoft MultiHeadAttention: q [1, L, heads · headDim], k and v [1, heads, keys, headDim]. */
export function multiHeadAttention(
  { headDim }: Pick<HeadShape, 'headDim'>,
  dtype: string,
  heads: number,
  attributes: Attributes = {},
): Graph {
  return {
    opset: 21,
    nodes: [
      makeNode(
        'MultiHeadAttention',
        ['q', 'k', 'v'],
        ['out'],
        { num_heads: heads, ...attributes },
        MICROSOFT,
      ),
    ],
    inputs: {
      q: [dtype, [1, 'length', heads * headDim]],
      k: [dtype, [1, heads, 'keys', headDim]],
      v: [dtype, [1, heads, 'keys', headDim]],
    },
    outputs: { out: [dtype, [1, 'length', heads * headDim]] },
  };
}

/**
 * MatMul-Softmax-MatMul. q is scaled first: a MatMul with a factor of its own leaves the path that is fastest for few
 * rows. `qDims` is [numKvHeads, groupSize, headDim] or [numKvHeads, groupSize, 1, headDim].
 */
export function plainGraph(
  dtype: string,
  qDims: readonly Dim[],
  kDims: readonly Dim[],
  vDims: readonly Dim[],
  keysAreTransposed: boolean,
): Graph {
  const scores = keysAreTransposed
    ? makeNode('MatMul', ['scaledQ', 'k'], ['scores'])
    : makeNode('FusedMatMul', ['scaledQ', 'k'], ['scores'], { transB: 1 }, MICROSOFT);
  return {
    opset: 21,
    nodes: [
      makeNode('Mul', ['q', 'scale'], ['scaledQ']),
      scores,
      makeNode('Softmax', ['scores'], ['weights'], { axis: -1 }),
      makeNode('MatMul', ['weights', 'v'], ['out']),
    ],
    inputs: { q: [dtype, qDims], scale: [dtype, []], k: [dtype, kDims], v: [dtype, vDims] },
    outputs: { out: [dtype, qDims] },
  };
}
