import { describe, expect, test } from 'vitest';
import { KVCache } from '../../lib/kv-cache.ts';
import { memoryInfo } from '../../lib/memory-info.ts';
import { loadAddon } from '../../lib/native/loader.ts';
import { Tensor } from '../../lib/tensor.ts';
import { runChildOk } from '../child.ts';

const MIB = 2 ** 20;

/** Resident bytes before, with 200 caches of 2 MiB alive, and after they went. */
interface Told {
  readonly before: number;
  readonly held: number;
  readonly after: number;
}

const script = `
const x = sdpa.Tensor.randn([1, 4, 1024, 64], { seed: 1 });
const rss = () => process.memoryUsage.rss();
const make = () => new sdpa.KVCache({ numKvHeads: 4, headDim: 64 }).append(x, x);
let caches = [];
const fill = () => { for (let n = 0; n < 200; n++) caches.push(make()); };
const disposeAll = () => { for (const cache of caches) cache.dispose(); caches = []; };
const turn = () => new Promise(setImmediate);
fill();
disposeAll(); // What is taken once: code, stacks, page tables.
const before = rss();
fill();
const held = rss();
`;
const report = `
for (let n = 0; n < 5; n++) { gc(); await turn(); }
console.log(JSON.stringify({ before, held, after: rss() }));
`;

// How caches may go.
const disposed = 'disposeAll();';
const collected = 'caches = [];';
const collectedAfterAsync = 'await Promise.all(caches.map((cache) => cache.attendAsync(x))); caches = [];';
const withWorker = `
disposeAll();
const { Worker } = await import('node:worker_threads');
const body = "import(" + JSON.stringify(url) + ").then((sdpa) => { globalThis.kept = [];" +
  "const x = sdpa.Tensor.randn([1, 4, 1024, 64], { seed: 1 });" +
  "for (let n = 0; n < 200; n++) kept.push(new sdpa.KVCache({ numKvHeads: 4, headDim: 64 }).append(x, x)); });";
await new Promise((resolve) => new Worker(body, { eval: true, execArgv: [] }).on('exit', resolve));
`;

describe.runIf(!(loadAddon() instanceof Error))('the memory of caches', () => {
  test.each([
    ['dispose', disposed],
    ['the collector', collected],
    ['the collector, after async calls', collectedAfterAsync],
    ['the end of a worker', withWorker],
  ])('is given back by %s', (_, release) => {
    const told = runChildOk<Told>(script + release + report, { flags: ['--expose-gc'] });
    // 200 caches of 4 heads, 1024 tokens, keys and values of 64 float32.
    expect(told.held - told.before).toBeGreaterThan(380 * MIB);
    expect(told.after - told.before).toBeLessThan(60 * MIB);
  });

  test('is told to V8, which collects in time by itself', () => {
    // A gigabyte passes through, of which nothing is disposed and no collection is asked for.
    const peak = runChildOk<number>(`${script}
      disposeAll();
      let peak = 0;
      for (let n = 0; n < 500; n++) {
        make();
        await turn();
        peak = Math.max(peak, rss());
      }
      console.log(JSON.stringify(peak - before));`);
    expect(peak).toBeLessThan(500 * MIB);
  });

  test('grows with what is cached and never moves: tens of thousands of tokens', () => {
    const cache = new KVCache({ numKvHeads: 2, headDim: 16, backend: 'native' });
    const { capacity } = cache;
    expect(cache.byteLength).toBeLessThan(MIB);
    const [k, v] = [1, 2].map((seed) => Tensor.randn([1, 2, 1000, 16], { seed }));
    for (let n = 1; n <= 60; n++) {
      cache.append(k, v);
      const needed = cache.length * 2 * 2 * 64;
      expect(cache.byteLength).toBeGreaterThanOrEqual(needed);
      expect(cache.byteLength).toBeLessThanOrEqual(needed * 1.25 + 4 * 2 * 65536);
      expect(cache.capacity).toBe(capacity);
    }
    for (const [copy, want] of [
      [cache.keys(), k],
      [cache.values(), v],
    ]) {
      for (const begin of [0, 29_000, 59_000]) {
        expect(copy.slice(2, begin, begin + 1000).toFloat32Array()).toEqual(want.toFloat32Array());
      }
    }
    const held = cache.byteLength;
    expect(cache.truncate(10).byteLength).toBe(held);
    cache.dispose();
  });

  test('stays as it is once a window is full: 200,000 tokens', () => {
    const before = memoryInfo();
    using cache = new KVCache({ numKvHeads: 1, headDim: 16, window: 4096, sinkTokens: 4, backend: 'native' });
    const [k, v] = [1, 2].map((seed) => Tensor.randn([1, 1, 200_000, 16], { seed }));
    const held = new Set<number>();
    for (let i = 0; i < 200_000; i++) {
      cache.append(k.slice(2, i, i + 1), v.slice(2, i, i + 1));
      if (i >= 10_000) held.add(cache.byteLength).add(memoryInfo().bytes - before.bytes);
    }
    expect(held.size).toBe(1);
    const [bytes] = held;
    expect(bytes).toBeGreaterThanOrEqual(2 * (4096 + 4) * 64);
    // A segment is an eighth of the window in steps of 64 KiB, and two of them are only begun or waiting.
    expect(bytes).toBeLessThanOrEqual((8 + 3) * 2 * 65536);
    expect(memoryInfo().peakBytes).toBeLessThanOrEqual(Math.max(before.peakBytes, before.bytes + bytes));
    expect(cache.length).toBe(200_000);
    expect(cache.keys().slice(2, 4).toFloat32Array()).toEqual(k.slice(2, 200_000 - 4096).toFloat32Array());
  });

  test('of 64 forks of 32k tokens is that of the tokens and of what differs', () => {
    const before = memoryInfo();
    const layout = { numKvHeads: 2, headDim: 16 };
    const [k, v] = [1, 2].map((seed) => Tensor.randn([1, 2, 32768, 16], { seed }));
    const root = new KVCache({ ...layout, backend: 'native' }).append(k, v);
    const prefix = memoryInfo().bytes - before.bytes;
    const forks = Array.from({ length: 64 }, () => root.fork());
    expect(memoryInfo().bytes - before.bytes).toBe(prefix);
    const own = (n: number): Tensor[] =>
      [0, 1].map((side) => Tensor.randn([1, 2, 100, 16], { seed: 10 + 2 * n + side }));
    forks.forEach((fork, n) => {
      fork.append(...(own(n) as [Tensor, Tensor]));
    });
    // Each has two regions of 64 KiB for the keys, and two for the values.
    const differing = memoryInfo().bytes - before.bytes - prefix;
    expect(differing).toBeLessThanOrEqual(64 * 4 * 65536);
    // In any order, the root among them; whoever is left is as it was.
    const q = Tensor.randn([1, 4, 1, 16], { seed: 3 });
    const order = [root, ...forks].map((cache, n) => ({ cache, n: n - 1, rank: (n * 37) % 65 }));
    order.sort((a, b) => a.rank - b.rank);
    const answers = new Map(order.map(({ cache }) => [cache, cache.attend(q).data]));
    for (const { cache, n } of order) {
      expect(cache.attend(q).data).toEqual(answers.get(cache));
      if (n >= 0) expect(cache.keys().slice(2, 32768).toFloat32Array()).toEqual(own(n)[0].data);
      cache.dispose();
    }
    expect(memoryInfo()).toMatchObject({ caches: before.caches, bytes: before.bytes });
  });

  test('maxLength is what the capacity is', () => {
    const cache = new KVCache({ numKvHeads: 2, headDim: 16, maxLength: 1234, backend: 'native' });
    expect(cache.capacity).toBe(1234);
    cache.dispose();
  });
});
