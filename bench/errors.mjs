// Relative Frobenius error against the float64 oracle, at the shapes that prefill and decode are timed at.

import { randomTensor } from '../dist/cli/random-tensor.js';
import { decodeCases, formatHeads, prefillCases } from '../dist/cli/workloads.js';
import { attention, KVCache, referenceAttention } from '../dist/index.js';
import { isas, print, withEachIsa } from './machine.mjs';

const TARGET = 4e-7;
/** The oracle is slow: of a long prompt so many queries, evenly spread, the first and the last among them. */
const SAMPLED_QUERIES = 64;

export default async function run() {
  const rows = [];
  for (const workload of [...prefillCases, ...decodeCases]) {
    const inputs = makeInputs(workload);
    const queries = sampleQueries(inputs.q.shape[2]);
    const want = queries.map((i) => solve(inputs, i));
    await withEachIsa(isas, (isa) => {
      const error = relativeFrobenius(compute(workload, inputs), want, queries);
      const mark = `<= ${TARGET} ${error <= TARGET ? 'ok' : 'HIGH'}`;
      rows.push([
        isa,
        workload.phase,
        formatHeads(workload.shape),
        String(workload.context),
        error.toExponential(2),
        mark,
      ]);
    });
  }
  print('Relative Frobenius error', ['isa', 'phase', 'heads', 'keys', 'error', ''], rows, 3);
}

function makeInputs({ phase, shape, context }) {
  const { numHeads, numKvHeads, headDim, valueDim } = shape;
  const q = randomTensor([1, numHeads, phase === 'decode' ? 1 : context, headDim], 1);
  const k = randomTensor([1, numKvHeads, context, headDim], 2);
  return { q, k, v: randomTensor([1, numKvHeads, context, valueDim], 3) };
}

function sampleQueries(qLen) {
  const count = Math.min(qLen, SAMPLED_QUERIES);
  return Array.from({ length: count }, (_, n) =>
    count === 1 ? 0 : Math.round((n * (qLen - 1)) / (count - 1)),
  );
}

function solve({ q, k, v }, i) {
  const queryOffset = k.shape[2] - q.shape[2] + i;
  return referenceAttention(q.slice(2, i, i + 1), k, v, { causal: true, queryOffset }).toFloat32Array();
}

function compute({ phase, shape }, { q, k, v }) {
  if (phase !== 'decode') return attention(q, k, v, { causal: true });
  const cache = new KVCache({ numKvHeads: shape.numKvHeads, headDim: shape.headDim });
  try {
    return cache.append(k, v).attend(q);
  } finally {
    cache.dispose();
  }
}

function relativeFrobenius(out, want, queries) {
  let squares = 0;
  let wantSquares = 0;
  queries.forEach((i, n) => {
    const got = out.slice(2, i, i + 1).toFloat32Array();
    got.forEach((x, j) => {
      squares += (x - want[n][j]) ** 2;
      wantSquares += want[n][j] ** 2;
    });
  });
  return Math.sqrt(squares / wantSquares);
}
