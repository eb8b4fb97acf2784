// worker_threads that come and go: 50 that only load, 200 that are terminated in the middle of sync and async work, some
// that share memory, and processes that exit in the middle. Prints a table; exits 1 where something is not whole.
//   node --expose-gc scripts/soak/workers.mjs [--workers 200] [--minutes ignored]
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { Worker } from 'node:worker_threads';
import { attention, attentionAsync, memoryInfo, Tensor } from '../../dist/index.js';

const { values } = parseArgs({
  options: { workers: { type: 'string', default: '200' }, minutes: { type: 'string' } },
});
const rows = [];
const report = (what, got, isGood) => rows.push([what, got, isGood ? 'yes' : 'NO']);
const url = new URL('../../dist/index.js', import.meta.url).href;
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const MIB = 2 ** 20;
const rss = () => {
  globalThis.gc?.();
  return process.memoryUsage.rss() / MIB;
};
const threads = () => (process.platform === 'linux' ? readdirSync('/proc/self/task').length : 0);

/** A worker that runs `body` with the library in scope. */
const startWorker = (body, workerData) =>
  new Worker(
    `const { parentPort, workerData } = require('node:worker_threads');
     import(${JSON.stringify(url)}).then(async (sdpa) => { ${body} });`,
    { eval: true, execArgv: [], workerData },
  );
const message = (worker) =>
  new Promise((resolve, reject) => worker.on('message', resolve).on('error', reject));
const ended = (worker) => new Promise((resolve) => worker.on('exit', resolve));

const x = Tensor.randn([1, 8, 700, 64], { seed: 1 });
const bytes = (t) => Buffer.from(t.data.buffer, t.data.byteOffset, t.data.byteLength);
const want = bytes(attention(x, x, x, { threads: 1 }));
const isWhole = async () =>
  bytes(attention(x, x, x)).equals(want) && bytes(await attentionAsync(x, x, x)).equals(want);
await isWhole();

for (let n = 0; n < 50; n++) await ended(startWorker('sdpa.backendInfo(); parentPort.close();'));
report('50 workers that only load', `${rss().toFixed(0)} MiB, ${threads()} threads`, await isWhole());

const busy = `
  const make = (seed) => sdpa.Tensor.randn([1, 8, 600, 64], { seed });
  const [q, k, v] = [make(1), make(2), make(3)];
  const cache = new sdpa.KVCache({ numKvHeads: 8, headDim: 64 }).append(k, v);
  parentPort.postMessage('ready');
  for (let n = 0; ; n++) {
    for (let i = 0; i < 4; i++) sdpa.attentionAsync(q, k, v).catch(() => {});
    const later = cache.attendAsync(q).catch(() => {});
    if (workerData !== 'async') sdpa.attention(q, k, v);
    if (workerData !== 'sync') await later;
  }`;
const kinds = ['sync', 'async', 'both'];
const total = Number(values.workers);
let [terminated, before, threadsBefore, slowest] = [0, 0, 0, 0];
for (let n = 0; n < total; n += 2) {
  await Promise.all(
    [0, 1].map(async (i) => {
      const worker = startWorker(busy, kinds[(n + i) % 3]);
      await message(worker);
      await sleep((n * 7 + i * 3) % 31);
      const begin = performance.now();
      await worker.terminate();
      slowest = Math.max(slowest, performance.now() - begin);
      terminated++;
    }),
  );
  if (n === Math.floor(total / 8) * 2) [before, threadsBefore] = [rss(), threads()];
}
await sleep(200);
const after = rss();
report(
  `${terminated} workers terminated in the middle of work`,
  `the slowest took ${slowest.toFixed(0)} ms`,
  terminated >= total,
);
report(
  'memory: after a quarter of them, after all',
  `${before.toFixed(0)} MiB, ${after.toFixed(0)} MiB`,
  after < 1.1 * before + 16,
);
report('threads: likewise', `${threadsBefore}, ${threads()}`, threads() <= threadsBefore);
report('caches left', JSON.stringify(memoryInfo()), memoryInfo().caches === 0 && memoryInfo().bytes === 0);
report('the results of all threads, sync and async', 'the bits of one thread', await isWhole());

// Eight workers read the same shared memory and write a head each of the same output.
{
  const share = (t) => {
    const data = new Float32Array(new SharedArrayBuffer(t.byteLength));
    data.set(t.data);
    return data;
  };
  const [input, output] = [share(x), share(Tensor.zeros(x.shape))];
  const body = `
    const [input, output, head] = workerData;
    const of = (data) => new sdpa.Tensor(data, [1, 8, 700, 64]).slice(1, head, head + 1);
    for (let n = 0; n < 20; n++) {
      const call = n % 2 ? sdpa.attention : sdpa.attentionAsync;
      await call(of(input), of(input), of(input), { out: of(output) });
    }
    parentPort.postMessage('done');`;
  await Promise.all(
    Array.from({ length: 8 }, (_, head) => message(startWorker(body, [input, output, head]))),
  );
  report('8 workers write a head each of one output', '160 calls', Buffer.from(output.buffer).equals(want));
}

// Ends of the process in the middle of work.
const ends = {
  'process.exit(7)': 7,
  'setTimeout(() => process.exit(0), 9)': 0,
  'setTimeout(() => { throw 1 }, 7)': 1,
  '': 0,
};
for (const [end, status] of Object.entries(ends)) {
  let good = 0;
  for (let n = 0; n < 10; n++) {
    const script = `const sdpa = await import(${JSON.stringify(url)});
      const x = sdpa.Tensor.randn([1, 8, 700, 64]);
      const cache = new sdpa.KVCache({ numKvHeads: 8, headDim: 64 }).append(x, x);
      for (let n = 0; n < 12; n++) sdpa.attentionAsync(x, x, x);
      cache.attendAsync(x);
      ${end}`;
    const child = spawnSync(process.execPath, ['--input-type=module', '-e', script], { stdio: 'ignore' });
    if (child.status === status && child.signal === null) good++;
  }
  report(
    `end of the process: ${end || 'the last promise'}`,
    `${good} of 10 with exit code ${status}`,
    good === 10,
  );
}

const widths = [0, 1].map((i) => Math.max(...rows.map((row) => row[i].length)));
for (const row of rows) console.log(row.map((cell, i) => cell.padEnd(widths[i] ?? 0)).join('  '));
process.exitCode = rows.some(([, , good]) => good === 'NO') ? 1 : 0;
