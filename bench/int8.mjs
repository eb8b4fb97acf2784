// Decode of an int8 cache beside one of bfloat16, cold, in pairs; and what the numbers lose: the error of out for caches of
// either dtype against the float64 oracle over the numbers that were appended.
import { coldBytes } from '../dist/cli/ceilings.js';
import { median } from '../dist/cli/measure.js';
import { randomTensor } from '../dist/cli/random-tensor.js';
import { formatNumber } from '../dist/cli/table.js';
import { KVCache, referenceAttention, Tensor } from '../dist/index.js';
import { print, threadCounts, verdict } from './machine.mjs';

const SAMPLES = 15;
/** Times faster than bfloat16. */
const TARGET = 1.25;
const shape = { numKvHeads: 8, headDim: 128 };
const CONTEXTS = [8192, 32768];
/** Heads and dtype of q: the more heads to a KV head, the more arithmetic for each byte. */
const QUERIES = [
  [32, 'bfloat16'],
  [32, 'float32'],
  [16, 'bfloat16'],
  [8, 'bfloat16'],
];
const DTYPES = ['bfloat16', 'int8'];
const times_ = (x) => `${x.toFixed(2)}x`;

export default function run() {
  const rows = [];
  for (const context of CONTEXTS) {
    const sets = DTYPES.map((dtype) => makeCaches(dtype, context));
    for (const [numHeads, dtype] of QUERIES)
      for (const threads of threadCounts) rows.push(runPairs(sets, context, numHeads, dtype, threads));
    for (const cache of sets.flat()) cache.dispose();
  }
  const head = [
    'heads',
    'q',
    'keys',
    'threads',
    'bfloat16 ms',
    'int8 ms',
    'least ms',
    'least ms',
    'by medians',
    'by least',
    '',
  ];
  print('Decode of an int8 cache beside a bfloat16 cache, cold', head, rows, 3);
  print(
    'Relative Frobenius error of out, 4096 keys, q float32',
    ['inputs', 'int8', 'bfloat16'],
    errorRows(),
    1,
  );
}

/** As many caches as it takes that the first is cold again when the last was read. */
function makeCaches(dtype, context) {
  const { numKvHeads, headDim } = shape;
  const rows = [1, 2].map((seed) => randomTensor([1, numKvHeads, context, headDim], seed));
  const bytes = 2 * numKvHeads * context * headDim * (dtype === 'int8' ? 1 : 2);
  return Array.from({ length: Math.ceil(coldBytes() / bytes) }, () =>
    new KVCache({ numKvHeads, headDim, dtype, maxLength: context }).append(...rows),
  );
}

/** One thread is timed by its own clock, which runs only while it does; more of them by the wall's. */
function runPairs(sets, context, numHeads, dtype, threads) {
  const { numKvHeads, headDim } = shape;
  const q = randomTensor([1, numHeads, 1, headDim], 3, dtype);
  const out = Tensor.empty(q.shape, { dtype });
  const now = threads === 1 ? cpuMilliseconds : () => performance.now();
  const times = sets.map(() => []);
  for (let i = -2; i < SAMPLES; i++) {
    sets.forEach((caches, which) => {
      const cache = caches[(i + 2) % caches.length];
      const from = now();
      cache.attend(q, { out, threads });
      if (i >= 0) times[which].push(now() - from);
    });
  }
  const medians = times.map(median);
  const least = times.map((each) => Math.min(...each));
  const faster = median(times[0].map((ms, i) => ms / times[1][i]));
  const target = context === CONTEXTS.at(-1) && numHeads === 32 && dtype === 'bfloat16' ? TARGET : undefined;
  return [
    `${numHeads}/${numKvHeads}/${headDim}`,
    dtype,
    String(context),
    String(threads),
    ...[...medians, ...least].map(formatNumber),
    times_(faster),
    times_(least[0] / least[1]),
    verdict(faster, target, times_),
  ];
}

function cpuMilliseconds() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e3;
}

/** What becomes of element d of a row of k, of v. */
const CHANNEL = 5;
const same = (x) => x;
const INPUTS = [
  ['normal', same, same],
  ['a channel of k x 100', (x, d) => (d === CHANNEL ? 100 * x : x), same],
  ['a channel of k + 100', (x, d) => (d === CHANNEL ? 100 + x : x), same],
  ['a channel of v x 100', same, (x, d) => (d === CHANNEL ? 100 * x : x)],
  ['a channel of v x 100, the others', same, (x, d) => (d === CHANNEL ? 100 * x : x), (d) => d !== CHANNEL],
];

function errorRows() {
  const headDim = 128;
  const random = (heads, tokens, seed) => randomTensor([1, heads, tokens, headDim], seed);
  return INPUTS.map(([name, ofKey, ofValue, counts = () => true]) => {
    const [k, v] = [ofKey, ofValue].map((change, side) => {
      const x = random(1, 4096, side + 1);
      return new Tensor(
        x.data.map((value, i) => change(value, i % headDim)),
        x.shape,
      );
    });
    const q = random(16, 1, 3);
    const want = referenceAttention(q, k, v);
    const errors = DTYPES.map((dtype) => {
      const cache = new KVCache({ numKvHeads: 1, headDim, dtype }).append(k, v);
      const got = cache.attend(q);
      cache.dispose();
      return relativeFrobenius(got.data, want.data, (i) => counts(i % headDim));
    });
    return [name, ...errors.reverse().map((x) => x.toExponential(1))];
  });
}

function relativeFrobenius(got, want, counts) {
  let squares = 0;
  let wantSquares = 0;
  want.forEach((x, i) => {
    if (!counts(i)) return;
    squares += (got[i] - x) ** 2;
    wantSquares += x ** 2;
  });
  return Math.sqrt(squares / wantSquares);
}
