import fc from 'fast-check';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { DType } from '../../lib/dtype.ts';
import { DisposedError, OptionError } from '../../lib/errors.ts';
import { KVCache, type KVCacheOptions } from '../../lib/kv-cache.ts';
import { memoryInfo } from '../../lib/memory-info.ts';
import { Tensor } from '../../lib/tensor.ts';
import { backendsUnderTest } from '../backends.ts';
import { keysOf, LAYOUT, queriesOf, valuesOf } from '../cache-parts.ts';

const made: KVCache[] = [];
afterEach(() => {
  for (const cache of made.splice(0)) cache.dispose();
});

function keep(cache: KVCache): KVCache {
  made.push(cache);
  return cache;
}

let seed = 0;

function append(cache: KVCache, tokens: number): KVCache {
  seed++;
  return cache.append(keysOf(tokens, seed), valuesOf(tokens, seed));
}

function makeCache(options: Partial<KVCacheOptions>, ...appends: number[]): KVCache {
  const cache = keep(new KVCache({ ...LAYOUT, ...options }));
  for (const tokens of appends) append(cache, tokens);
  return cache;
}

function expectSameBytes(a: Uint8Array, b: Uint8Array): void {
  expect(a.length).toBe(b.length);
  expect(Buffer.compare(a, b)).toBe(0);
}

const bitsOf = ({ data }: Tensor): Buffer => Buffer.from(data.buffer, data.byteOffset, data.byteLength);

function expectSameRows(a: KVCache, b: KVCache): void {
  expect(b.length).toBe(a.length);
  expect(b.dtype).toBe(a.dtype);
  expect(b.keys().shape).toEqual(a.keys().shape);
  expect(bitsOf(a.keys()).equals(bitsOf(b.keys()))).toBe(true);
  expect(bitsOf(a.values()).equals(bitsOf(b.values()))).toBe(true);
}

interface Act {
  readonly what: 'append' | 'truncate' | 'keep' | 'step' | 'fork';
  readonly size: number;
}

/** Does it; returns what a caller sees of it. */
function perform(cache: KVCache, { what, size }: Act): Tensor | number | string {
  const tokens = what === 'append' ? (size % 10 === 0 ? 5 * size : size) : 1 + (size % 3);
  const rows = [keysOf(tokens, size), valuesOf(tokens, size)] as const;
  if (what === 'append') return cache.append(...rows).length;
  if (what === 'step') return cache.step(queriesOf(tokens), ...rows);
  try {
    if (what === 'keep') return cache.keep([size % 7, size % 3]).length;
    if (what === 'truncate') return cache.truncate(Math.max(0, cache.length - size)).length;
  } catch (error) {
    return (error as Error).message;
  }
  keep(cache.fork()).append(...rows);
  return cache.attend(queriesOf(Math.min(3, cache.length)));
}

/** The same answers. Where a window has left a gap, blocks of keys may be cut elsewhere, and last bits differ. */
function expectSame(a: Tensor | number | string, b: Tensor | number | string, inEveryBit: boolean): void {
  if (!(a instanceof Tensor && b instanceof Tensor)) {
    expect(b).toEqual(a);
  } else if (inEveryBit) {
    expect(bitsOf(a).equals(bitsOf(b))).toBe(true);
  } else {
    const [x, y] = [a.toFloat32Array(), b.toFloat32Array()];
    expect(x.reduce((worst, value, i) => Math.max(worst, Math.abs(value - y[i])), 0)).toBeLessThan(2e-6);
  }
}

const backends = backendsUnderTest();
const best = backends.filter(
  (each, n) => backends.findIndex(({ backend }) => backend === each.backend) === n,
);
const pairs = best.flatMap((from) => best.map((to) => ({ from: from.backend, to: to.backend })));

describe.each(pairs)('saved by $from, loaded by $to', ({ from, to }) => {
  const reload = (cache: KVCache): KVCache => keep(KVCache.load(cache.save(), { backend: to }));

  test.each<[string, Partial<KVCacheOptions>, number[]]>([
    ['nothing', {}, []],
    ['one token', {}, [1]],
    ['many', {}, [700, 1, 1, 40]],
    ['an exact maxLength', { maxLength: 64 }, [64]],
    ['float16', { dtype: 'float16' }, [70]],
    ['bfloat16', { dtype: 'bfloat16' }, [70]],
    ['int8', { dtype: 'int8' }, [70]],
    ['int8 in a window', { dtype: 'int8', window: 50, sinkTokens: 3 }, [70, 200, 300]],
    ['a window that has everything', { window: 100, sinkTokens: 3 }, [60]],
    ['a window and sinks, with a gap', { window: 300, sinkTokens: 4 }, [500, 500, 1, 500]],
    ['a window without sinks', { window: 100 }, [400, 400, 1, 1]],
    ['a window of one token', { window: 1 }, [400, 400, 1, 1]],
    ['sinks that fill their segment', { window: 100, sinkTokens: 64 }, [400, 400, 400, 1]],
    ['sinks longer than the window', { window: 10, sinkTokens: 130 }, [400, 400, 400, 1]],
  ])('%s', (_, options, appends) => {
    const cache = makeCache({ ...options, backend: from }, ...appends);
    const loaded = reload(cache);
    expectSameRows(cache, loaded);
    expectSameBytes(keep(KVCache.load(loaded.save(), { backend: from })).save(), loaded.save());
    expectSameBytes(keep(loaded.fork()).save(), loaded.save());
    if (appends.length === 0) expect(loaded.keys().shape).toEqual([2, 2, 0, 24]);
  });

  test('rows of int8 that no word divides', () => {
    const cache = keep(
      new KVCache({ numKvHeads: 3, headDim: 19, valueDim: 5, dtype: 'int8', backend: from }),
    );
    cache.append(Tensor.randn([3, 33, 19], { seed: 1 }), Tensor.randn([3, 33, 5], { seed: 2 }));
    const loaded = reload(cache);
    expectSameRows(cache, loaded);
    expectSameBytes(loaded.save(), cache.save());
  });

  test('the gap that a window left stays hidden when queries go back to it', () => {
    const cache = makeCache({ window: 300, sinkTokens: 4, backend: from }, 500, 500, 1, 500);
    const loaded = reload(cache);
    for (const each of [cache, loaded]) append(each.truncate(600), 0);
    for (const queries of [1, 5, 40])
      expectSame(loaded.attend(queriesOf(queries)), cache.attend(queriesOf(queries)), false);
  });

  test('the layout comes with it', () => {
    const loaded = reload(makeCache({ maxLength: 100, backend: from }, 90));
    expect(() => append(loaded, 11)).toThrow(/maxLength 100/);
    append(loaded, 10);
    const attend = (): unknown => loaded.attend(queriesOf(1), { backend: from });
    if (from === to) expect(attend).not.toThrow();
    else expect(attend).toThrow(/belongs to the (native|reference) backend/);
  });

  test('forks are saved as if they were alone, and stay what they are', () => {
    const cache = makeCache({ backend: from }, 130);
    const fork = keep(cache.fork());
    append(fork, 7);
    append(cache.truncate(99), 3);
    const plain = [cache, fork].map((each) =>
      keep(new KVCache({ ...LAYOUT, backend: from })).append(each.keys(), each.values()),
    );
    [cache, fork].forEach((each, n) => {
      expectSameRows(each, reload(each));
      // But for how many tokens came last, the bytes are those of a cache without a past.
      const [bytes, want] = [each.save(), plain[n].save()];
      expectSameBytes(bytes.subarray(168, -4), want.subarray(168, -4));
    });
  });

  test('keep goes on where the last append left it', () => {
    const cache = makeCache({ backend: from }, 20, 5);
    const loaded = reload(cache);
    cache.keep([4, 0]);
    loaded.keep([4, 0]);
    expectSameRows(cache, loaded);
    expect(() => reload(cache.truncate(21)).keep([1])).toThrow(/of the 1 tokens/);
  });

  test.each([{}, { window: 100, sinkTokens: 3 }])('entries of different lengths, %o', (options) => {
    const cache = makeCache({ ...options, backend: from });
    const some = (tokens: number, lengths: number[]): unknown =>
      cache.append(keysOf(tokens, tokens), valuesOf(tokens, tokens), { lengths });
    for (const lengths of [
      [30, 7],
      [500, 1],
      [0, 90],
      [300, 5],
    ] as const)
      some(Math.max(...lengths), [...lengths]);
    cache.truncate([829, 100]);
    const loaded = reload(cache);
    expect(loaded.lengths).toEqual(cache.lengths);
    expectSameRows(cache, loaded);
    expectSameBytes(keep(KVCache.load(loaded.save(), { backend: from })).save(), loaded.save());
    for (const each of [cache, loaded])
      each.append(keysOf(9, 1), valuesOf(9, 2), { lengths: [9, 4] }).keep([2, 0]);
    expect(loaded.lengths).toEqual(cache.lengths);
    expectSameRows(cache, loaded);
  });

  test('NaN, infinities and negative zeros keep their bits', () => {
    const bits = Uint32Array.of(0x7fc00001, 0xffc12345, 0x7f800000, 0xff800000, 0x80000000, 1);
    const rows = new Tensor(Float32Array.from({ length: 24 }), [1, 24]);
    new Uint32Array(rows.data.buffer).set(bits);
    const cache = keep(new KVCache({ numKvHeads: 1, headDim: 24, backend: from }));
    cache.append(rows.unsqueeze(0), rows.unsqueeze(0));
    const { data } = reload(cache).keys();
    expect(new Uint32Array(data.buffer, data.byteOffset, 6)).toEqual(bits);
  });
});

describe.each(backends)('$name', ({ backend, select }) => {
  beforeAll(select);

  test('a loaded cache behaves as the one that was saved', () => {
    const what = fc.constantFrom<Act['what'][]>('append', 'append', 'truncate', 'keep', 'step', 'fork');
    const acts = fc.array(fc.record({ what, size: fc.integer({ min: 1, max: 90 }) }), { maxLength: 6 });
    const windows = fc.constantFrom({}, { window: 40 }, { window: 300, sinkTokens: 70 });
    const life = (window: Partial<KVCacheOptions>, before: Act[], after: Act[]): void => {
      const cache = makeCache({ ...window, backend }, 400);
      for (const act of before) perform(cache, act);
      const loaded = keep(KVCache.load(cache.save(), { backend }));
      expectSameRows(cache, loaded);
      for (const act of after) {
        expectSame(perform(loaded, act), perform(cache, act), window.window === undefined);
        expectSameRows(cache, loaded);
      }
      for (const each of made.splice(0)) each.dispose();
    };
    fc.assert(fc.property(windows, acts, acts, life), {
      numRuns: backend === 'native' ? 40 : 8,
      seed: 20260105,
    });
  });
});

test('the file is the same whatever the ISA', () => {
  const native = backends.filter(({ backend }) => backend === 'native');
  const files = native.map(({ select }) => {
    select();
    seed = 1000;
    return makeCache({ window: 200, sinkTokens: 5, backend: 'native' }, 300, 300, 1).save();
  });
  for (const file of files) expectSameBytes(file, files[0]);
  native[0]?.select();
});

test('after a truncation into the gap, keys() returns what is there', () => {
  const cache = makeCache({ window: 300, sinkTokens: 4 }, 500, 500, 500, 500);
  const all = cache.keys();
  let length = cache.length;
  try {
    while (length > 0) cache.truncate(--length);
  } catch {}
  if (cache.length === 0) return; // the reference keeps everything
  expect(cache.keys().shape).toEqual([2, 2, 4, 24]);
  expect(cache.keys().data).toEqual(all.slice(2, 0, 4).contiguous().data);
  expect(KVCache.load(cache.save()).keys().data).toEqual(cache.keys().data);
});

describe.each(best)('$backend refuses', ({ backend }) => {
  const load = (bytes: Uint8Array): KVCache => KVCache.load(bytes, { backend });
  const file = (dtype: DType = 'float16'): Uint8Array =>
    makeCache({ window: 20, sinkTokens: 2, dtype, backend }, 3).save();

  function expectRefused(bytes: Uint8Array, message: RegExp): void {
    const before = memoryInfo();
    expect(() => load(bytes)).toThrow(OptionError);
    expect(() => load(bytes)).toThrow(message);
    expect(memoryInfo()).toEqual(before);
  }

  test('every file of which one byte is another', () => {
    const bytes = file();
    fc.assert(
      fc.property(fc.nat(bytes.length - 1), fc.integer({ min: 1, max: 255 }), (at, flip) => {
        const other = bytes.slice();
        other[at] ^= flip;
        expectRefused(other, /KVCache\.load: (the|this)/);
      }),
      { numRuns: 200, seed: 20260106 },
    );
    load(bytes).dispose();
  });

  test('every file that ends too soon, and one that ends too late', () => {
    const bytes = file();
    for (let length = 0; length < bytes.length; length += length < 200 ? 1 : 97)
      expectRefused(
        bytes.subarray(0, length),
        /truncated: \d+ of \d+ bytes are there; copy it again, or save again/,
      );
    expectRefused(Uint8Array.from([...bytes, 0]), /altered: it has \d+ bytes where its header tells of \d+/);
  });

  test('what is no file, or no bytes', () => {
    expectRefused(new TextEncoder().encode('{"cache": "no"}'), /no saved KVCache: it begins with \[7b 22/);
    for (const value of [undefined, null, 'path', [1, 2], new Float32Array(300), new ArrayBuffer(300)])
      expectRefused(value as never, /bytes must be a Uint8Array/);
    expect(() => KVCache.load(file(), { backends: 'native' } as object)).toThrow(/did you mean 'backend'/);
    expect(() => KVCache.load(file(), { backend: 'gpu' as never })).toThrow(OptionError);
  });

  test('use after dispose, and during an asynchronous call', async () => {
    const cache = makeCache({ backend }, 30);
    const pending = cache.attendAsync(queriesOf(2));
    expect(() => cache.save()).toThrow(
      /KVCache\.save: an asynchronous call is running on this cache; await it first/,
    );
    await expect(cache.saveTo({} as never)).rejects.toThrow(/asynchronous call is running/);
    await pending;
    cache.dispose();
    expect(() => cache.save()).toThrow(DisposedError);
    await expect(cache.saveTo({} as never)).rejects.toThrow(DisposedError);
  });

  test('nothing of a Buffer in the middle of another, or of another realm', async () => {
    const { runInNewContext } = await import('node:vm');
    const bytes = file('float32');
    const pool = Buffer.concat([Buffer.alloc(13), bytes, Buffer.alloc(5)]);
    const want = load(bytes).save();
    expect(load(pool.subarray(13, -5)).save()).toEqual(want);
    const foreign = runInNewContext('Uint8Array').from(bytes);
    expect(load(foreign).save()).toEqual(want);
  });
});
