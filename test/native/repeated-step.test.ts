import { describe, expect, test } from 'vitest';
import { KVCache } from '../../lib/kv-cache.ts';
import type { Addon, NativeCache, Operands } from '../../lib/native/addon.ts';
import { loadAddon } from '../../lib/native/loader.ts';
import { Tensor } from '../../lib/tensor.ts';
import { runChildOk } from '../child.ts';

const loaded = loadAddon();
const addon = loaded as Addon;

// The function that repeats a step checks memory by itself: whatever it is called with, it refuses and nothing happens.
describe.runIf(!(loaded instanceof Error))('the repeated step of the addon', () => {
  const [numHeads, numKvHeads, headDim, valueDim] = [4, 2, 16, 8];
  const zeros = (length: number): Float32Array => new Float32Array(length);
  const fresh = (): NativeCache =>
    new addon.KvCache(Float64Array.of(1, numKvHeads, headDim, valueDim, 0, 3, 0, 0));

  /** A cache that has done one step of one token, with these operands from lse on, as NativeCacheStorage asks for it. */
  function stepped(
    more: readonly (Float32Array | null)[] = [],
    fields: Record<string, number> = {},
  ): NativeCache {
    const cache = fresh();
    const values: Record<string, number> = {
      ...{ numSequences: 1, numHeads, numKvHeads, headDim, valueDim, scale: 1, windowRight: 0 },
      ...{ windowLeft: Infinity, qHeadStride: headDim, qRowStride: headDim },
      ...{ outHeadStride: valueDim, outRowStride: valueDim, qLen: 1, kvLen: 1, queryOffset: 0 },
      ...fields,
    };
    const names = [...addon.problemFields, ...addon.sequenceFields];
    const problem = Float64Array.from(names, (name) => values[name] ?? 0);
    const layout = Float64Array.of(1, 0, 32, 16, 16, 0, 16, 8, 8);
    const rest = [0, 1, 2, 3, 4].map((n) => more[n] ?? null);
    const operands = [zeros(64), null, null, zeros(32), ...rest] as unknown as Operands;
    expect(cache.step(layout, zeros(32), zeros(16), problem, ...operands)).toBe(0);
    return cache;
  }

  test('repeats, as long as there is room', () => {
    const cache = stepped();
    const repeat = cache.repeater();
    const out = zeros(32).fill(7);
    expect(repeat(zeros(64), zeros(32), zeros(16).fill(3), out, 0, 0, 0, 0)).toBe(true);
    expect(out[0]).toBe(1.5); // Equal scores: the mean of 0 and 3.
    expect(repeat(zeros(65), zeros(33), zeros(17), zeros(33), 1, 1, 1, 1)).toBe(true);
    expect(repeat(zeros(64), zeros(32), zeros(16), out, 0, 0, 0, 0)).toBe(false);
    expect([cache.length(), out[0]]).toEqual([3, 1.5]);
    cache.truncate(1);
    expect(repeat(zeros(64), zeros(32), zeros(16), out, 0, 0, 0, 0)).toBe(true);
    cache.dispose();
    expect(repeat(zeros(64), zeros(32), zeros(16), out, 0, 0, 0, 0)).toBe(false);
  });

  test('refuses where no step was done', () => {
    const cache = fresh();
    expect(cache.repeater()(zeros(64), zeros(32), zeros(16), zeros(32), 0, 0, 0, 0)).toBe(false);
    expect(cache.length()).toBe(0);
  });

  test.each<[string, () => NativeCache]>([
    ['with an lse', () => stepped([zeros(4)])],
    ['with a mask', () => stepped([null, new Uint8Array(4) as never])],
    ['with a bias', () => stepped([null, null, zeros(4)])],
    ['with slopes', () => stepped([null, null, null, zeros(4)])],
    ['with sinks', () => stepped([null, null, null, null, zeros(4)])],
    ['whose query stands elsewhere', () => stepped([], { queryOffset: 1 })],
  ])('refuses to repeat a step %s', (_, make) => {
    const cache = make();
    expect(cache.repeater()(zeros(64), zeros(32), zeros(16), zeros(32), 0, 0, 0, 0)).toBe(false);
    expect(cache.length()).toBe(1);
  });

  const detached = (length: number): Float32Array => {
    const data = zeros(length);
    structuredClone(data.buffer, { transfer: [data.buffer as ArrayBuffer] });
    return data;
  };
  const shared = zeros(96);
  test.each<[string, unknown[]]>([
    ['nothing', []],
    ['too little', [zeros(64), zeros(32), zeros(16), zeros(32)]],
    ['no q', [null, zeros(32), zeros(16), zeros(32), 0, 0, 0, 0]],
    ['a list for k', [zeros(64), [1, 2], zeros(16), zeros(32), 0, 0, 0, 0]],
    ['an ArrayBuffer for v', [zeros(64), zeros(32), new ArrayBuffer(64), zeros(32), 0, 0, 0, 0]],
    ['a DataView for out', [zeros(64), zeros(32), zeros(16), new DataView(new ArrayBuffer(128)), 0, 0, 0, 0]],
    ['a short q', [zeros(63), zeros(32), zeros(16), zeros(32), 0, 0, 0, 0]],
    ['a short k', [zeros(64), zeros(31), zeros(16), zeros(32), 0, 0, 0, 0]],
    ['a short v', [zeros(64), zeros(32), zeros(15), zeros(32), 0, 0, 0, 0]],
    ['a short out', [zeros(64), zeros(32), zeros(16), zeros(31), 0, 0, 0, 0]],
    ['a q of bytes', [new Uint8Array(64), zeros(32), zeros(16), zeros(32), 0, 0, 0, 0]],
    ['a k of halves', [zeros(64), new Uint16Array(32), zeros(16), zeros(32), 0, 0, 0, 0]],
    ['an out of doubles', [zeros(64), zeros(32), zeros(16), new Float64Array(32), 0, 0, 0, 0]],
    ['a detached q', [detached(64), zeros(32), zeros(16), zeros(32), 0, 0, 0, 0]],
    ['a detached v', [zeros(64), zeros(32), detached(16), zeros(32), 0, 0, 0, 0]],
    ['a detached out', [zeros(64), zeros(32), zeros(16), detached(32), 0, 0, 0, 0]],
    ['a q that begins before its memory', [zeros(64), zeros(32), zeros(16), zeros(32), -1, 0, 0, 0]],
    ['a k that ends behind it', [zeros(64), zeros(32), zeros(16), zeros(32), 0, 1, 0, 0]],
    ['offsets that are no numbers', [zeros(64), zeros(32), zeros(16), zeros(32), '0', null, {}, undefined]],
    ['an offset beyond all', [zeros(64), zeros(32), zeros(16), zeros(32), 2 ** 63, 0, 0, 0]],
    ['q and out in one memory', [shared, zeros(32), zeros(16), shared, 0, 0, 0, 63]],
  ])('refuses %s', (_, args) => {
    const cache = stepped();
    expect(cache.repeater()(...(args as Parameters<ReturnType<NativeCache['repeater']>>))).toBe(false);
    expect(cache.length()).toBe(1);
    cache.dispose();
  });

  test('takes q and out side by side in one memory', () => {
    const repeat = stepped().repeater();
    expect(repeat(shared, zeros(32), zeros(16), shared, 0, 0, 0, 64)).toBe(true);
    expect(repeat(shared, zeros(32), zeros(16), shared, 32, 0, 0, 0)).toBe(true);
  });

  test('reads shared memory in place', () => {
    const out = new Float32Array(new SharedArrayBuffer(128)).fill(7);
    expect(stepped().repeater()(zeros(64), zeros(32), zeros(16), out, 0, 0, 0, 0)).toBe(true);
    expect(out.every((x) => x === 0)).toBe(true);
  });

  test('keeps its cache alive, and nothing of the caller', () => {
    const told = runChildOk<boolean[]>(
      `
      const { loadAddon } = await import(new URL('native/loader.js', url).href);
      const addon = loadAddon();
      const turn = async () => { for (let n = 0; n < 5; n++) { gc(); await new Promise(setImmediate); } };
      const tensors = () => [[8, 64], [2, 64], [2, 64], [8, 64]].map(([h, d]) => sdpa.Tensor.randn([1, h, 1, d]));
      const cache = new sdpa.KVCache({ numKvHeads: 2, headDim: 64 });
      const gone = (() => {
        const [q, k, v, out] = tensors();
        for (let n = 0; n < 3; n++) cache.step(q, k, v, { out, window: { left: 5 } });
        return [q, k, v, out].map((x) => new WeakRef(x.data));
      })();
      const repeat = new addon.KvCache(Float64Array.of(1, 2, 64, 64, 0, 0, 0, 0)).repeater();
      await turn();
      const [q, k, v, out] = tensors();
      console.log(JSON.stringify([
        ...gone.map((ref) => ref.deref() === undefined),
        repeat(q.data, k.data, v.data, out.data, 0, 0, 0, 0) === false,
        repeat.cache.length() === 0,
        cache.step(q, k, v, { out, window: { left: 5 } }) === out,
      ]));`,
      { flags: ['--expose-gc'] },
    );
    expect(told).toEqual([true, true, true, true, true, true, true]);
  });

  test('of a cache in a worker ends with it', () => {
    const script = `
      const { Worker } = await import('node:worker_threads');
      const body = "import(" + JSON.stringify(url) + ").then((sdpa) => {" +
        "const [q, k] = [8, 2].map((h) => sdpa.Tensor.randn([1, h, 1, 64]));" +
        "globalThis.cache = new sdpa.KVCache({ numKvHeads: 2, headDim: 64 });" +
        "for (let n = 0; n < 100; n++) cache.step(q, k, k); });";
      const codes = await Promise.all([1, 2, 3].map(() => new Promise((resolve) =>
        new Worker(body, { eval: true, execArgv: [] }).on('exit', resolve))));
      console.log(JSON.stringify(codes));`;
    expect(runChildOk(script)).toEqual([0, 0, 0]);
  });

  test('a step of a thousand tokens is repeated too', () => {
    const [cache, twin] = [1, 2].map(() => new KVCache({ numKvHeads: 2, headDim: 16, backend: 'native' }));
    const [q, k, v] = [4, 2, 2].map((heads, seed) => Tensor.randn([1, heads, 1000, 16], { seed }));
    for (let n = 0; n < 3; n++) {
      const want = twin.step(q, k, v, { queryOffset: twin.length });
      expect(cache.step(q, k, v).data).toEqual(want.data);
    }
  });
});
