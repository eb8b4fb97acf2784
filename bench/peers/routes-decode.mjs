// Routes for one more token against a cache. See routes.mjs for what a route is.

import {
  bufferedAttention,
  cachedAttention,
  groupQueryAttention,
  multiHeadAttention,
  plainGraph,
} from '../../dist/cli/onnx/graphs.js';
import { Tensor } from '../../dist/index.js';

const groupSize = ({ numHeads, numKvHeads }) => numHeads / numKvHeads;
const readHeads = (out, { shape }) => out.reshape([1, shape.numHeads, 1, shape.headDim]);
const nothing = { operator: 0, binding: 0 };

/** The query heads of a group as so many queries of one head: q [1, numKvHeads, groupSize, headDim]. */
const foldGroups = (q, shape) => q.reshape([1, shape.numKvHeads, groupSize(shape), shape.headDim]);

const lengths = ({ context }) => ({
  seqlensK: ['int32', [context - 1], [1]],
  totalLength: ['int32', [context], []],
});

const grouped = {
  build: (shape, dtype) => groupQueryAttention(shape, dtype, true),
  readOut: readHeads,
};

const feedGrouped = (inputs, pastK, pastV, workload) => ({
  q: inputs.q.reshape([1, 1, -1]),
  k: inputs.newK.reshape([1, 1, -1]),
  v: inputs.newV.reshape([1, 1, -1]),
  pastK,
  pastV,
  ...lengths(workload),
});

const groupQueryAttentionRoutes = [
  {
    ...grouped,
    family: 'GroupQueryAttention',
    name: 'past in, longer present out',
    feed: (inputs, workload) => feedGrouped(inputs, inputs.pastK, inputs.pastV, workload),
    fetches: ['out', 'presentK', 'presentV'],
    copiedCaches: { operator: 1, binding: 1 },
  },
  {
    ...grouped,
    family: 'GroupQueryAttention',
    name: 'past in, present into given tensors',
    feed: (inputs, workload) => feedGrouped(inputs, inputs.pastK, inputs.pastV, workload),
    fetches: ['out', 'presentK', 'presentV'],
    given: ({ bufferK, bufferV }) => ({ presentK: bufferK, presentV: bufferV }),
    copiedCaches: { operator: 1, binding: 1 },
  },
  {
    ...grouped,
    family: 'GroupQueryAttention',
    name: 'past and present in one buffer',
    feed: (inputs, workload) => feedGrouped(inputs, inputs.bufferK, inputs.bufferV, workload),
    fetches: ['out', 'presentK', 'presentV'],
    given: ({ bufferK, bufferV }) => ({ presentK: bufferK, presentV: bufferV }),
    copiedCaches: { operator: 0, binding: 1 },
  },
  {
    ...grouped,
    family: 'GroupQueryAttention, cache kept by hand',
    name: 'present not fetched',
    feed: (inputs, workload) => feedGrouped(inputs, inputs.bufferK, inputs.bufferV, workload),
    fetches: ['out'],
    beforeRun: writeRow,
    copiedCaches: { operator: 1, binding: 0 },
  },
];

const attentionRoutes = [
  {
    family: 'Attention',
    name: 'past in, longer present out',
    build: cachedAttention,
    feed: ({ q, newK, newV, pastK, pastV }) => ({ q, k: newK, v: newV, pastK, pastV }),
    fetches: ['out', 'presentK', 'presentV'],
    readOut: readHeads,
    copiedCaches: { operator: 1, binding: 1 },
  },
  {
    family: 'Attention, cache kept by hand',
    name: 'number of keys given',
    build: (shape, dtype) => bufferedAttention(shape, dtype, shape.numHeads),
    feed: ({ q, bufferK, bufferV }, { context }) => ({
      q,
      k: bufferK,
      v: bufferV,
      numKeys: ['int64', [BigInt(context)], [1]],
    }),
    fetches: ['out'],
    beforeRun: writeRow,
    readOut: readHeads,
    copiedCaches: nothing,
  },
  {
    family: 'Attention, cache kept by hand',
    name: 'number of keys given, the heads of a group as queries of one head',
    build: (shape, dtype) => bufferedAttention(shape, dtype, shape.numKvHeads),
    feed: ({ q, bufferK, bufferV }, { shape, context }) => ({
      q: foldGroups(q, shape),
      k: bufferK,
      v: bufferV,
      numKeys: ['int64', [BigInt(context)], [1]],
    }),
    fetches: ['out'],
    beforeRun: writeRow,
    readOut: readHeads,
    copiedCaches: nothing,
  },
];

/** Nothing is appended: k and v lie there as if the newest token were among them already. */
const fullCacheRoutes = [
  {
    family: 'MultiHeadAttention, full cache',
    name: 'the heads of a group as queries of one head',
    build: (shape, dtype) => multiHeadAttention(shape, dtype, shape.numKvHeads),
    feed: ({ q, k, v }, { shape }) => ({ q: queryByQuery(foldGroups(q, shape)), k, v }),
    fetches: ['out'],
    readOut: (out, { shape }) =>
      headByHead(out.reshape([1, groupSize(shape), shape.numKvHeads, shape.headDim]), shape),
    copiedCaches: nothing,
  },
  plainRoute('keys as they come, the heads of a group together', false, true),
  plainRoute('keys transposed, the heads of a group together', true, true),
  plainRoute('keys transposed, each query head alone', true, false),
];

/** [1, numKvHeads, groupSize, headDim] as [1, groupSize, numKvHeads · headDim]. */
function queryByQuery(q) {
  return q.transpose(1, 2).contiguous().reshape([1, q.shape[2], -1]);
}

function headByHead(out, { numHeads, headDim }) {
  return out.transpose(1, 2).contiguous().reshape([1, numHeads, 1, headDim]);
}

function plainRoute(name, keysAreTransposed, foldsGroups) {
  const one = foldsGroups ? [] : [1];
  return {
    family: 'MatMul-Softmax-MatMul, full cache',
    name,
    build: (shape, dtype) => {
      const { numKvHeads, headDim } = shape;
      const qDims = [numKvHeads, groupSize(shape), ...one, headDim];
      const kDims = keysAreTransposed ? [headDim, 'keys'] : ['keys', headDim];
      return plainGraph(
        dtype,
        qDims,
        [numKvHeads, ...one, ...kDims],
        [numKvHeads, ...one, 'keys', headDim],
        keysAreTransposed,
      );
    },
    feed: (inputs, { shape }) => {
      const { numKvHeads, headDim } = shape;
      const keys = keysAreTransposed ? inputs.transposedK : inputs.k;
      const withHeads = (x) => x.reshape([numKvHeads, ...one, ...x.shape.slice(2)]);
      return {
        q: inputs.q.reshape([numKvHeads, groupSize(shape), ...one, headDim]),
        scale: Tensor.full([], 1 / Math.sqrt(headDim), { dtype: inputs.q.dtype }),
        k: withHeads(keys),
        v: withHeads(inputs.v),
      };
    },
    fetches: ['out'],
    readOut: readHeads,
    copiedCaches: nothing,
  };
}

/** Writes the new row of each head behind the others, in the buffers that the caller keeps: [1, numKvHeads, context, headDim]. */
function writeRow({ newK, newV, bufferK, bufferV }) {
  const [, numKvHeads, context, headDim] = bufferK.shape;
  for (let head = 0; head < numKvHeads; head++) {
    const begin = ((head + 1) * context - 1) * headDim;
    bufferK.data.set(newK.data.subarray(head * headDim, (head + 1) * headDim), begin);
    bufferV.data.set(newV.data.subarray(head * headDim, (head + 1) * headDim), begin);
  }
}

export const decodeRoutes = [...groupQueryAttentionRoutes, ...attentionRoutes, ...fullCacheRoutes];
