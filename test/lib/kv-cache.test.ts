import { beforeAll, describe, expect, test } from 'vitest';
import { type AttentionResult, attention } from '../../lib/attention.ts';
import type { DType } from '../../lib/dtype.ts';
import {
  CapacityError,
  DisposedError,
  DTypeError,
  OptionError,
  SdpaError,
  ShapeError,
} from '../../lib/errors.ts';
import { type CacheAttentionOptions, KVCache, type KVCacheOptions } from '../../lib/kv-cache.ts';
import { Tensor } from '../../lib/tensor.ts';
import { backendsUnderTest } from '../backends.ts';
import { expectHolds, keysOf, LAYOUT, queriesOf, valuesOf } from '../cache-parts.ts';
import { randomBias, randomMask } from '../cases.ts';
import { expectWithin, yardstickOfInputs } from '../tolerance.ts';

/** The same memory in the order [B, L, H, D]. */
function tokenMajor(x: Tensor): Tensor {
  return x.transpose(1, 2).contiguous().transpose(1, 2);
}

/** x as a tensor of another library. */
function foreign(x: Tensor): { data: unknown; dims: readonly number[]; type: string } {
  return { data: x.data, dims: x.shape, type: x.dtype };
}

describe.each(backendsUnderTest())('$name', ({ backend, select }) => {
  beforeAll(select);

  const make = (more: Partial<KVCacheOptions> = {}): KVCache => new KVCache({ ...LAYOUT, backend, ...more });
  const filled = (tokens: number, more: Partial<KVCacheOptions> = {}): KVCache =>
    make(more).append(keysOf(tokens, 1), valuesOf(tokens, 2));
  const bits = ({ out, lse }: AttentionResult): unknown[] => [out.data, lse.data];

  /** That `act` throws `error` with all of `words` in its message, and the cache is as it was. */
  const expectRefused = (cache: KVCache, act: () => unknown, error: unknown, ...words: string[]): void => {
    const [k, v] = [cache.keys(), cache.values()];
    let thrown: unknown;
    try {
      act();
    } catch (caught) {
      thrown = caught;
    }
    expect(thrown).toBeInstanceOf(error);
    for (const word of words) expect((thrown as Error).message).toContain(word);
    expectHolds(cache, k, v);
  };

  describe('append', () => {
    test('takes chunks of any size, none included', () => {
      const [k, v] = [keysOf(150, 1), valuesOf(150, 2)];
      const cache = make();
      let begin = 0;
      for (const count of [1, 0, 64, 3, 81, 1]) {
        expect(cache.append(k.slice(2, begin, begin + count), v.slice(2, begin, begin + count))).toBe(cache);
        begin += count;
        expect(cache.length).toBe(begin);
        expect(cache.capacity).toBeGreaterThanOrEqual(begin);
      }
      expectHolds(cache, k, v);
    });

    test('takes rank 3 where batch is 1', () => {
      const [k, v] = [Tensor.randn([2, 5, 8], { seed: 1 }), Tensor.randn([2, 5, 8], { seed: 2 })];
      const cache = new KVCache({ numKvHeads: 2, headDim: 8, backend }).append(k, v);
      expectHolds(cache, k.unsqueeze(0), v.unsqueeze(0));
      const q = Tensor.randn([4, 3, 8], { seed: 3 });
      expect(cache.attend(q).shape).toEqual([4, 3, 8]);
      expect(cache.attend(q, { returnLse: true }).lse.shape).toEqual([4, 3]);
      expect(cache.attend(q).data).toEqual(cache.attend(q.unsqueeze(0)).data);
      expect(cache.step(q.slice(1, 0, 1), k.slice(1, 0, 1), v.slice(1, 0, 1)).shape).toEqual([4, 1, 8]);
    });

    test('takes any strides, and tensors of other libraries', () => {
      const [k, v] = [keysOf(7, 1), valuesOf(7, 2)];
      expectHolds(make().append(tokenMajor(k), tokenMajor(v)), k, v);
      expectHolds(make().append(foreign(k), foreign(v)), k, v);
      const backwards = new Tensor(k.data, k.shape, { strides: [336, 168, -24, 1], offset: 144 });
      const rows = k.toArray() as number[][][][];
      const want = Tensor.from(rows.map((entry) => entry.map((head) => head.toReversed())));
      expectHolds(make().append(backwards, v), want, v);
    });

    test.each<[DType, DType]>([
      ['float32', 'float16'],
      ['float32', 'bfloat16'],
      ['float16', 'float32'],
      ['bfloat16', 'float32'],
      ['float16', 'bfloat16'],
      ['bfloat16', 'bfloat16'],
    ])('%s into a cache of %s', (from, dtype) => {
      const [k, v] = [keysOf(70, 1).to(from), valuesOf(70, 2).to(from)];
      const cache = make({ dtype }).append(k, v);
      expect(cache.dtype).toBe(dtype);
      expect(cache.keys().dtype).toBe(dtype);
      expectHolds(cache, k.to(dtype), v.to(dtype));
      // What was stored is exact in float32, so the oracle of a float32 q is that of the stored keys.
      const inputs = { q: queriesOf(2), k: cache.keys().to('float32'), v: cache.values().to('float32') };
      const got = cache.attend(inputs.q, { returnLse: true });
      expect(got.out.dtype).toBe('float32');
      expectWithin(got, yardstickOfInputs({ ...inputs, options: { causal: true } }));
    });

    test('a float16 q over a float32 cache gives float16', () => {
      const cache = filled(70);
      const q = queriesOf(2).to('float16');
      const got = cache.attend(q, { returnLse: true });
      expect(got.out.dtype).toBe('float16');
      const inputs = { q, k: cache.keys().to('float16'), v: cache.values().to('float16') };
      // Rounding the keys first is an error of its own, of the size of the one that the tolerance is made of.
      const half = filled(70, { dtype: 'float16' }).attend(q, { returnLse: true });
      expectWithin(half, yardstickOfInputs({ ...inputs, options: { causal: true } }));
      const exact = cache.attend(q.to('float32'));
      expect(got.out.toArray()).toEqual(exact.to('float16').toArray());
    });

    test('refuses what does not fit, and stays as it was', () => {
      const cache = filled(5);
      const [k, v] = [keysOf(2, 4), valuesOf(2, 5)];
      const refused = (a: unknown, b: unknown, error: unknown, ...words: string[]): void =>
        expectRefused(cache, () => cache.append(a as Tensor, b as Tensor), error, 'KVCache.append', ...words);
      refused(v, v, ShapeError, '[2, 2, T, 24]', '[2, 2, T, 20]', 'k [2, 2, 2, 20]');
      refused(k, k, ShapeError, 'v [2, 2, 2, 24]');
      refused(k, valuesOf(3, 5), ShapeError, 'v [2, 2, 3, 20]');
      refused(k.slice(0, 0, 1), v.slice(0, 0, 1), ShapeError, 'k [1, 2, 2, 24]');
      refused(k.slice(0, 0, 1).squeeze(0), v.slice(0, 0, 1).squeeze(0), ShapeError, 'k [2, 2, 24]');
      refused(k.to('int32'), v, DTypeError, 'k must be', 'int32');
      refused(k, undefined, DTypeError, 'v must be');
      refused(k.transpose(2, 3).contiguous().transpose(2, 3), v, ShapeError, 'k.contiguous()');
      refused({ data: k.data, dims: [2, 2, 3, 24], type: 'float32' }, valuesOf(3, 1), ShapeError, 'k');
    });

    test('is refused beyond maxLength', () => {
      const cache = filled(5, { maxLength: 7 });
      expect(cache.capacity).toBeLessThanOrEqual(backend === 'native' ? 7 : Infinity);
      const [k, v] = [keysOf(3, 4), valuesOf(3, 5)];
      const words = ['3 more tokens', '5 that are cached', 'maxLength 7', 'nothing was appended'];
      expectRefused(cache, () => cache.append(k, v), CapacityError, 'KVCache.append', ...words);
      expectRefused(cache, () => cache.step(queriesOf(3), k, v), CapacityError, 'KVCache.step', ...words);
      cache.append(keysOf(2, 4), valuesOf(2, 5));
      expect(cache.length).toBe(7);
    });
  });

  describe('attend and step', () => {
    const options: Record<string, CacheAttentionOptions> = {
      defaults: {},
      'not causal': { causal: false },
      'causal: null': { causal: null },
      window: { window: { left: 20 } },
      'window both sides': { causal: false, window: { left: 9, right: 3, sinkTokens: 2 } },
      softcap: { softcap: 3 },
      scale: { scale: -0.3 },
      sinks: { sinks: Float32Array.from([1, -2, 3, 0, 2, -1]) },
      alibi: { alibiSlopes: [0.5, 0.25, 0.125, 1, 0, 0.0625] },
      'queryOffset: a number': { queryOffset: 11 },
      'queryOffset: one an entry': { queryOffset: Int32Array.from([-2, 90]) },
      mask: { mask: randomMask([2, 1, 5, 133], 8) },
      bias: { bias: randomBias([6, 5, 133], 9) },
      'bias: float16': { bias: randomBias([133], 9, 'float16') },
      all: {
        window: { left: 60, sinkTokens: 3 },
        softcap: 5,
        sinks: [0, 1, 2, 3, 4, 5],
        mask: randomMask([133], 8),
        bias: randomBias([2, 6, 5, 133], 9),
        alibiSlopes: [0.5, 0.25, 0.125, 1, 0, 0.0625],
        queryOffset: 120,
      },
    };

    test.each(Object.entries(options))('are attention over what is cached: %s', (_, given) => {
      const [q, k, v] = [queriesOf(5), keysOf(133, 1), valuesOf(133, 2)];
      const cache = make().append(k.slice(2, 0, 128), v.slice(2, 0, 128));
      const step = cache.step(q, k.slice(2, 128), v.slice(2, 128), { ...given, returnLse: true });
      expect(cache.length).toBe(133);
      const plain = { ...given, causal: given.causal ?? true };
      expectWithin(step, yardstickOfInputs({ q, k, v, options: plain }));
      // A step is an append and an attend, and the memory of the keys makes no difference: to the bit.
      const attend = cache.attend(q, { ...given, returnLse: true });
      const whole = attention(q, k, v, { ...plain, backend, returnLse: true }) as AttentionResult;
      expect(bits(attend)).toEqual(bits(step));
      expect(bits(attend)).toEqual(bits(whole));
    });

    test('prefill in chunks is prefill in one', () => {
      const [q, k, v] = [queriesOf(150), keysOf(150, 1), valuesOf(150, 2)];
      const cache = make();
      const out = Tensor.full([2, 6, 150, 20], NaN);
      const lse = Tensor.full([2, 6, 150], NaN);
      for (const [begin, end] of [
        [0, 1],
        [1, 65],
        [65, 66],
        [66, 150],
      ]) {
        const part = (x: Tensor): Tensor => x.slice(2, begin, end);
        const got = cache.step(part(q), part(k), part(v), { out: part(out), returnLse: true });
        for (let n = 0; n < 12; n++)
          lse.data.set(got.lse.data.subarray(n * (end - begin), (n + 1) * (end - begin)), n * 150 + begin);
      }
      expectWithin({ out, lse }, yardstickOfInputs({ q, k, v, options: { causal: true } }));
    });

    test('write into out, and return it', () => {
      const cache = filled(9);
      const out = Tensor.full([2, 6, 1, 20], NaN);
      expect(cache.attend(queriesOf(1), { out })).toBe(out);
      expect(out.data).toEqual(cache.attend(queriesOf(1)).data);
      const got = cache.step(queriesOf(1), keysOf(1, 6), valuesOf(1, 7), { out, returnLse: true });
      expect(got.out).toBe(out);
      expect(out.data).toEqual(cache.attend(queriesOf(1)).data);
    });

    test('an empty cache gives zeros and -Infinity, or the sink', () => {
      const cache = make();
      const nothing = cache.attend(queriesOf(2), { returnLse: true });
      expect(nothing.out.data.every((x) => x === 0)).toBe(true);
      expect(nothing.lse.data.every((x) => x === -Infinity)).toBe(true);
      const sinks = [1, 2, 3, 4, 5, 6];
      const { lse } = cache.attend(queriesOf(1), { sinks, returnLse: true });
      expect([...lse.data]).toEqual([...sinks, ...sinks]);
      expect(cache.keys().shape).toEqual([2, 2, 0, 24]);
    });

    test('no queries and no tokens are legal', () => {
      const cache = filled(3);
      expect(cache.attend(queriesOf(0)).shape).toEqual([2, 6, 0, 20]);
      expect(cache.step(queriesOf(0), keysOf(0, 1), valuesOf(0, 1)).shape).toEqual([2, 6, 0, 20]);
      expect(cache.length).toBe(3);
    });

    test('refuse what does not fit, and leave the cache and out as they were', () => {
      const cache = filled(5);
      const out = Tensor.full([2, 6, 1, 20], 7);
      const [k, v] = [keysOf(1, 4), valuesOf(1, 5)];
      const cases: [unknown, object, unknown, ...string[]][] = [
        [Tensor.zeros([2, 6, 1, 25]), {}, ShapeError, 'q.headDim must equal', '[2, 6, 1, 25]', 'headDim 24'],
        [Tensor.zeros([2, 5, 1, 24]), {}, ShapeError, 'q.numHeads', '[2, 5, 1, 24]'],
        [Tensor.zeros([1, 6, 1, 24]), {}, ShapeError, 'batch', '[1, 6, 1, 24]'],
        [Tensor.zeros([6, 1, 24]), {}, ShapeError, '[6, 1, 24]'],
        [queriesOf(1).to('int8'), {}, DTypeError, 'int8'],
        [queriesOf(1), { scael: 1 }, OptionError, "did you mean 'scale'"],
        [queriesOf(1), { kvLengths: [5, 5] }, OptionError, "'kvLengths' does not apply here"],
        [queriesOf(1), { cuSeqlensQ: [0, 1] }, OptionError, "'cuSeqlensQ' does not apply here"],
        [queriesOf(1), { scale: NaN }, OptionError, 'scale', 'NaN'],
        [queriesOf(1), { window: { left: -1 } }, OptionError, 'window.left'],
        [queriesOf(1), { mask: Tensor.zeros([99], { dtype: 'bool' }) }, ShapeError, 'mask', '99'],
        [queriesOf(1), { mask: Tensor.zeros([1]) }, SdpaError, "'bias'"],
        [queriesOf(1), { out: Tensor.zeros([2, 6, 2, 20]) }, ShapeError, 'out'],
        [queriesOf(1), { signal: AbortSignal.abort() }, OptionError, 'signal'],
        [
          queriesOf(1),
          { backend: backend === 'native' ? 'reference' : 'native' },
          OptionError,
          `belongs to the ${backend} backend`,
        ],
      ];
      for (const [q, given, error, ...words] of cases) {
        const call = { out, ...given };
        expectRefused(cache, () => cache.attend(q as Tensor, call), error, 'KVCache.attend', ...words);
        expectRefused(cache, () => cache.step(q as Tensor, k, v, call), error, 'KVCache.step', ...words);
      }
      expect(out.data.every((x) => x === 7)).toBe(true);
    });
  });

  describe('truncate', () => {
    test('forgets the newest, and append overwrites them', () => {
      const cache = filled(100);
      const held = cache.byteLength;
      expect(cache.truncate(40)).toBe(cache);
      expectHolds(cache, keysOf(100, 1).slice(2, 0, 40), valuesOf(100, 2).slice(2, 0, 40));
      cache.append(keysOf(3, 6), valuesOf(3, 7));
      expect(cache.length).toBe(43);
      expect(cache.keys().slice(2, 40).toArray()).toEqual(keysOf(3, 6).toArray());
      expect(cache.values().slice(2, 40).toArray()).toEqual(valuesOf(3, 7).toArray());
      expect(cache.byteLength).toBe(held);
      const inputs = { q: queriesOf(1), k: cache.keys(), v: cache.values(), options: { causal: true } };
      expectWithin(cache.attend(queriesOf(1), { returnLse: true }), yardstickOfInputs(inputs));
      expect(cache.truncate(0).length).toBe(0);
    });

    test.each([-1, 6, 1.5, NaN, '3', null, undefined, Infinity])('refuses %s of 5', (length) => {
      const cache = filled(5);
      const words = ['KVCache.truncate', 'from 0 to 5', String(length)];
      expectRefused(cache, () => cache.truncate(length as number), OptionError, ...words);
    });
  });

  test('keys and values are copies', () => {
    const cache = filled(5);
    cache.keys().data.fill(NaN);
    cache.values().data.fill(NaN);
    expectHolds(cache, keysOf(5, 1), valuesOf(5, 2));
    const k = keysOf(1, 4);
    const kept = cache.append(k, valuesOf(1, 5)).keys();
    k.data.fill(NaN);
    expect(cache.keys()).toEqual(kept);
  });

  describe('dispose', () => {
    test('frees at once; twice is harmless; any use throws DisposedError', async () => {
      const cache = filled(70);
      expect(cache.byteLength).toBeGreaterThan(0);
      cache.dispose();
      cache.dispose();
      cache[Symbol.dispose]();
      expect([cache.length, cache.capacity, cache.byteLength, cache.dtype]).toEqual([0, 0, 0, 'float32']);
      const [q, k, v] = [queriesOf(1), keysOf(1, 4), valuesOf(1, 5)];
      const uses: Record<string, () => unknown> = {
        append: () => cache.append(k, v),
        attend: () => cache.attend(q),
        step: () => cache.step(q, k, v),
        truncate: () => cache.truncate(0),
        keys: () => cache.keys(),
        values: () => cache.values(),
      };
      for (const [name, use] of Object.entries(uses)) {
        expect(use).toThrow(DisposedError);
        expect(use).toThrow(`KVCache.${name}: the cache was disposed`);
      }
      await expect(cache.attendAsync(q)).rejects.toThrow(DisposedError);
      await expect(cache.stepAsync(q, k, v)).rejects.toThrow('KVCache.stepAsync: the cache was disposed');
    });

    test('is what Symbol.dispose does', () => {
      const cache = filled(3);
      cache[Symbol.dispose]();
      expect(() => cache.keys()).toThrow(DisposedError);
    });
  });

  test('an append beyond all memory is refused, and the cache stays as it was', () => {
    const cache = new KVCache({ numKvHeads: 1, headDim: 2 ** 20, valueDim: 1, backend });
    const row = new Float32Array(2 ** 20);
    const many = (dim: number): Tensor => new Tensor(row, [1, 1, 2 ** 16, dim], { strides: [0, 0, 0, 1] });
    const one = (dim: number): Tensor => new Tensor(row.subarray(0, dim), [1, 1, 1, dim]);
    cache.append(one(2 ** 20), one(1));
    expect(() => cache.append(many(2 ** 20), many(1))).toThrow(CapacityError);
    expect(cache.length).toBe(1);
    expect(cache.append(one(2 ** 20), one(1)).length).toBe(2);
  });
});
