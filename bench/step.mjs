// One call with little to compute, everything included: what a decode step costs beside its arithmetic. A sample times a
// batch of calls, since to read the clock takes a while too, and the cache is as long as before when the next one begins.
import { median } from '../dist/cli/measure.js';
import { randomTensor } from '../dist/cli/random-tensor.js';
import { formatNumber } from '../dist/cli/table.js';
import { formatHeads, SHAPES } from '../dist/cli/workloads.js';
import { attention, KVCache, referenceAttention, Tensor } from '../dist/index.js';
import { print } from './machine.mjs';

const FIRST_LENGTH = 16;
const WARM_UP = 500;
const SAMPLES = 3000;
/** Nanoseconds of a step at 16 cached keys, 8/2/64. */
const TARGET = 3000;

export default function run() {
  const rows = [];
  for (const shape of [SHAPES.minimind, SHAPES.llama]) {
    for (const dtype of ['float32', 'float16', 'bfloat16']) {
      const target = shape === SHAPES.minimind ? TARGET : undefined;
      const inputs = makeInputs(shape, dtype);
      rows.push(runSteps(inputs, 4, target), runSteps(inputs, 32), runAttention(inputs));
    }
  }
  const head = ['call', 'heads', 'dtype', 'keys', 'ns', 'new options ns', 'validated ns', ''];
  print('One query token, one layer, with `out`', head, rows, 3);
}

function makeInputs(shape, dtype) {
  const { numHeads, numKvHeads, headDim } = shape;
  return {
    shape,
    dtype,
    q: randomTensor([1, numHeads, 1, headDim], 1, dtype),
    k: randomTensor([1, numKvHeads, 1, headDim], 2, dtype),
    v: randomTensor([1, numKvHeads, 1, headDim], 3, dtype),
    prompt: [4, 5].map((seed) => randomTensor([1, numKvHeads, FIRST_LENGTH, headDim], seed, dtype)),
    out: Tensor.empty([1, numHeads, 1, headDim], { dtype }),
  };
}

/** Steps from FIRST_LENGTH tokens on, `count` of them in a row. */
function runSteps({ shape, dtype, q, k, v, prompt, out }, count, target) {
  const { numKvHeads, headDim } = shape;
  const cache = new KVCache({ numKvHeads, headDim, dtype }).append(...prompt);
  const options = { out };
  const rewind = () => cache.truncate(FIRST_LENGTH);
  const ways = [
    () => cache.step(q, k, v, options),
    () => cache.step(q, k, v, { out, causal: true }),
    // An option that may differ from step to step, so that nothing of the last one holds.
    () => cache.step(q, k, v, { out, queryOffset: cache.length }),
  ];
  const times = ways.map((step) => {
    rewind();
    step();
    verify(`${formatHeads(shape)} ${dtype}`, out, q, cache.keys(), cache.values());
    return nanoseconds(step, count, rewind);
  });
  cache.dispose();
  const keys = `${FIRST_LENGTH}-${FIRST_LENGTH + count}`;
  return ['step', formatHeads(shape), dtype, keys, ...times.map(formatNumber), verdict(times[0], target)];
}

function runAttention({ shape, dtype, q, prompt, out }) {
  const call = () => attention(q, ...prompt, { out });
  call();
  verify(`attention ${formatHeads(shape)} ${dtype}`, out, q, ...prompt);
  const time = formatNumber(nanoseconds(call, 8, () => {}));
  return ['attention', formatHeads(shape), dtype, String(FIRST_LENGTH), '', '', time, ''];
}

/** Of one of `count` calls in a row, `rewind` before them not timed: the median. */
function nanoseconds(call, count, rewind) {
  const times = [];
  for (let sample = -WARM_UP; sample < SAMPLES; sample++) {
    rewind();
    const start = performance.now();
    for (let i = 0; i < count; i++) call();
    const time = (1e6 * (performance.now() - start)) / count;
    if (sample >= 0) times.push(time);
  }
  return median(times);
}

function verify(name, out, q, k, v) {
  const want = referenceAttention(q, k, v).toFloat32Array();
  const bound = out.dtype === 'float32' ? 1e-5 : 2e-2;
  out.toFloat32Array().forEach((x, i) => {
    if (!(Math.abs(x - want[i]) < bound)) throw new Error(`${name}: element ${i} is ${x}, not ${want[i]}`);
  });
}

const verdict = (time, target) =>
  target === undefined ? '' : `<= ${target} ns ${time <= target ? 'ok' : 'HIGH'}`;
