// Forks: decode on one beside decode on a plain cache of the same tokens, in pairs and cold; and the memory of many.
import { coldBytes } from '../dist/cli/ceilings.js';
import { median } from '../dist/cli/measure.js';
import { randomTensor } from '../dist/cli/random-tensor.js';
import { formatNumber } from '../dist/cli/table.js';
import { KVCache, memoryInfo, Tensor } from '../dist/index.js';
import { print, threadCounts } from './machine.mjs';

const SAMPLES = 25;
const PREFIX = 8192;
/** Of its own: they lie in other memory than the prefix. */
const TAIL = 100;
/** Of the time on a plain cache, at most. */
const TARGET = 1.05;
const shape = { numHeads: 32, numKvHeads: 8, headDim: 128 };
const MANY = 64;
const LONG_PREFIX = 32768;

export default function run() {
  const rows = [];
  for (const dtype of ['float32', 'bfloat16', 'int8']) {
    const pairs = makePairs(dtype);
    for (const threads of threadCounts) rows.push(measure(pairs, dtype, threads));
    for (const cache of pairs.flat()) cache.dispose();
  }
  const head = ['dtype', 'threads', 'plain ms', 'fork ms', 'fork / plain', 'by least', ''];
  print(`Decode of a fork at ${PREFIX} + ${TAIL} keys, 32/8/128, cold`, head, rows, 2);
  print(
    `${MANY} forks of ${LONG_PREFIX} tokens, 32/8/128, bfloat16`,
    ['', 'MiB'],
    memoryRows().map(([name, bytes]) => [name, (bytes / 2 ** 20).toFixed(1)]),
    1,
  );
}

const random = (heads, tokens, seed) => randomTensor([1, heads, tokens, shape.headDim], seed);
const rowsOf = (tokens, seed) => [seed, seed + 1].map((each) => random(shape.numKvHeads, tokens, each));

/** [plain, fork] of the same tokens; so many that the first is cold again when the last was read. */
function makePairs(dtype) {
  const { numKvHeads, headDim } = shape;
  const [prefix, tail, other] = [rowsOf(PREFIX, 1), rowsOf(TAIL, 3), rowsOf(1, 5)];
  const elementBytes = { float32: 4, bfloat16: 2, int8: 1 }[dtype];
  const count = Math.ceil(coldBytes() / (4 * PREFIX * numKvHeads * headDim * elementBytes)) + 1;
  const make = () => new KVCache({ numKvHeads, headDim, dtype }).append(...prefix);
  return Array.from({ length: count }, () => {
    const root = make();
    const fork = root.fork();
    root.append(...other); // The first to go on does so in place.
    fork.append(...tail);
    root.dispose();
    return [make().append(...tail), fork];
  });
}

/** One thread is timed by its own clock, which runs only while it does; more of them by the wall's. */
function measure(pairs, dtype, threads) {
  const q = randomTensor([1, shape.numHeads, 1, shape.headDim], 7, dtype === 'int8' ? 'bfloat16' : dtype);
  const out = Tensor.empty(q.shape, { dtype: q.dtype });
  const now = threads === 1 ? cpuMilliseconds : () => performance.now();
  const times = [[], []];
  for (let i = -2; i < SAMPLES; i++) {
    const pair = pairs[(i + 2) % pairs.length];
    const order = i % 2 === 0 ? [0, 1] : [1, 0];
    for (const which of order) {
      const from = now();
      pair[which].attend(q, { out, threads });
      if (i >= 0) times[which].push(now() - from);
    }
  }
  const ratio = median(times[1].map((ms, i) => ms / times[0][i]));
  const [plain, fork] = times.map((each) => Math.min(...each));
  const cells = times.map((each) => formatNumber(median(each)));
  const mark = `<= ${TARGET} ${ratio <= TARGET ? 'ok' : 'HIGH'}`;
  return [dtype, `${threads}`, ...cells, ratio.toFixed(2), (fork / plain).toFixed(2), mark];
}

function cpuMilliseconds() {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1e3;
}

function memoryRows() {
  const { numKvHeads, headDim } = shape;
  const before = memoryInfo().bytes;
  const held = (name) => [name, memoryInfo().bytes - before];
  const root = new KVCache({ numKvHeads, headDim, dtype: 'bfloat16' }).append(...rowsOf(LONG_PREFIX, 1));
  const rows = [held('the prefix')];
  const forks = Array.from({ length: MANY }, () => root.fork());
  rows.push(held('with the forks'));
  const tail = rowsOf(TAIL, 3);
  for (const fork of forks) fork.append(...tail);
  rows.push(held(`with ${TAIL} tokens in each`));
  for (const cache of [root, ...forks]) cache.dispose();
  rows.push(held('disposed'));
  return rows;
}
