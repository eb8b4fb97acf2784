import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import type { AttentionResult } from '../../lib/attention.ts';
import { CapacityError, DisposedError, DTypeError, OptionError, ShapeError } from '../../lib/errors.ts';
import { type CacheAttentionOptions, KVCache, type KVCacheOptions } from '../../lib/kv-cache.ts';
import { Tensor } from '../../lib/tensor.ts';
import { backendsUnderTest } from '../backends.ts';
import { randomBias, randomMask } from '../cases.ts';
import { expectWithin, yardstickOfInputs } from '../tolerance.ts';

const RUNS = {
  seed: Number(process.env.FAST_CHECK_SEED ?? 20260102),
  numRuns: Number(process.env.FAST_CHECK_RUNS ?? 25),
};

let seed = 0;
const random = (shape: number[], dtype: Tensor['dtype'] = 'float32'): Tensor =>
  Tensor.randn(shape, { seed: ++seed, dtype });

/** Entry n of a tensor [N, ...], as [1, ...]. */
const entry = (x: Tensor, n: number): Tensor => x.slice(0, n, n + 1);

/** Random lives of caches that fork: each act is on the cache `which` of those that are there. */
const acts = fc.array(
  fc.record({
    which: fc.nat(9),
    what: fc.constantFrom('append', 'append', 'fork', 'fork', 'truncate'),
    size: fc.oneof(fc.nat(5), fc.integer({ min: 40, max: 400 })),
  }),
  { minLength: 3, maxLength: 12 },
);
const layouts = fc.record({
  numKvHeads: fc.integer({ min: 1, max: 2 }),
  group: fc.integer({ min: 1, max: 9 }),
  headDim: fc.constantFrom(8, 24, 33),
  valueDim: fc.constantFrom(8, 20),
  dtype: fc.constantFrom('float32', 'float16', 'bfloat16'),
});
const draws = fc.record(
  {
    causal: fc.boolean(),
    softcap: fc.constantFrom(5, 30),
    scale: fc.double({ min: -1, max: 1, noNaN: true }),
    sinks: fc.constant(true),
    alibi: fc.constant(true),
    mask: fc.constant(true),
    bias: fc.constant(true),
    left: fc.nat(200),
    right: fc.nat(3),
    threads: fc.integer({ min: 1, max: 3 }),
    behind: fc.nat(100),
  },
  { requiredKeys: [] },
);

describe.each(backendsUnderTest())('$name', ({ backend, select }) => {
  beforeAll(select);
  const make = (options: Partial<KVCacheOptions> = {}): KVCache =>
    new KVCache({ numKvHeads: 2, headDim: 16, backend, ...options });

  test('is N separate steps: random forks, lengths, dtypes and options', () => {
    fc.assert(
      fc.property(layouts, acts, fc.integer({ min: 1, max: 4 }), draws, (layout, life, count, drawn) => {
        const { group, numKvHeads, headDim, valueDim } = layout;
        const dtype = layout.dtype as Tensor['dtype'];
        const token = (T: number): [Tensor, Tensor] => [
          random([1, numKvHeads, T, headDim], dtype),
          random([1, numKvHeads, T, valueDim], dtype),
        ];
        const caches = [make({ numKvHeads, headDim, valueDim, dtype }).append(...token(300))];
        for (const { which, what, size } of life) {
          const cache = caches[which % caches.length];
          if (what === 'append') cache.append(...token(size));
          if (what === 'truncate') cache.truncate(Math.max(0, cache.length - size));
          if (what === 'fork') caches.push(cache.fork());
        }
        const N = caches.length;
        const numHeads = numKvHeads * group;
        const q = random([N, numHeads, count, headDim], dtype);
        const k = random([N, numKvHeads, count, headDim], dtype);
        const v = random([N, numKvHeads, count, valueDim], dtype);
        const before = caches.map(({ length }) => length);
        const longest = Math.max(...before) + count;
        const options: CacheAttentionOptions = {
          causal: drawn.causal ?? true,
          softcap: drawn.softcap,
          scale: drawn.scale,
          threads: drawn.threads,
          sinks: drawn.sinks ? Float32Array.from({ length: numHeads }, (_, h) => h - 1) : null,
          window:
            drawn.left === undefined && drawn.right === undefined
              ? null
              : { left: drawn.left, right: drawn.right, sinkTokens: 3 },
        };
        const each = {
          alibiSlopes: drawn.alibi ? Tensor.randn([N, numHeads], { seed: 5 }) : null,
          mask: drawn.mask ? randomMask([N, 1, count, longest], 5) : null,
          bias: drawn.bias ? randomBias([N, numHeads, count, longest], 6) : null,
          queryOffset:
            drawn.behind === undefined
              ? null
              : Int32Array.from(before, (length, n) => length - (n % 3) * (drawn.behind ?? 0)),
        };
        const got = KVCache.stepAll(caches, q, k, v, { ...options, ...each, returnLse: true });
        expect(got.out.shape).toEqual([N, numHeads, count, valueDim]);
        caches.forEach((cache, n) => {
          const length = before[n] + count;
          expect(cache.length).toBe(length);
          const alone = {
            ...options,
            alibiSlopes: each.alibiSlopes && entry(each.alibiSlopes, n),
            mask: each.mask && entry(each.mask, n).slice(3, 0, length),
            bias: each.bias && entry(each.bias, n).slice(3, 0, length),
            queryOffset: each.queryOffset?.[n],
          };
          const inputs = { q: entry(q, n), k: cache.keys(), v: cache.values(), options: alone };
          expect(cache.keys().slice(2, before[n]).toArray()).toEqual(entry(k, n).toArray());
          expect(cache.values().slice(2, before[n]).toArray()).toEqual(entry(v, n).toArray());
          expectWithin({ out: entry(got.out, n), lse: entry(got.lse, n) }, yardstickOfInputs(inputs));
        });
        for (const cache of caches) cache.dispose();
      }),
      RUNS,
    );
  });

  /** N forks of a prefix, each with a tail of its own; and one step of them. */
  const family = (N: number, prefix: number, options: Partial<KVCacheOptions> = {}, T = 1) => {
    const { dtype = 'float32' } = options as { dtype?: Tensor['dtype'] };
    const root = make(options).append(random([1, 2, prefix, 16], dtype), random([1, 2, prefix, 16], dtype));
    const caches = Array.from({ length: N }, (_, n) => {
      const tail = [1, 2].map(() => random([1, 2, 1 + ((7 * n) % 90), 16], dtype)) as [Tensor, Tensor];
      return root.fork().append(...tail);
    });
    const of = (heads: number): Tensor => random([N, heads, T, 16], dtype);
    return { root, caches, q: of(8), k: of(2), v: of(2) };
  };

  test.each(['float32', 'float16', 'bfloat16'] as const)(
    '40 forks of one prefix, and forks of forks, %s',
    (dtype) => {
      const { caches, q, k, v } = family(40, 1500, { dtype });
      for (let n = 30; n < 40; n++) {
        caches[n].dispose();
        caches[n] = caches[n % 3].fork().append(random([1, 2, 200, 16]), random([1, 2, 200, 16]));
      }
      const got = KVCache.stepAll(caches, q, k, v, { returnLse: true });
      for (const n of [0, 1, 2, 17, 30, 31, 39]) {
        const inputs = {
          q: entry(q, n),
          k: caches[n].keys(),
          v: caches[n].values(),
          options: { causal: true },
        };
        expectWithin({ out: entry(got.out, n), lse: entry(got.lse, n) }, yardstickOfInputs(inputs));
      }
      const plain = KVCache.stepAll(caches, q, k, v);
      expect(plain).toBeInstanceOf(Tensor);
    },
  );

  test('a mask over all keys reaches into the shared prefix', () => {
    const { caches, q, k, v } = family(4, 300);
    const longest = Math.max(...caches.map(({ length }) => length)) + 1;
    const mask = randomMask([4, 1, 1, longest], 5);
    const got = KVCache.stepAll(caches, q, k, v, { mask, returnLse: true });
    caches.forEach((cache, n) => {
      const options = { mask: entry(mask, n).slice(3, 0, cache.length) };
      const inputs = { q: entry(q, n), k: cache.keys(), v: cache.values(), options };
      expectWithin({ out: entry(got.out, n), lse: entry(got.lse, n) }, yardstickOfInputs(inputs));
    });
  });

  test('caches of int8, and a batch of them with different lengths', () => {
    const root = make({ dtype: 'int8' }).append(random([1, 2, 600, 16]), random([1, 2, 600, 16]));
    const caches = Array.from({ length: 20 }, (_, n) =>
      root.fork().append(random([1, 2, n + 1, 16]), random([1, 2, n + 1, 16])),
    );
    const ragged = make({ dtype: 'int8', batch: 20 });
    const [k, v] = [random([20, 2, 3, 16]), random([20, 2, 3, 16])];
    ragged.append(k, v, { lengths: caches.map((_, n) => n % 4) });
    const queries = random([20, 8, 3, 16]);
    const got = KVCache.stepAll(caches, queries, k, v, { returnLse: true });
    for (const n of [0, 7, 19]) {
      const inputs = {
        q: entry(queries, n),
        k: caches[n].keys(),
        v: caches[n].values(),
        options: { causal: true },
      };
      expectWithin({ out: entry(got.out, n), lse: entry(got.lse, n) }, yardstickOfInputs(inputs));
    }
    expect([...ragged.lengths]).toEqual(caches.map((_, n) => n % 4));
    const q = random([20, 8, 1, 16]);
    const out = ragged.attend(q, { returnLse: true });
    for (const n of [1, 7, 18]) {
      const rows = (x: Tensor): Tensor => entry(x, n).slice(2, 0, n % 4);
      const inputs = {
        q: entry(q, n),
        k: rows(ragged.keys()),
        v: rows(ragged.values()),
        options: { causal: true },
      };
      expectWithin({ out: entry(out.out, n), lse: entry(out.lse, n) }, yardstickOfInputs(inputs));
    }
  });

  test('writes nothing but its result, wherever that lies', () => {
    for (const dtype of ['float32', 'bfloat16'] as const) {
      const { caches, q, k, v } = family(30, 700, { dtype }, 2);
      const twins = caches.map((cache) => cache.fork());
      const whole = Tensor.full([30, 16, 2, 32], 7, { dtype });
      const out = whole.slice(1, 4, 12).slice(3, 8, 24);
      KVCache.stepAll(caches, q, k, v, { out });
      expect(out.toArray()).toEqual(KVCache.stepAll(twins, q, k, v).toArray());
      for (const rest of [
        whole.slice(1, 0, 4),
        whole.slice(1, 12),
        whole.slice(3, 0, 8),
        whole.slice(3, 24),
      ]) {
        expect(rest.toFloat32Array().every((x) => x === 7)).toBe(true);
      }
    }
  });

  test('the number of threads changes no bit', () => {
    const { caches, q, k, v } = family(9, 3000);
    const outs = [1, 2, 3].map((threads) => {
      const out = KVCache.stepAll(caches, q, k, v, { threads });
      caches.forEach((cache) => {
        cache.truncate(cache.length - 1);
      });
      return out;
    });
    expect(outs[1].data).toEqual(outs[0].data);
    expect(outs[2].data).toEqual(outs[0].data);
  });

  test('what is masked in the shared prefix contributes nothing, NaN included', () => {
    const root = make();
    const rows = (value: number): Tensor => Tensor.full([1, 2, 128, 16], value);
    root.append(random([1, 2, 128, 16]), random([1, 2, 128, 16])).append(rows(NaN), rows(NaN));
    const caches = [0, 1, 2].map(() => root.fork());
    const [q, k, v] = [random([3, 2, 1, 16]), random([3, 2, 1, 16]), random([3, 2, 1, 16])];
    const out = KVCache.stepAll(caches, q, k, v, { queryOffset: 127 });
    expect(out.toFloat32Array().every(Number.isFinite)).toBe(true);
  });

  test('values of many rows that are not finite reach those that see them, and no others', () => {
    const root = make();
    const v = random([1, 2, 192, 16]);
    v.data.set([Infinity, NaN, 1], 130 * 16);
    root.append(random([1, 2, 192, 16]), v);
    const caches = Array.from({ length: 40 }, () => root.fork());
    const [q, k] = [random([40, 8, 1, 16]), random([40, 2, 1, 16])];
    const offsets = Array.from({ length: 40 }, (_, n) => (n % 2 === 0 ? 192 : 129));
    const out = KVCache.stepAll(caches, q, k, random([40, 2, 1, 16]), { queryOffset: offsets });
    offsets.forEach((offset, n) => {
      // Head 0 reads the values that are not finite; the last heads read others.
      const [first, , third] = entry(out, n).slice(1, 0, 1).toFloat32Array();
      expect([first, Number.isFinite(third)]).toEqual([offset === 192 ? Infinity : expect.any(Number), true]);
      expect(Number.isFinite(first)).toBe(offset !== 192);
      expect(entry(out, n).slice(1, 4).toFloat32Array().every(Number.isFinite)).toBe(true);
    });
  });

  test('caches with a window, and those that share nothing', () => {
    const caches = [500, 64, 1].map((length) =>
      make({ window: 100, sinkTokens: 4 }).append(random([1, 2, length, 16]), random([1, 2, length, 16])),
    );
    caches.push(caches[0].fork());
    const twins = caches.map((cache) => cache.fork());
    const [q, k, v] = [random([4, 4, 2, 16]), random([4, 2, 2, 16]), random([4, 2, 2, 16])];
    const got = KVCache.stepAll(caches, q, k, v, { returnLse: true });
    twins.forEach((twin, n) => {
      const want = twin.step(entry(q, n), entry(k, n), entry(v, n), {
        returnLse: true,
      }) as AttentionResult;
      expect(entry(got.out, n).toArray()).toEqual(want.out.toArray());
      expect(entry(got.lse, n).toArray()).toEqual(want.lse.toArray());
    });
  });

  test('goes on in every way afterwards', () => {
    const { caches, q, k, v } = family(3, 200, {}, 4);
    const lengths = caches.map(({ length }) => length);
    const out = Tensor.empty([3, 8, 4, 16]);
    expect(KVCache.stepAll(caches, q, k, v, { out })).toBe(out);
    caches[0].keep([3, 1]);
    caches[1].truncate(lengths[1]);
    expect(caches.map(({ length }) => length)).toEqual([lengths[0] + 2, lengths[1], lengths[2] + 4]);
    expect(caches[0].keys().slice(2, lengths[0]).toArray()).toEqual(
      [3, 1]
        .map((i) => entry(k, 0).slice(2, i, i + 1))
        .reduce((a, b) => Tensor.from(joined(a, b)))
        .toArray(),
    );
    for (const n of [0, 1, 2]) caches[n].step(entry(q, n), entry(k, n), entry(v, n));
    KVCache.stepAll(caches, q, k, v);
    const none = [8, 2, 2].map((heads) => random([3, heads, 0, 16]));
    expect(KVCache.stepAll(caches, none[0], none[1], none[2]).shape).toEqual([3, 8, 0, 16]);
  });

  test('bad input is refused before any work, and nothing has changed in any cache', () => {
    const { root, caches, q, k, v } = family(3, 100);
    const lengths = caches.map(({ length }) => length);
    const refuse = (list: unknown, error: new (message: string) => Error, words: RegExp, more = {}): void => {
      const step = (): unknown => KVCache.stepAll(list as KVCache[], q, k, v, more);
      expect(step).toThrow(error);
      expect(step).toThrow(words);
      expect(caches.map(({ length }) => length)).toEqual(lengths);
    };
    const [a, b, c] = caches;
    refuse([], OptionError, /caches must be a list of at least one/);
    refuse(a, OptionError, /caches must be a list/);
    refuse([a, b, {}], OptionError, /caches\[2\] must be a KVCache/);
    refuse([a, b, a], OptionError, /caches\[2\] is caches\[0\]/);
    refuse([a, b], ShapeError, /k must be \[2, 2, T, 16\]/);
    refuse([a, b, make({ batch: 2 })], ShapeError, /caches\[2\] has batch 2/);
    refuse([a, b, make({ headDim: 8 })], OptionError, /headDim is 16 in caches\[0\] and 8 in caches\[2\]/);
    refuse([a, b, make({ dtype: 'float16' })], OptionError, /dtype/);
    refuse([a, b, make({ window: 8 })], OptionError, /window/);
    const full = make({ maxLength: 4 }).append(random([1, 2, 4, 16]), random([1, 2, 4, 16]));
    refuse([a, b, full], CapacityError, /caches\[2\] exceed its maxLength 4/);
    const disposed = make();
    disposed.dispose();
    refuse([a, b, disposed], DisposedError, /disposed/);
    refuse([a, b, c], OptionError, /windw.*did you mean 'window'/, { windw: 1 });
    refuse([a, b, c], OptionError, /kvLengths/, { kvLengths: [1, 2, 3] });
    refuse([a, b, c], OptionError, /cuSeqlensQ/, { cuSeqlensQ: [0, 1] });
    refuse([a, b, c], DTypeError, /mask must be bool/, { mask: Tensor.zeros([1, 1]) });
    refuse([a, b, c], ShapeError, /out must have the shape/, { out: Tensor.zeros([1]) });
    const other = backend === 'reference' ? 'native' : 'reference';
    refuse([a, b, c], OptionError, /this cache belongs to/, { backend: other });
    const getter = {
      get scale(): number {
        a.append(random([1, 2, 1, 16]), random([1, 2, 1, 16]));
        return 1;
      },
    };
    expect(() => KVCache.stepAll(caches, q, k, v, getter)).toThrow(/changed the cache/);
    expect(root.length).toBe(100);
  });

  test('a cache in use by an asynchronous call is refused', async () => {
    const { caches, q, k, v } = family(2, 100);
    const pending = caches[1].attendAsync(entry(q, 1));
    expect(() => KVCache.stepAll(caches, q, k, v)).toThrow(/asynchronous call is running/);
    await pending;
    KVCache.stepAll(caches, q, k, v);
  });
});

/** Two tensors [1, H, 1, D] as nested arrays [1, H, 2, D]. */
function joined(a: Tensor, b: Tensor): number[][][][] {
  const [x, y] = [a.toArray() as number[][][][], b.toArray() as number[][][][]];
  return [x[0].map((rows, h) => [...rows, ...y[0][h]])];
}
