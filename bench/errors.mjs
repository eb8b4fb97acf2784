// Relative Frobenius error against the float64 oracle, at the shapes that prefill and decode are timed at, by dtype,
// precision and ISA; on normal inputs, with larger scores, and with a channel of k that stands out.
//
// The bound is twice the error of a naive evaluation of the same problem, which rounds as the precision promises. Of each
// shape one group of query heads, since groups are alike; of a long prompt some queries, since the oracle is slow.

import { randomTensor } from '../dist/cli/random-tensor.js';
import { decodeCases, formatHeads, prefillCases } from '../dist/cli/workloads.js';
import { describeAttention } from '../dist/describe-attention.js';
import { attention, KVCache, Tensor } from '../dist/index.js';
import { exactArithmetic, gradeOf, naiveArithmetic } from '../dist/reference/arithmetic.js';
import { run as solve } from '../dist/reference/run.js';
import { print, withEachIsa } from './machine.mjs';
import { formatVariant, planVariants, printMissing } from './variants.mjs';

/** float32 by slices of bfloat16 is no worse than by FMAs, where precision is the highest. */
const NO_WORSE_THAN = { amx: 'avx512' };

const INPUTS = [
  { name: 'normal', qFactor: 1, channelFactor: 1 },
  { name: 'q x 4', qFactor: 4, channelFactor: 1, prefillOnly: true },
  { name: 'q x 12', qFactor: 12, channelFactor: 1, prefillOnly: true },
  { name: 'a channel of k x 1000', qFactor: 1, channelFactor: 1000, prefillOnly: true, float32Only: true },
];
const CHANNEL = 5;

/** Of a long prompt so many stretches of neighbouring queries, evenly spread, the last one at its end. */
const STRETCHES = 4;
const STRETCH = 4;

export default async function run(filters) {
  printMissing();
  const plan = await planVariants(filters);
  const rows = [];
  for (const workload of [...prefillCases, ...decodeCases]) {
    for (const inputs of INPUTS) {
      if (workload.phase === 'decode' && inputs.prefillOnly) continue;
      for (const dtype of inputs.float32Only ? ['float32'] : ['float32', 'float16', 'bfloat16'])
        rows.push(...(await runOne({ ...workload, dtype }, inputs, plan)));
    }
  }
  const head = ['phase', 'heads', 'keys', 'inputs', 'dtype', 'naive', ...plan.keys(), ''];
  print('Relative Frobenius error', head, rows, 5);
}

/** A row for each precision of the dtype that some ISA computes in its own way. */
async function runOne(workload, inputs, plan) {
  const tensors = makeTensors(workload, inputs);
  const stretches = stretchesOf(tensors.q.shape[2]);
  const problems = stretches.map((stretch) => describe(tensors, stretch));
  const want = problems.map((problem) => answer(problem, 'float32', exactArithmetic));
  const rows = [];
  // The few queries of decode meet in FMAs, whatever the precision.
  for (const precision of workload.phase === 'decode' ? ['highest'] : ['highest', 'high', 'medium']) {
    const isKnown = (variant) => variant.dtype === workload.dtype && variant.precision === precision;
    const isas = [...plan.keys()].filter((isa) => plan.get(isa).some(isKnown));
    if (isas.length === 0) continue;
    const rounding = naiveArithmetic(gradeOf(workload.dtype, precision));
    const naive = relativeFrobenius(
      problems.map((problem) => answer(problem, workload.dtype, rounding)),
      want,
    );
    const errors = new Map();
    await withEachIsa(isas, (isa) => {
      const out = compute(workload, tensors, precision);
      const parts = stretches.map(([begin, end]) => out.slice(2, begin, end));
      errors.set(isa, relativeFrobenius(parts, want));
    });
    rows.push([
      workload.phase,
      formatHeads(workload.shape),
      String(workload.context),
      inputs.name,
      formatVariant({ dtype: workload.dtype, precision }),
      naive.toExponential(2),
      ...[...plan.keys()].map((isa) => errors.get(isa)?.toExponential(2) ?? '-'),
      verdict(errors, naive, precision),
    ]);
  }
  return rows;
}

function makeTensors({ phase, shape, context, dtype }, { qFactor, channelFactor }) {
  const { numHeads, numKvHeads, headDim, valueDim } = shape;
  const q = randomTensor([1, numHeads / numKvHeads, phase === 'decode' ? 1 : context, headDim], 1);
  const k = randomTensor([1, 1, context, headDim], 2);
  const v = randomTensor([1, 1, context, valueDim], 3);
  q.data.forEach((x, i) => {
    q.data[i] = qFactor * x;
  });
  for (let i = CHANNEL; i < k.size; i += headDim) k.data[i] *= channelFactor;
  return { q: q.to(dtype), k: k.to(dtype), v: v.to(dtype) };
}

/** [begin, end) of the queries that are looked at. */
function stretchesOf(qLen) {
  if (qLen <= STRETCHES * STRETCH) return [[0, qLen]];
  return Array.from({ length: STRETCHES }, (_, n) => {
    const end = Math.round(((n + 1) * qLen) / STRETCHES);
    return [end - STRETCH, end];
  });
}

function describe({ q, k, v }, [begin, end]) {
  const options = { causal: true, queryOffset: k.shape[2] - q.shape[2] + begin };
  return describeAttention('errors', q.slice(2, begin, end), k, v, options, Object.keys(options));
}

function answer(problem, dtype, arithmetic) {
  const out = Tensor.empty(problem.outShape, { dtype });
  solve(problem, out, null, arithmetic);
  return out;
}

function compute({ phase, shape, dtype }, { q, k, v }, precision) {
  if (phase !== 'decode') return attention(q, k, v, { causal: true, precision });
  const cache = new KVCache({ numKvHeads: 1, headDim: shape.headDim, valueDim: shape.valueDim, dtype });
  try {
    return cache.append(k, v).attend(q, { precision });
  } finally {
    cache.dispose();
  }
}

function relativeFrobenius(parts, want) {
  let squares = 0;
  let wantSquares = 0;
  parts.forEach((part, n) => {
    part.toFloat32Array().forEach((x, i) => {
      squares += (x - want[n].data[i]) ** 2;
      wantSquares += want[n].data[i] ** 2;
    });
  });
  return Math.sqrt(squares / wantSquares);
}

/** 'ok', or which ISAs are past the bound. */
function verdict(errors, naive, precision) {
  const faults = [];
  for (const [isa, error] of errors) {
    const rival = precision === 'highest' ? NO_WORSE_THAN[isa] : undefined;
    if (!(error <= 2 * naive)) faults.push(isa);
    else if (error > (errors.get(rival) ?? Infinity)) faults.push(`${isa} > ${rival}`);
  }
  return faults.length === 0 ? '<= 2x naive ok' : `HIGH ${faults.join(', ')}`;
}
