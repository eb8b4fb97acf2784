// The pool when there are not enough cores: beside other processes, below many async calls, below many worker_threads, and
// with more threads than cores. Everything is compared with its neighbour in time, in one process.
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
import { median, timeOf } from '../dist/cli/measure.js';
import { prepare } from '../dist/cli/prepare.js';
import { randomTensor } from '../dist/cli/random-tensor.js';
import { formatNumber, formatShare } from '../dist/cli/table.js';
import { formatHeads, prefillCases, SHAPES } from '../dist/cli/workloads.js';
import { attentionAsync, getNumThreads, setNumThreads, Tensor } from '../dist/index.js';
import { print } from './machine.mjs';
import { idleShare, withNeighbours } from './neighbours.mjs';

const CORES = availableParallelism();
const ROUNDS = 6;
const BLOCK_MS = 200;
const ASYNC_ROUNDS = 15;
const WORKER_ROUNDS = 3;
/** Of the median of a decode step beside others, against the serial kernel beside others. */
const BUSY_TARGET = 1.1;

const decode = (shape, context) => ({
  phase: 'decode',
  shape,
  context,
  causal: true,
  window: Infinity,
  dtype: 'float32',
});
const shortPrefill = prefillCases.find(({ shape }) => shape === SHAPES.minimind);
const nameOf = ({ phase, shape, context }) => `${phase} ${formatHeads(shape)} ${context}`;

export default async function run() {
  console.log(`\nOf the cores' time, ${formatShare(await idleShare())} was idle before.`);
  await steps();
  await asyncCalls();
  await workerThreads();
  await oversubscribed();
}

/** Runs each of `contestants` for a while, in turn, again and again: times in ms of each. */
async function inTurn(contestants) {
  const times = contestants.map(() => []);
  for (let round = 0; round < ROUNDS; round++) {
    for (const [i, contestant] of contestants.entries()) {
      const end = performance.now() + BLOCK_MS;
      for (let n = 0; n < 3 || performance.now() < end; n++) times[i].push(1000 * (await timeOf(contestant)));
    }
  }
  return times;
}

function percentile(values, share) {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))];
}

const mean = (values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Decode steps on two threads against one, on the machine as it is and beside as many spinning processes as cores. */
async function steps() {
  const workloads = [decode(SHAPES.llama, 8192), decode(SHAPES.minimind, 4096), decode(SHAPES.minimind, 256)];
  const rows = [];
  for (const workload of workloads) {
    const [serial, parallel] = [1, 2].map((threads) => prepare(workload, { threads }));
    await parallel.check();
    const compare = async (condition) => {
      const [one, two] = await inTurn([serial, parallel]);
      const ratio = median(two) / median(one);
      const cells = [one, two].flatMap((times) => [
        formatNumber(median(times)),
        formatNumber(percentile(times, 0.99)),
        formatNumber(mean(times)),
      ]);
      const isBusy = condition !== 'alone';
      const verdict = isBusy ? `<= ${BUSY_TARGET} ${ratio <= BUSY_TARGET ? 'ok' : 'HIGH'}` : '';
      rows.push([
        nameOf(workload),
        condition,
        ...cells,
        ratio.toFixed(2),
        (mean(two) / mean(one)).toFixed(2),
        verdict,
      ]);
    };
    await compare('alone');
    await withNeighbours(CORES, () => compare(`${CORES} others`));
    for (const prepared of [serial, parallel]) prepared.dispose();
  }
  const numbers = ['median', 'p99', 'mean'];
  const head = [
    'step',
    'beside',
    ...numbers.map((name) => `1t ${name}`),
    ...numbers.map((name) => `2t ${name}`),
  ];
  print('A step on 2 threads against 1, ms', [...head, 'medians', 'means', ''], rows, 2);
}

/** So many attentionAsync calls at once against the same calls one after the other. */
async function asyncCalls() {
  const rows = [];
  for (const workload of [shortPrefill, decode(SHAPES.llama, 2048)]) {
    for (const calls of [2, 4, 16]) {
      const inputs = Array.from({ length: calls }, (_, call) => asyncInputs(workload, call));
      const start = ({ q, k, v, out }) => attentionAsync(q, k, v, { causal: true, out });
      const measure = async () => {
        const [queued, concurrent] = [[], []];
        for (let round = 0; round < ASYNC_ROUNDS; round++) {
          let begin = performance.now();
          for (const input of inputs) await start(input);
          queued.push(performance.now() - begin);
          begin = performance.now();
          await Promise.all(inputs.map(start));
          concurrent.push(performance.now() - begin);
        }
        return median(queued) / median(concurrent);
      };
      const alone = await measure();
      const busy = await withNeighbours(CORES, measure);
      rows.push([nameOf(workload), String(calls), alone.toFixed(2), busy.toFixed(2)]);
    }
  }
  print(
    'Throughput of async calls at once over one after the other',
    ['each', 'calls', 'alone', `${CORES} others`],
    rows,
  );
}

function asyncInputs({ phase, shape, context }, seed) {
  const { numHeads, numKvHeads, headDim } = shape;
  const qLen = phase === 'decode' ? 1 : context;
  return {
    q: randomTensor([1, numHeads, qLen, headDim], 3 * seed),
    k: randomTensor([1, numKvHeads, context, headDim], 3 * seed + 1),
    v: randomTensor([1, numKvHeads, context, headDim], 3 * seed + 2),
    out: Tensor.empty([1, numHeads, qLen, headDim]),
  };
}

/** Sync steps in several worker_threads: runs a second of all together, where each may use the pool or only itself. */
async function workerThreads() {
  const rows = [];
  for (const workload of [decode(SHAPES.minimind, 4096), decode(SHAPES.minimind, 256), shortPrefill]) {
    let alone = null;
    for (const workers of [1, 4, 8]) {
      const [own, pooled] = [[], []];
      for (let round = 0; round < WORKER_ROUNDS; round++) {
        own.push(await aggregateRate(workload, workers, 1));
        pooled.push(await aggregateRate(workload, workers, undefined));
      }
      alone ??= median(pooled);
      const ratios = [median(pooled) / median(own), median(pooled) / alone].map((ratio) => ratio.toFixed(2));
      rows.push([
        nameOf(workload),
        String(workers),
        formatNumber(median(own)),
        formatNumber(median(pooled)),
        ...ratios,
      ]);
    }
  }
  const head = ['each', 'workers', 'threads: 1, runs/s', 'default, runs/s', 'of threads: 1', 'of 1 worker'];
  print('Runs a second of all worker_threads together', head, rows);
}

async function aggregateRate(workload, numWorkers, threads) {
  const shared = (length) => new Int32Array(new SharedArrayBuffer(4 * length));
  const [counts, ready, stop] = [shared(numWorkers), shared(1), shared(1)];
  const workers = Array.from({ length: numWorkers }, (_, index) => {
    const workerData = { workload, threads, index, counts, ready, stop };
    return new Worker(new URL('./contention-worker.mjs', import.meta.url), { workerData });
  });
  const ended = Promise.all(workers.map((worker) => new Promise((resolve) => worker.on('exit', resolve))));
  for (let seen = 0; seen < numWorkers; seen = Atomics.load(ready, 0))
    await Atomics.waitAsync(ready, 0, seen).value;
  const total = () => counts.reduce((sum, _, index) => sum + Atomics.load(counts, index), 0);
  const [before, begin] = [total(), performance.now()];
  await new Promise((resolve) => setTimeout(resolve, 300));
  const rate = (1000 * (total() - before)) / (performance.now() - begin);
  Atomics.store(stop, 0, 1);
  await ended;
  return rate;
}

/** Four threads for each core against one for each core. */
async function oversubscribed() {
  const before = getNumThreads();
  const rows = [];
  setNumThreads(4 * CORES);
  const workloads = [
    decode(SHAPES.llama, 8192),
    decode(SHAPES.minimind, 4096),
    prefillCases.at(-1),
    prefillCases[0],
  ];
  for (const workload of workloads) {
    const contestants = [CORES, 4 * CORES].map((threads) => prepare(workload, { threads }));
    const cells = async () => {
      const [fair, many] = await inTurn(contestants);
      return [
        formatNumber(median(fair)),
        formatNumber(median(many)),
        (median(many) / median(fair)).toFixed(2),
      ];
    };
    rows.push([nameOf(workload), 'nobody', ...(await cells())]);
    rows.push([nameOf(workload), `${CORES} others`, ...(await withNeighbours(CORES, cells))]);
    for (const prepared of contestants) prepared.dispose();
  }
  setNumThreads(before);
  const head = ['work', 'beside', `${CORES} threads, ms`, `${4 * CORES} threads, ms`, 'ratio'];
  print('More threads than cores', head, rows, 2);
}
