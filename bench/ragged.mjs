// Ragged batches: one call over sequences of mixed lengths against a call for each of them. No work is done for padding, so
// the batch may take no longer than its parts together.
import { median } from '../dist/cli/measure.js';
import { randomTensor } from '../dist/cli/random-tensor.js';
import { formatNumber } from '../dist/cli/table.js';
import { attention, KVCache, Tensor } from '../dist/index.js';
import { clockOf, print, threadCounts } from './machine.mjs';

const SAMPLES = 15;
/** Of the sum of the parts, at most. */
const TARGET = 1.1;
const shape = { numHeads: 32, numKvHeads: 8, headDim: 128 };
const PREFILL = [700, 17, 256, 1024, 33, 512, 1, 130];
const DECODE = [8192, 100, 2048, 17, 4096, 700, 1, 1024];

export default function run() {
  const rows = [];
  for (const dtype of ['bfloat16', 'float32']) {
    const cases = [
      ['attention, prefill', packed(dtype, PREFILL, PREFILL)],
      [
        'attention, decode',
        packed(
          dtype,
          DECODE.map(() => 1),
          DECODE,
        ),
      ],
      ['KVCache.step', caches(dtype, DECODE)],
    ];
    for (const [name, ways] of cases) {
      for (const threads of threadCounts) rows.push([name, dtype, `${threads}`, ...measure(ways, threads)]);
      ways.dispose?.();
    }
  }
  print(
    `${DECODE.length} sequences of mixed lengths, 32/8/128`,
    ['call', 'dtype', 'threads', 'parts ms', 'batch ms', 'batch / parts', ''],
    rows,
    3,
  );
}

/** Sequences behind one another in packed tensors, and each of them as a view. */
function packed(dtype, qLens, kvLens) {
  const { numHeads, numKvHeads, headDim } = shape;
  const ends = (lens) =>
    Int32Array.from([0, ...lens.map((_, i) => lens.slice(0, i + 1).reduce((a, b) => a + b))]);
  const [cuSeqlensQ, cuSeqlensK] = [ends(qLens), ends(kvLens)];
  const random = (heads, tokens, seed) => randomTensor([heads, tokens, headDim], seed, dtype);
  const q = random(numHeads, cuSeqlensQ.at(-1), 1);
  const [k, v] = [2, 3].map((seed) => random(numKvHeads, cuSeqlensK.at(-1), seed));
  const of = (x, cu, b) => x.slice(1, cu[b], cu[b + 1]);
  const parts = qLens.map((_, b) => [of(q, cuSeqlensQ, b), of(k, cuSeqlensK, b), of(v, cuSeqlensK, b)]);
  return {
    batch: (threads) => attention(q, k, v, { causal: true, cuSeqlensQ, cuSeqlensK, threads }),
    parts: (threads) => parts.map((part) => attention(...part, { causal: true, threads })),
    rewind: () => {},
  };
}

/** `count` entries, all of them x [1, ...]. */
function repeated(x, count) {
  const strides = [0, ...x.strides.slice(1)];
  return new Tensor(x.data, [count, ...x.shape.slice(1)], { dtype: x.dtype, strides });
}

/** A cache whose entries differ in length, and as many caches of one entry. */
function caches(dtype, lengths) {
  const { numHeads, numKvHeads, headDim } = shape;
  const random = (n, heads, tokens, seed) => randomTensor([n, heads, tokens, headDim], seed, dtype);
  const layout = { numKvHeads, headDim, dtype };
  const entry = (x, b) => x.slice(0, b, b + 1);
  // One append each: memory that comes in pieces is in small pages for a while.
  const [keys, values] = [1, 2].map((seed) =>
    repeated(random(1, numKvHeads, Math.max(...lengths), seed), lengths.length),
  );
  const all = new KVCache({ ...layout, batch: lengths.length }).append(keys, values, { lengths });
  const each = lengths.map((length, b) =>
    new KVCache(layout).append(...[keys, values].map((x) => entry(x, b).slice(2, 0, length))),
  );
  const [q, k, v] = [numHeads, numKvHeads, numKvHeads].map((heads, i) =>
    random(lengths.length, heads, 1, i + 5),
  );
  const parts = lengths.map((_, b) => [q, k, v].map((x) => entry(x, b)));
  return {
    batch: (threads) => all.step(q, k, v, { threads }),
    parts: (threads) => parts.map((part, b) => each[b].step(...part, { threads })),
    rewind: () => {
      all.truncate([...lengths]);
      for (const [b, cache] of each.entries()) cache.truncate(lengths[b]);
    },
    dispose: () => {
      for (const cache of [all, ...each]) cache.dispose();
    },
  };
}

/** Pairs of samples. */
function measure({ batch, parts, rewind }, threads) {
  const now = clockOf(threads);
  const times = [[], []];
  for (let i = 0; i < SAMPLES + 2; i++) {
    [parts, batch].forEach((way, which) => {
      const from = now();
      way(threads);
      if (i >= 2) times[which].push(now() - from);
      rewind();
    });
  }
  const ratio = median(times[1].map((ms, i) => ms / times[0][i]));
  const cells = times.map((each) => formatNumber(median(each)));
  return [...cells, `${Math.round(100 * ratio)}%`, ratio <= TARGET ? 'ok' : 'HIGH'];
}
