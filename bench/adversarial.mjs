// Inputs that are hard on a softmax or on the arithmetic, against random ones of the same shape, on each path, run in
// turn: how many times longer they take. Minima of all rounds, so that a busy neighbour does not show.
import { randomTensor } from '../dist/cli/random-tensor.js';
import { formatNumber } from '../dist/cli/table.js';
import { formatHeads, SHAPES } from '../dist/cli/workloads.js';
import { attention, Tensor } from '../dist/index.js';
import { print, withEachIsa } from './machine.mjs';
import { formatVariant, planVariants, printMissing } from './variants.mjs';

/** No input may take longer than this, in times of random inputs. */
const LIMIT = 3;
const ROUNDS = 15;

const WORK = { prefill: { qLen: 512, kvLen: 512 }, decode: { qLen: 1, kvLen: 8192 } };

/** The score of key j of n, of every query. */
const SCORES = {
  'growing maxima': (j) => j / 4,
  'growing by 8 a key': (j) => 8 * j,
  'falling maxima': (j) => -j / 4,
  'one huge late score': (j, n) => (j === n - 2 ? 300 : 0),
  'all equal': () => 2,
  'of ±1e4': (j) => (j % 2 === 0 ? 1e4 : -1e4),
  'subnormal weights': (j) => (j % 64 === 0 ? 0 : -88 - (j % 16)),
};

export default async function run(filters) {
  printMissing();
  const plan = await planVariants(filters);
  for (const [name, work] of Object.entries(WORK)) {
    const columns = new Map();
    await withEachIsa([...plan.keys()], (isa) => {
      for (const variant of plan.get(isa)) {
        for (const [input, ratio] of Object.entries(ratiosOf({ ...SHAPES.minimind, ...work }, variant))) {
          if (!columns.has(input)) columns.set(input, []);
          columns.get(input).push({ path: `${isa} ${formatVariant(variant)}`, ratio });
        }
      }
    });
    const rows = [...columns].map(([input, found]) => {
      const worst = found.reduce((a, b) => (b.ratio > a.ratio ? b : a));
      const typical = found.map(({ ratio }) => ratio).sort((a, b) => a - b)[found.length >> 1];
      return [
        input,
        formatNumber(typical),
        formatNumber(worst.ratio),
        worst.path,
        `<= ${LIMIT} ${worst.ratio <= LIMIT ? 'ok' : 'HIGH'}`,
      ];
    });
    const title = `Time against random inputs, ${name} ${formatHeads(SHAPES.minimind)}, ${work.kvLen} keys, one thread`;
    print(title, ['inputs', 'median of paths', 'worst', 'path', ''], rows, 1);
  }
}

/** { input: times the duration of random inputs }. */
function ratiosOf(shape, { dtype, precision }) {
  const { numHeads, numKvHeads, headDim, qLen, kvLen } = shape;
  const make = () => ({
    q: randomTensor([1, numHeads, qLen, headDim], 1, dtype),
    k: randomTensor([1, numKvHeads, kvLen, headDim], 2, dtype),
    v: randomTensor([1, numKvHeads, kvLen, headDim], 3, dtype),
    scale: undefined,
  });
  const inputs = { random: make(), ...subnormalInputs(make, dtype) };
  for (const [name, score] of Object.entries(SCORES)) inputs[name] = withScores(make(), score);
  const out = Tensor.empty([1, numHeads, qLen, headDim], { dtype });
  const best = {};
  for (let round = 0; round < ROUNDS; round++) {
    for (const [name, { q, k, v, scale }] of Object.entries(inputs)) {
      const start = performance.now();
      attention(q, k, v, { causal: true, precision, threads: 1, out, scale });
      const time = performance.now() - start;
      if (!(best[name] <= time)) best[name] = time;
    }
  }
  const { random, ...rest } = best;
  return Object.fromEntries(Object.entries(rest).map(([name, time]) => [name, time / random]));
}

function subnormalInputs(make, dtype) {
  const tiny = dtype === 'float16' ? 2 ** -16 : 2 ** -128;
  const scaled = (x) =>
    new Tensor(
      x.toFloat32Array().map((y) => y * tiny),
      x.shape,
    ).to(dtype);
  return Object.fromEntries(
    ['q', 'k', 'v'].map((tensor) => {
      const inputs = make();
      return [`subnormal ${tensor}`, { ...inputs, [tensor]: scaled(inputs[tensor]) }];
    }),
  );
}

/** q becomes (1, 0, 0, …), so that the score of a key, unscaled, is its first channel. */
function withScores({ q, k, v }, score) {
  const headDim = q.shape[3];
  const first = (x, value) =>
    new Tensor(
      Float32Array.from({ length: x.size }, (_, i) => (i % headDim === 0 ? value(i / headDim) : 0)),
      x.shape,
    ).to(x.dtype);
  const n = k.shape[2];
  return { q: first(q, () => 1), k: first(k, (row) => score(row % n, n)), v, scale: 1 };
}
