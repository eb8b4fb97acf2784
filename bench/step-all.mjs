// Many sequences over one prompt: KVCache.stepAll, which reads the shared prefix once, against a step of each cache. The
// arithmetic is the same, so the gain is bounded by how much faster this machine multiplies than it reads.
import { median } from '../dist/cli/measure.js';
import { randomTensor } from '../dist/cli/random-tensor.js';
import { formatNumber } from '../dist/cli/table.js';
import { attention, KVCache } from '../dist/index.js';
import { addon, clockOf, print, threadCounts, verdict } from './machine.mjs';

const CACHES = 32;
const PREFIX = 8192;
const TAIL = 64;
const PIECE = 1024;
const SAMPLES = 7;
/** Times faster than separate steps. */
const TARGET = 4;
const SHAPES = [
  { numHeads: 32, numKvHeads: 8, headDim: 128 },
  { numHeads: 32, numKvHeads: 32, headDim: 128 },
  { numHeads: 8, numKvHeads: 2, headDim: 64 },
];

export default function run() {
  const rows = [];
  for (const shape of SHAPES) {
    for (const dtype of ['bfloat16', 'float16', 'float32']) {
      const family = makeFamily(shape, dtype);
      for (const threads of threadCounts) rows.push(measure(family, threads));
      for (const cache of family.caches) cache.dispose();
    }
  }
  const head = [
    'heads',
    'dtype',
    'threads',
    'separate ms',
    'stepAll ms',
    'GFLOP/s',
    'of FMA peak',
    'faster',
    '',
  ];
  print(`${CACHES} forks of a prefix of ${PREFIX} tokens, each with ${TAIL} of its own`, head, rows, 2);
}

function makeFamily(shape, dtype) {
  const { numHeads, numKvHeads, headDim } = shape;
  const random = (n, heads, tokens, seed) => randomTensor([n, heads, tokens, headDim], seed, dtype);
  const root = new KVCache({ numKvHeads, headDim, dtype });
  for (let length = 0; length < PREFIX; length += PIECE)
    root.append(random(1, numKvHeads, PIECE, length + 1), random(1, numKvHeads, PIECE, length + 2));
  const caches = Array.from({ length: CACHES }, (_, n) =>
    root.fork().append(random(1, numKvHeads, TAIL, 2 * n + 1), random(1, numKvHeads, TAIL, 2 * n + 2)),
  );
  root.dispose();
  const [q, k, v] = [numHeads, numKvHeads, numKvHeads].map((heads, i) => random(CACHES, heads, 1, i + 7));
  const entries = caches.map((_, n) => [q, k, v].map((x) => x.slice(0, n, n + 1)));
  return { shape, dtype, caches, q, k, v, entries };
}

/** Pairs of samples, one way after the other; the caches are as long as before when the next one begins. */
function measure({ shape, dtype, caches, q, k, v, entries }, threads) {
  const ways = [
    () => entries.map((entry, n) => caches[n].step(...entry, { threads })),
    () => KVCache.stepAll(caches, q, k, v, { threads }),
  ];
  const rewind = () => {
    for (const cache of caches) cache.truncate(PREFIX + TAIL);
  };
  verify(ways[1](), entries, caches);
  rewind();
  const now = clockOf(threads);
  const times = [[], []];
  const peaks = [];
  for (let i = 0; i < SAMPLES; i++) {
    ways.forEach((step, way) => {
      const from = now();
      step();
      times[way].push((now() - from) / 1e3);
      rewind();
    });
    peaks.push(fmaPeak(threads, now));
  }
  const [separate, together] = times.map(median);
  const faster = median(times[0].map((seconds, i) => seconds / times[1][i]));
  const { numHeads, numKvHeads, headDim } = shape;
  const flops = 4 * CACHES * (PREFIX + TAIL + 1) * numHeads * headDim;
  const share = flops / together / median(peaks);
  const cells = [
    formatNumber(1e3 * separate),
    formatNumber(1e3 * together),
    formatNumber(flops / together / 1e9),
  ];
  const target = shape === SHAPES[0] ? TARGET : undefined;
  const times_ = (x) => `${x.toFixed(1)}x`;
  return [
    `${numHeads}/${numKvHeads}/${headDim}`,
    dtype,
    `${threads}`,
    ...cells,
    `${Math.round(100 * share)}%`,
    times_(faster),
    verdict(faster, target, times_),
  ];
}

function fmaPeak(threads, now) {
  const from = now();
  return addon.fmaProbe(2e6, threads) / ((now() - from) / 1e3);
}

/** That the last cache got what attention over its tokens gives. */
function verify(out, entries, caches) {
  const n = CACHES - 1;
  const want = attention(entries[n][0], caches[n].keys(), caches[n].values()).toFloat32Array();
  const got = out.slice(0, n, n + 1).toFloat32Array();
  const worst = got.reduce((max, x, i) => Math.max(max, Math.abs(x - want[i])), 0);
  if (!(worst < 2e-3)) throw new Error(`stepAll differs by ${worst}`);
}
