// Routes for a whole prompt, causal. See routes.mjs for what a route is.
import {
  attention,
  flatAttention,
  groupQueryAttention,
  multiHeadAttention,
} from '../../dist/cli/onnx/graphs.js';
import { splitHeads } from './inputs.mjs';

const causal = { is_causal: 1 };
const readFlat = (out, { shape }) => splitHeads(out, shape.headDim);
const readHeads = (out) => out;

const grouped = {
  family: 'GroupQueryAttention',
  build: (shape, dtype) => groupQueryAttention(shape, dtype, false),
  feed: ({ flatQ, flatK, flatV }, { context }) => ({
    q: flatQ,
    k: flatK,
    v: flatV,
    seqlensK: ['int32', [context - 1], [1]],
    totalLength: ['int32', [context], []],
  }),
  readOut: readFlat,
};

export const prefillRoutes = [
  {
    ...grouped,
    name: 'present not fetched',
    fetches: ['out'],
  },
  {
    ...grouped,
    name: 'present fetched',
    fetches: ['out', 'presentK', 'presentV'],
  },
  {
    family: 'Attention',
    name: 'heads side by side',
    build: (shape, dtype) => flatAttention(shape, dtype, causal),
    feed: ({ flatQ, flatK, flatV }) => ({ q: flatQ, k: flatK, v: flatV }),
    fetches: ['out'],
    readOut: readFlat,
  },
  {
    family: 'Attention',
    name: 'head after head',
    build: (shape, dtype) => attention(shape, dtype, shape.numHeads, causal),
    feed: (inputs) => ({ q: inputs.contiguousQ, k: inputs.contiguousK, v: inputs.contiguousV }),
    fetches: ['out'],
    readOut: readHeads,
  },
  {
    family: 'MultiHeadAttention',
    name: 'k and v repeated for each query head beforehand',
    build: (shape, dtype) => multiHeadAttention(shape, dtype, shape.numHeads, { unidirectional: 1 }),
    feed: (inputs) => ({ q: inputs.flatQ, k: inputs.repeatedK, v: inputs.repeatedV }),
    fetches: ['out'],
    readOut: readFlat,
  },
];
