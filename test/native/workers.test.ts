import { describe, expect, test } from 'vitest';
import { loadAddon } from '../../lib/native/loader.ts';
import { runChild, runChildOk } from '../child.ts';

// Worker threads share the addon, its threads and its memory counts. Each test has a process of its own, whose exit
// code tells of a crash.

const start = `
import { createHash } from 'node:crypto';
import { Worker } from 'node:worker_threads';
/** A worker that runs \`body\` with the library in scope. */
const startWorker = (body, workerData) => new Worker(
  "const { parentPort } = require('node:worker_threads');" +
  "const { createHash } = require('node:crypto');" +
  "import(" + JSON.stringify(url) + ").then(async (sdpa) => {" + body + "});", { eval: true, execArgv: [], workerData });
`;

// Prefill, decode, async, and a cache that grows by chunks and steps: one hash of all that comes out.
const work = `
  const hash = createHash('sha256');
  const add = (t) => hash.update(t.data);
  const make = (heads, length, seed) => sdpa.Tensor.randn([1, heads, length, 32], { seed });
  for (let round = 0; round < 4; round++) {
    const [q, k, v] = [make(4, 200, round), make(2, 600, round + 10), make(2, 600, round + 20)];
    add(sdpa.attention(q, k, v, { causal: true }));
    const later = [1, 2].map(() => sdpa.attentionAsync(q, k, v, { causal: true }));
    const cache = new sdpa.KVCache({ numKvHeads: 2, headDim: 32 });
    cache.append(k, v);
    for (let t = 0; t < 20; t++) add(cache.step(make(4, 1, t), make(2, 1, t), make(2, 1, t)));
    add(await cache.attendAsync(q));
    for (const out of await Promise.all(later)) add(out);
    cache.dispose();
  }
  const digest = hash.digest('hex');
`;

describe.runIf(!(loadAddon() instanceof Error))('worker threads', () => {
  test('four at once give the bits of one thread', () => {
    const digests = runChildOk<string[]>(`${start}
      const done = (worker) => new Promise((resolve, reject) => worker.on('message', resolve).on('error', reject));
      ${work}
      const others = Array.from({ length: 4 }, () => done(startWorker(${JSON.stringify(`${work} parentPort.postMessage(digest);`)})));
      console.log(JSON.stringify([digest, ...(await Promise.all(others))]));`);
    expect(digests).toHaveLength(5);
    expect(new Set(digests).size).toBe(1);
  });

  test('ten that only load, one after the other', () => {
    const loaded = runChildOk<number>(`${start}
      let loaded = 0;
      for (let n = 0; n < 10; n++) {
        const worker = startWorker("parentPort.postMessage(sdpa.backendInfo().backend);");
        if ((await new Promise((resolve, reject) => worker.on('message', resolve).on('error', reject))) === 'native') loaded++;
        await worker.terminate();
      }
      console.log(JSON.stringify(loaded));`);
    expect(loaded).toBe(10);
  });

  test('several write a head each of one output in shared memory', () => {
    const body = `
      const { input, output, head } = require('node:worker_threads').workerData;
      const of = (data) => new sdpa.Tensor(data, [1, 4, 200, 32]).slice(1, head, head + 1);
      for (let n = 0; n < 6; n++) {
        const call = n % 2 ? sdpa.attention : sdpa.attentionAsync;
        await call(of(input), of(input), of(input), { out: of(output) });
      }
      parentPort.postMessage('done');`;
    const same = runChildOk<boolean>(`${start}
      const share = (t) => { const data = new Float32Array(new SharedArrayBuffer(t.byteLength)); data.set(t.data); return data; };
      const x = sdpa.Tensor.randn([1, 4, 200, 32], { seed: 1 });
      const [input, output] = [share(x), share(sdpa.Tensor.zeros(x.shape))];
      await Promise.all([0, 1, 2, 3].map((head) => new Promise((resolve, reject) =>
        startWorker(${JSON.stringify(body)}, { input, output, head }).on('message', resolve).on('error', reject))));
      console.log(JSON.stringify(Buffer.from(output.buffer).equals(Buffer.from(sdpa.attention(x, x, x).data.buffer))));`);
    expect(same).toBe(true);
  });

  test('terminated in the middle of sync and async work, and the process goes on', () => {
    const busy = `
      const make = (heads, length, seed) => sdpa.Tensor.randn([1, heads, length, 64], { seed });
      const [q, k, v] = [make(8, 600, 1), make(8, 600, 2), make(8, 600, 3)];
      const cache = new sdpa.KVCache({ numKvHeads: 8, headDim: 64 });
      cache.append(k, v);
      parentPort.postMessage('ready');
      for (let n = 0; ; n++) {
        sdpa.attentionAsync(q, k, v).catch(() => {});
        const later = cache.attendAsync(q).catch(() => {});
        sdpa.attention(q, k, v);
        await later;
      }`;
    const got = runChildOk<{ ended: number; same: boolean }>(`${start}
      let ended = 0;
      for (let n = 0; n < 20; n += 2) {
        const pair = [startWorker(${JSON.stringify(busy)}), startWorker(${JSON.stringify(busy)})];
        await Promise.all(pair.map(async (worker, i) => {
          await new Promise((resolve, reject) => worker.on('message', resolve).on('error', reject));
          await new Promise((resolve) => setTimeout(resolve, (n * 7 + i * 3) % 31));
          await worker.terminate();
          ended++;
        }));
      }
      const x = sdpa.Tensor.randn([1, 8, 300, 64], { seed: 1 });
      const hash = (t) => createHash('sha256').update(t.data).digest('hex');
      const same = hash(sdpa.attention(x, x, x)) === hash(await sdpa.attentionAsync(x, x, x, { threads: 1 }));
      console.log(JSON.stringify({ ended, same }));`);
    expect(got).toEqual({ ended: 20, same: true });
  });
});

describe.runIf(!(loadAddon() instanceof Error))('the end of the process during async work', () => {
  const inFlight = `
    const x = sdpa.Tensor.randn([1, 8, 1000, 64], { seed: 1 });
    const cache = new sdpa.KVCache({ numKvHeads: 8, headDim: 64 }).append(x, x);
    for (let n = 0; n < 8; n++) sdpa.attentionAsync(x, x, x);
    cache.attendAsync(x);
    `;

  test.each([
    ['process.exit', 'process.exit(0)', 0],
    ['process.exit a moment later', 'setTimeout(() => process.exit(7), 10)', 7],
    ['an exception', "setTimeout(() => { throw new Error('on purpose') }, 5)", 1],
    ['the last promise', '', 0],
  ])('%s', (_, end, status) => {
    const result = runChild(`${inFlight}${end}`);
    expect(result).toMatchObject({ status, signal: null });
  });
});
