// An hour's worth of work in minutes: everything that takes memory, threads or handles, on the paths that end well and on
// those that end in an error, over and over. Fails where memory grows once warm, or where something is left at the end.
//   node --expose-gc scripts/soak/leaks.mjs --minutes 5 --slack 0.02
import { strict as assert } from 'node:assert';
import { open, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { Worker } from 'node:worker_threads';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '5' },
    slack: { type: 'string', default: '0.02' }, // by how much memory may grow once warm
    json: { type: 'boolean', default: false },
  },
});
const url = new URL('../../dist/index.js', import.meta.url).href;
const sdpa = await import(url);
const { KVCache, Tensor, attention, attentionAsync } = sdpa;
const gc = globalThis.gc ?? assert.fail('run with --expose-gc');

const make = (heads, length, seed, dtype = 'float32') =>
  Tensor.randn([1, heads, length, 32], { seed, dtype });
const dtypes = ['float32', 'float16', 'bfloat16', 'int8'];
const layout = { numKvHeads: 2, headDim: 32 };
const counts = { cycles: 0, calls: 0, caches: 0, errors: 0, aborts: 0, workers: 0, files: 0 };
const file = join(tmpdir(), `node-sdpa-soak-${process.pid}`);

const [q, k, v] = [make(4, 300, 1), make(2, 300, 2), make(2, 300, 3)];
const [long, token, tokenQ] = [make(4, 1200, 4), make(2, 1, 5), make(4, 1, 6)];
const signalAfter = (ms) => AbortSignal.timeout(ms);

function newCache(options = {}) {
  counts.caches++;
  return new KVCache({ ...layout, ...options });
}

/** That `work` ends in an error of this class. */
async function fails(name, work) {
  counts.errors++;
  try {
    await work();
  } catch (error) {
    if (error.name === name) return;
    throw error;
  }
  assert.fail(`no ${name} from ${work}`);
}

const activities = {
  attention() {
    counts.calls += 4;
    attention(q, k, v, { causal: true });
    attention(q.slice(2, 0, 1), k, v, { returnLse: true, softcap: 5, sinks: [1, 2, 3, 4] });
    attention(q.to('bfloat16'), k.to('bfloat16'), v.to('bfloat16'));
    sdpa.attentionStats(q, k, v, { causal: true, massWindow: { left: 10 } });
  },

  async async() {
    counts.calls += 8;
    await Promise.all(Array.from({ length: 8 }, () => attentionAsync(q, k, v, { causal: true })));
  },

  caches() {
    for (const dtype of dtypes) {
      const cache = newCache({ dtype, batch: 1 }).append(k, v);
      for (let t = 0; t < 10; t++) cache.step(tokenQ, token, token);
      cache.append(k.slice(2, 0, 9), v.slice(2, 0, 9)).keep([0, 2, 1]);
      cache.truncate(100);
      counts.calls += 10;
      if (dtype === 'float16') continue; // left to the collector
      cache.dispose();
    }
    const windowed = newCache({ window: 64, sinkTokens: 4 }).append(k, v);
    for (let t = 0; t < 40; t++) windowed.step(tokenQ, token, token);
    windowed.dispose();
  },

  forks() {
    const root = newCache().append(k, v);
    const caches = [root, ...Array.from({ length: 7 }, () => root.fork())];
    counts.caches += 7;
    const repeat = (x) =>
      new Tensor(
        Float32Array.from({ length: 8 * x.size }, (_, n) => x.data[n % x.size]),
        [8, ...x.shape.slice(1)],
      );
    for (let t = 0; t < 5; t++) KVCache.stepAll(caches, repeat(tokenQ), repeat(token), repeat(token));
    counts.calls += 5;
    for (const cache of caches.slice(2)) cache.dispose(); // two are dropped
  },

  async asyncCaches() {
    const cache = newCache().append(k, v);
    await cache.attendAsync(q);
    for (let t = 0; t < 5; t++) await cache.stepAsync(tokenQ, token, token);
    const dropped = newCache().append(k, v);
    void dropped.attendAsync(q); // its cache may go first
    counts.calls += 7;
    cache.dispose();
  },

  async files() {
    const cache = newCache({ dtype: 'int8' }).append(k, v);
    const copy = KVCache.load(cache.save());
    const handle = await open(file, 'w+');
    try {
      await copy.saveTo(handle);
    } finally {
      await handle.close();
    }
    const again = await open(file);
    try {
      (await KVCache.loadFrom(again)).dispose();
    } finally {
      await again.close();
    }
    const cut = await open(file, 'r+');
    try {
      await cut.truncate(9000);
      await fails('OptionError', () => KVCache.loadFrom(cut));
    } finally {
      await cut.close();
    }
    counts.files++;
    counts.caches += 2;
    const bytes = cache.save();
    bytes[bytes.length - 1] ^= 1;
    await fails('OptionError', () => KVCache.load(bytes));
    await fails('OptionError', () => KVCache.load(bytes.subarray(0, bytes.length / 2)));
    copy.dispose();
    cache.dispose();
  },

  async aborts() {
    for (const ms of [0, 1, 2, 4]) {
      counts.aborts += 2;
      const cache = newCache().append(long.slice(1, 0, 2), long.slice(1, 0, 2));
      const calls = [
        attentionAsync(long, long, long, { signal: signalAfter(ms) }),
        cache.attendAsync(long, { signal: signalAfter(ms) }),
      ];
      await Promise.allSettled(calls);
      cache.dispose();
    }
    await fails('AbortError', () => attentionAsync(q, k, v, { signal: AbortSignal.abort() }));
  },

  async errors() {
    const cache = newCache({ maxLength: 310 }).append(k, v);
    await fails('ShapeError', () => attention(q, k.slice(2, 0, 9), v));
    await fails('DTypeError', () => attention(q, k.to('float16'), v));
    await fails('OptionError', () => attention(q, k, v, { casual: true }));
    await fails('ShapeError', () =>
      attentionAsync(q, k, v, { mask: Tensor.zeros([7, 7], { dtype: 'bool' }) }),
    );
    await fails('CapacityError', () => cache.append(k, v));
    await fails('CapacityError', () => cache.step(q, k, v));
    await fails('ShapeError', () => cache.step(q, token, token.slice(3, 0, 5)));
    await fails('CapacityError', () => newCache({ maxLength: 2 ** 45 }));
    const held = cache.attendAsync(q);
    await fails('OptionError', () => cache.append(token, token));
    await held;
    const nan = Tensor.full([1, 2, 1, 32], NaN);
    const whole = newCache({ dtype: 'int8' }).append(k, v);
    await fails('OptionError', () => whole.append(nan, nan));
    await fails('OptionError', () => whole.step(tokenQ, nan, nan));
    await fails('CapacityError', () => KVCache.stepAll([cache], q, k, v));
    whole.dispose();
    cache.dispose();
    await fails('DisposedError', () => cache.attend(q));
    await fails('DisposedError', () => cache.fork());
  },

  async workers() {
    const body = `
      import(${JSON.stringify(url)}).then(async ({ KVCache, Tensor, attentionAsync }) => {
        const x = Tensor.randn([1, 2, 300, 32], { seed: 1 });
        const cache = new KVCache({ numKvHeads: 2, headDim: 32 }).append(x, x);
        const later = [attentionAsync(x, x, x), cache.attendAsync(x)];
        require('node:worker_threads').parentPort.postMessage('busy');
        await Promise.all(later);
      });`;
    for (const end of ['leave', 'terminate']) {
      counts.workers++;
      const worker = new Worker(body, { eval: true, execArgv: [] });
      if (end === 'terminate') worker.once('message', () => worker.terminate());
      await new Promise((resolve, reject) => worker.on('exit', resolve).on('error', reject));
    }
  },
};

const turn = () => new Promise(setImmediate);
async function collect() {
  for (let n = 0; n < 4; n++) {
    gc();
    await turn();
  }
}
const median = (numbers) => numbers.slice().sort()[numbers.length >> 1];
/** Of a series: by how much the median of its last third passes that of its first. */
const growth = (series) => {
  const third = Math.max(1, Math.floor(series.length / 3));
  return median(series.slice(-third)) / median(series.slice(0, third)) - 1;
};

const until = performance.now() + Number(values.minutes) * 60_000;
const NAMES = ['rss', 'heapUsed', 'external'];
// Room for them at once, so that what is measured does not grow by being measured.
const samples = NAMES.map(() => new Float64Array(100_000));
let taken = 0;
while ((performance.now() < until && taken < 100_000) || taken < 12) {
  for (const activity of Object.values(activities)) await activity();
  counts.cycles++;
  await collect();
  const memory = process.memoryUsage();
  for (const [n, name] of NAMES.entries()) samples[n][taken] = memory[name];
  taken++;
}
await rm(file, { force: true });
await collect();

// The first half warms up: V8's heap still grows by a KiB a round after a hundred rounds, which levels off.
const warm = samples.map((series) => series.subarray(Math.ceil(taken / 2), taken));
const grown = Object.fromEntries(NAMES.map((name, n) => [name, growth(warm[n])]));
const [rss, heapUsed] = warm.map((series) => series.at(-1));
const { caches, bytes } = sdpa.memoryInfo();
const resources = process.getActiveResourcesInfo().filter((name) => !/^(TTYWrap|PipeWrap)$/.test(name));
const report = {
  counts,
  rssMiB: rss / 2 ** 20,
  heapMiB: heapUsed / 2 ** 20,
  grown,
  caches,
  bytes,
  resources,
};
const faults = [
  ...Object.entries(grown)
    .filter(([, share]) => share > Number(values.slack))
    .map(([name, share]) => `${name} grew by ${(100 * share).toFixed(1)}%`),
  ...(caches > 0 || bytes > 0 ? [`${caches} caches of ${bytes} bytes are left`] : []),
  ...(resources.length > 0 ? [`left: ${resources.join(', ')}`] : []),
];
console.log(values.json ? JSON.stringify({ ...report, faults }) : report);
for (const fault of faults) console.error(`leaks: ${fault}`);
if (!values.json) console.log(`leaks: ${faults.length === 0 ? 'ok' : 'failed'}`);
process.exitCode = faults.length === 0 ? 0 : 1;
