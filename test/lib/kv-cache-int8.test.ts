import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import type { AttentionResult } from '../../lib/attention.ts';
import { measure, type Yardstick } from '../../lib/compare-attention.ts';
import { describeAttention } from '../../lib/describe-attention.ts';
import type { DType } from '../../lib/dtype.ts';
import { OptionError } from '../../lib/errors.ts';
import { type CacheAttentionOptions, KVCache, type KVCacheOptions } from '../../lib/kv-cache.ts';
import { Tensor } from '../../lib/tensor.ts';
import { quantiseRows, restoreRows } from '../../lib/tensor-int8.ts';
import { backendsUnderTest } from '../backends.ts';
import { randomBias, randomMask } from '../cases.ts';
import { expectWithin } from '../tolerance.ts';

interface Shape {
  readonly numKvHeads: number;
  readonly groupSize: number;
  readonly headDim: number;
  readonly valueDim: number;
  readonly tokens: number;
  readonly queries: number;
}

const shape = (more: Partial<Shape>): Shape => ({
  ...{ numKvHeads: 2, groupSize: 3, headDim: 64, valueDim: 64, tokens: 100, queries: 1 },
  ...more,
});

const SHAPES: readonly Shape[] = [
  shape({}),
  ...[1, 2, 15, 16, 31, 33, 63, 65, 96, 127, 130].map((headDim) => shape({ headDim, valueDim: headDim })),
  ...[1, 17, 32, 47, 160].map((valueDim) => shape({ valueDim })),
  ...[1, 2, 63, 64, 65, 127, 1023, 1025].map((tokens) => shape({ tokens })),
  ...[1, 2, 4, 5, 7, 16].map((groupSize) => shape({ groupSize, numKvHeads: 1 })),
  ...[2, 3, 5, 17, 70].map((queries) => shape({ queries })),
  shape({ queries: 90, tokens: 300, headDim: 80, valueDim: 40 }),
];

const OPTIONS: readonly [string, (shape: Shape) => CacheAttentionOptions][] = [
  ['plain', () => ({})],
  ['softcap', () => ({ softcap: 2 })],
  ['window', () => ({ window: { left: 40, sinkTokens: 3 } })],
  ['scale', () => ({ scale: -0.3 })],
  ['mask', ({ queries, tokens }) => ({ causal: false, mask: randomMask([queries, tokens], 5) })],
  ['bias', ({ queries, tokens }) => ({ bias: randomBias([queries, tokens], 6) })],
];

const yardsticks = new Map<string, Yardstick>();

/**
 * The answer over the numbers that the cache holds is within the tolerance of the oracle's over the same, which is
 * computed once for all backends.
 */
function expectRight(name: string, cache: KVCache, q: Tensor, options: CacheAttentionOptions): void {
  let yardstick = yardsticks.get(name);
  if (yardstick === undefined) {
    const causal = { causal: true, ...options } as CacheAttentionOptions;
    const plain = q.to('float32');
    const problem = describeAttention('test', plain, cache.keys(), cache.values(), { ...causal, out: null });
    yardstick = measure({ ...problem, q });
    yardsticks.set(name, yardstick);
  }
  const got = cache.attend(q, { ...options, returnLse: true }) as AttentionResult;
  expectWithin(got, yardstick);
}

describe.each(backendsUnderTest())('$name', ({ backend, select }) => {
  beforeAll(select);

  const make = ({ numKvHeads, headDim, valueDim }: Shape, more: Partial<KVCacheOptions> = {}): KVCache =>
    new KVCache({ numKvHeads, headDim, valueDim, dtype: 'int8', backend, ...more });
  const keysOf = (s: Shape): Tensor => Tensor.randn([1, s.numKvHeads, s.tokens, s.headDim], { seed: 1 });
  const valuesOf = (s: Shape): Tensor => Tensor.randn([1, s.numKvHeads, s.tokens, s.valueDim], { seed: 2 });
  const filled = (s: Shape): KVCache => make(s).append(keysOf(s), valuesOf(s));
  const queriesOf = (s: Shape, dtype: DType): Tensor =>
    Tensor.randn([1, s.numKvHeads * s.groupSize, s.queries, s.headDim], { seed: 3 }).to(dtype);

  test('holds the nearest numbers, bit for bit those of the other backend', () => {
    const s = shape({ headDim: 37, valueDim: 5, tokens: 130 });
    using cache = filled(s);
    for (const [held, given] of [
      [cache.keys(), keysOf(s)],
      [cache.values(), valuesOf(s)],
    ]) {
      expect(held.dtype).toBe('float32');
      expect(held.data).toEqual(restoreRows(quantiseRows(given)).data);
      const dim = given.shape[3];
      given.toFloat32Array().forEach((x, i, all) => {
        const row = all.subarray(i - (i % dim), i - (i % dim) + dim);
        const largest = row.reduce((most, y) => Math.max(most, Math.abs(y)), 0);
        expect(Math.abs(x - (held.data[i] as number))).toBeLessThanOrEqual((largest / 254) * (1 + 2 ** -20));
      });
    }
  });

  test('zeros, subnormal rows and the largest numbers have their place', () => {
    const rows = [0, 1e-45, 3e-44, 1e-40, 1e-38, 1, 3.4e38].map((x) => [x, -x, x / 2, 0]);
    const k = new Tensor(Float32Array.from(rows.flat()), [1, 1, rows.length, 4]);
    using cache = make(shape({ numKvHeads: 1, headDim: 4, valueDim: 4 })).append(k, k);
    expect(cache.keys().data).toEqual(restoreRows(quantiseRows(k)).data);
    cache
      .keys()
      .toFloat32Array()
      .forEach((x, i) => {
        const given = k.data[i] as number;
        const largest = Math.abs(rows[Math.floor(i / 4)][0]);
        expect(Math.abs(x - given)).toBeLessThanOrEqual(
          Math.max((largest / 254) * (1 + 2 ** -20), 2 ** -142),
        );
      });
  });

  describe.each<[DType, CacheAttentionOptions]>([
    ['float32', {}],
    ['float32', { precision: 'high' }],
    ['float32', { precision: 'medium' }],
    ['float16', {}],
    ['bfloat16', {}],
  ])('queries of %s, %o', (dtype, precision) => {
    const grade = JSON.stringify([dtype, precision]);

    test.each(SHAPES.map((s) => [JSON.stringify(s), s] as const))('%s', (name, s) => {
      using cache = filled(s);
      expectRight(`${grade} ${name}`, cache, queriesOf(s, dtype), precision);
    });

    test.each(OPTIONS)('%s', (name, options) => {
      for (const s of [shape({}), shape({ queries: 5 }), shape({ queries: 40, tokens: 150 })]) {
        using cache = filled(s);
        expectRight(`${grade} ${name} ${s.queries}`, cache, queriesOf(s, dtype), {
          ...precision,
          ...options(s),
        });
      }
    });
  });

  test.each<[string, number, number]>([
    ['tiny values', 1, 1e-25],
    ['huge values', 1, 1e30],
    ['tiny queries', 1e-28, 1],
    ['huge queries', 1e20, 1],
    ['zero queries', 0, 1],
  ])('%s', (name, qSize, vSize) => {
    const s = shape({ tokens: 70 });
    const scaled = (x: Tensor, size: number): Tensor =>
      new Tensor(
        x.toFloat32Array().map((y) => y * size),
        x.shape,
      );
    using cache = make(s).append(keysOf(s), scaled(valuesOf(s), vSize));
    for (const dtype of ['float32', 'bfloat16'] as const) {
      expectRight(`${name} ${dtype}`, cache, scaled(queriesOf(s, 'float32'), qSize).to(dtype), {});
    }
  });

  // Sums of whole numbers at their largest: every product of a score has one sign.
  test.each([512, 513, 576, 1000, 2048, 2049, 4096])('all numbers alike, headDim %i', (headDim) => {
    const s = shape({ headDim, numKvHeads: 1, tokens: 70 });
    const q = Tensor.randn([1, 3, 1, headDim], { seed: 4 });
    q.data.fill(-1, 0, headDim).fill(0.5, headDim, 2 * headDim);
    const k = Tensor.full([1, 1, 70, headDim], 1);
    k.data.fill(-0.25, 0, 3 * headDim);
    using cache = make(s).append(k, valuesOf(s));
    for (const precision of ['high', 'medium'] as const)
      expectRight(`alike ${headDim} ${precision}`, cache, q, { precision });
    for (const dtype of ['float16', 'bfloat16'] as const)
      expectRight(`alike ${headDim} ${dtype}`, cache, q.to(dtype), {});
  });

  test('a query that is no number gives no number, and harms no other', () => {
    const s = shape({ queries: 2 });
    using cache = filled(s);
    for (const bad of [Number.NaN, Number.POSITIVE_INFINITY]) {
      const q = queriesOf(s, 'float32');
      q.data[0] = bad;
      const out = cache.attend(q.to('bfloat16')).toFloat32Array();
      expect(out.subarray(0, 64).every(Number.isNaN)).toBe(true);
      expect(out.subarray(64).some(Number.isNaN)).toBe(false);
    }
  });

  test('refuses what is not finite, and is unchanged', () => {
    const s = shape({});
    using cache = filled(s);
    const [k, v] = [cache.keys(), cache.values()];
    for (const [which, bad] of [
      [0, Number.NaN],
      [0, Number.POSITIVE_INFINITY],
      [1, Number.NEGATIVE_INFINITY],
      [1, Number.NaN],
    ]) {
      const rows = [keysOf(s), valuesOf(s)];
      rows[which].data[rows[which].size - 1] = bad;
      expect(() => cache.append(rows[0], rows[1])).toThrow(OptionError);
      const last = rows.map((x) => x.slice(2, s.tokens - 1));
      expect(() => cache.step(queriesOf(s, 'float32'), last[0], last[1])).toThrow(OptionError);
      expect(cache.length).toBe(s.tokens);
    }
    expect([cache.keys().data, cache.values().data]).toEqual([k.data, v.data]);
  });

  test('a repeated step quantises, and refuses, as the first', () => {
    const s = shape({});
    using cache = filled(s);
    using other = filled(s);
    const q = queriesOf(s, 'float32');
    const out = Tensor.zeros([1, 6, 1, 64]);
    for (let seed = 10; seed < 15; seed++) {
      const [k, v] = [0, 1].map((side) => Tensor.randn([1, 2, 1, 64], { seed: 2 * seed + side }));
      cache.step(q, k, v, { out });
      expect(out.data).toEqual(other.append(k, v).attend(q).data);
    }
    const k = Tensor.randn([1, 2, 1, 64], { seed: 50 });
    k.data[5] = Number.NaN;
    expect(() => cache.step(q, k, k, { out })).toThrow(OptionError);
    expect(cache.length).toBe(105);
  });

  test('windows, forks, truncation and kept branches carry rows and scales', () => {
    const s = shape({ numKvHeads: 2, headDim: 13, valueDim: 9, tokens: 400 });
    const [k, v] = [keysOf(s), valuesOf(s)];
    const q = queriesOf({ ...s, queries: 2 }, 'float32');
    const operation = fc.record({
      what: fc.constantFrom('append', 'append', 'truncate', 'keep', 'fork'),
      size: fc.nat(70),
    });
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 8 }), fc.boolean(), (operations, isWindowed) => {
        let cache = make(s, isWindowed ? { window: 300, sinkTokens: 2 } : {});
        let tokens: number[] = [];
        let next = 0;
        let newest = 0;
        for (const { what, size } of operations) {
          if (what === 'append' && next + size <= 400) {
            cache.append(k.slice(2, next, next + size), v.slice(2, next, next + size));
            for (let i = 0; i < size; i++) tokens.push(next++);
            newest = size;
          }
          if (what === 'truncate') {
            const count = Math.min(size, newest);
            cache.truncate(tokens.length - count);
            tokens = tokens.slice(0, tokens.length - count);
            newest -= count;
          }
          if (what === 'keep') {
            const kept = Array.from({ length: newest }, (_, i) => i).filter((i) => (i + size) % 3 !== 0);
            cache.keep(kept);
            const begin = tokens.length - newest;
            tokens = [...tokens.slice(0, begin), ...kept.map((i) => tokens[begin + i])];
            newest = kept.length;
          }
          if (what === 'fork') cache = cache.fork();
        }
        if (tokens.length < 2) return;
        const plain = new KVCache({ numKvHeads: 2, headDim: 13, valueDim: 9, backend: 'reference' });
        const held = [k, v].map((x) => restoreRows(quantiseRows(x)));
        for (const t of tokens) plain.append(held[0].slice(2, t, t + 1), held[1].slice(2, t, t + 1));
        const options = isWindowed ? { window: { left: 299, sinkTokens: 2 } } : {};
        const [a, b] = [cache.attend(q).toFloat32Array(), plain.attend(q, options).toFloat32Array()];
        a.forEach((x, i) => {
          expect(Math.abs(x - b[i])).toBeLessThan(2e-6);
        });
      }),
      { numRuns: 30 },
    );
  });

  test.each(['float32', 'bfloat16'] as const)('forks step together, queries of %s', (dtype) => {
    const s = shape({ tokens: 1500 });
    const root = filled(s);
    const caches = [0, 5, 70].map((count) =>
      root.fork().append(keysOf({ ...s, tokens: count }), valuesOf({ ...s, tokens: count })),
    );
    const of = (heads: number, seed: number): Tensor => Tensor.randn([3, heads, 1, 64], { seed });
    const [q, k, v] = [of(6, 7).to(dtype), of(2, 8), of(2, 9)];
    const bad = of(2, 8);
    bad.data[0] = Number.NaN;
    expect(() => KVCache.stepAll(caches, q, bad, v)).toThrow(OptionError);
    expect(caches.map(({ length }) => length)).toEqual([1500, 1505, 1570]);
    const got = KVCache.stepAll(caches, q, k, v, { returnLse: true });
    caches.forEach((cache, n) => {
      const entry = (x: Tensor): Tensor => x.slice(0, n, n + 1);
      const problem = describeAttention('test', entry(q).to('float32'), cache.keys(), cache.values(), {
        causal: true,
      });
      expectWithin({ out: entry(got.out), lse: entry(got.lse) }, measure({ ...problem, q: entry(q) }));
    });
  });

  test('batch entries of different lengths', () => {
    const s = shape({ tokens: 20 });
    using cache = make(s, { batch: 2 });
    const of = (dim: number, seed: number): Tensor => Tensor.randn([2, 2, 20, dim], { seed });
    cache.append(of(64, 1), of(64, 2), { lengths: [20, 7] });
    const q = Tensor.randn([2, 6, 1, 64], { seed: 3 });
    const got = cache.attend(q, { returnLse: true });
    [20, 7].forEach((length, n) => {
      const entry = (x: Tensor): Tensor => x.slice(0, n, n + 1);
      const held = [cache.keys(), cache.values()].map((x) => entry(x).slice(2, 0, length));
      const problem = describeAttention('test', entry(q), held[0], held[1], { causal: true });
      expectWithin({ out: entry(got.out), lse: entry(got.lse) }, measure(problem));
    });
  });

  test('is saved as the other backend saves it, and loads', () => {
    const s = shape({ headDim: 13, valueDim: 6, tokens: 90 });
    using cache = filled(s);
    using other = filled(s);
    const bytes = cache.save();
    expect(bytes).toEqual(make(s, { backend: 'reference' }).append(keysOf(s), valuesOf(s)).save());
    using loaded = KVCache.load(bytes, { backend });
    expect(loaded.keys().data).toEqual(other.keys().data);
    expect(loaded.values().data).toEqual(other.values().data);
    const q = queriesOf(s, 'float32');
    expect(loaded.attend(q).data).toEqual(other.attend(q).data);
  });

  test('takes a byte a number, and four a row', () => {
    using cache = make(shape({ headDim: 128, valueDim: 128 }), { maxLength: 8192 });
    using halves = new KVCache({ numKvHeads: 2, headDim: 128, dtype: 'bfloat16', backend, maxLength: 8192 });
    const rows = Tensor.randn([1, 2, 8192, 128], { seed: 1 });
    cache.append(rows, rows);
    halves.append(rows, rows);
    expect(cache.byteLength / halves.byteLength).toBeLessThan(0.6);
  });
});
