import { beforeAll, describe, expect, test } from 'vitest';
import type { DType } from '../../lib/dtype.ts';
import { CapacityError, DisposedError, OptionError } from '../../lib/errors.ts';
import type { CacheAttentionOptions } from '../../lib/kv-cache.ts';
import { Tensor } from '../../lib/tensor.ts';
import { backendsUnderTest } from '../backends.ts';
import { foreign, outFor, token, useTwins } from '../cache-twins.ts';

/** The same values in the order [B, L, H, D]. */
const tokenMajor = (x: Tensor): Tensor => x.transpose(1, 2).contiguous().transpose(1, 2);

/** The memory of x with its rows read from the last to the first. */
function backwards({ data, shape, strides: [batch, head, row] }: Tensor): Tensor {
  return new Tensor(data, shape, { strides: [batch, head, -row, 1], offset: head - row });
}

describe.each(backendsUnderTest())('$name', (under) => {
  const { backend, select } = under;
  beforeAll(select);
  const { twins, expectRepeated } = useTwins(under);

  describe('a step like the last one gives the bits of one that is validated', () => {
    test.each<[string, CacheAttentionOptions]>([
      ['nothing', {}],
      ['a scale', { scale: 0.3 }],
      ['a softcap', { softcap: 2 }],
      ['no causality', { causal: false }],
      ['a window', { window: { left: 5 } }],
      ['a window with sinks', { window: { left: 3, right: null, sinkTokens: 2 } }],
      ['one thread, highest precision', { threads: 1, precision: 'highest' }],
      ['its backend', { backend }],
      ['null', { scale: null, window: null, mask: null, sinks: null, queryOffset: null, returnLse: false }],
    ])('with %s among its options', (_, options) => {
      const pair = twins();
      for (let n = 0; n < 20; n++) pair.step(token(), { ...options });
      pair.expectAlike();
      expectRepeated(19);
    });

    test.each<[DType, DType]>([
      ['float16', 'float16'],
      ['bfloat16', 'bfloat16'],
      ['bfloat16', 'float32'],
      ['float16', 'bfloat16'],
    ])('on a cache of %s by queries of %s', (dtype, qDType) => {
      const pair = twins({ dtype });
      for (let n = 0; n < 12; n++) pair.step(token(1, dtype, qDType));
      pair.expectAlike();
      expectRepeated(11);
    });

    test('of several tokens', () => {
      const pair = twins();
      for (let n = 0; n < 4; n++) pair.step(token(5), { window: { left: 9 } });
      pair.expectAlike();
      expectRepeated(3);
    });

    test('of strided tensors', () => {
      const pair = twins();
      for (let n = 0; n < 4; n++) {
        const { q, k, v } = token(3);
        const turned = { q: tokenMajor(q), k: tokenMajor(k), v: tokenMajor(v) };
        pair.step(turned, {}, tokenMajor(outFor(q)));
      }
      for (let n = 0; n < 4; n++) {
        const { q, k, v } = token(4);
        const turned = { q: backwards(q), k: backwards(k), v: backwards(v) };
        pair.step(turned, {}, backwards(outFor(q)));
      }
      pair.expectAlike();
      expectRepeated(6);
    });

    test('of one batch entry without its axis', () => {
      const pair = twins({ batch: 1 });
      const first = (x: Tensor): Tensor => x.slice(0, 0, 1).squeeze(0);
      for (let n = 0; n < 4; n++) {
        const { q, k, v } = token(2);
        pair.step({ q: first(q), k: first(k), v: first(v) });
      }
      pair.expectAlike();
      expectRepeated(3);
    });

    test('whose tensors move through larger ones', () => {
      const pair = twins();
      const { q, k, v } = token(9);
      const out = Tensor.full([2, 6, 9, 20], 7);
      for (const i of [0, 1, 8, 3, 7, 2]) {
        const at = (x: Tensor): Tensor => x.slice(2, i, i + 1);
        pair.step({ q: at(q), k: at(k), v: at(v) }, {}, at(out));
      }
      expect(
        out
          .slice(2, 4, 7)
          .toFloat32Array()
          .every((x) => x === 7),
      ).toBe(true);
      pair.expectAlike();
      expectRepeated(5);
    });

    test('in a fresh result each time where it gets no out', () => {
      const { cache, twin } = twins();
      const results = Array.from({ length: 4 }, () => {
        const { q, k, v } = token();
        const got = cache.step(q, k, v);
        expect(got).toEqual(twin.step(foreign(q), k, v));
        return got;
      });
      expect(new Set(results.map(({ data }) => data)).size).toBe(4);
      expectRepeated(3);
    });

    test('after append, attend, truncate and an asynchronous step', async () => {
      const pair = twins();
      const { q, k, v } = token(700);
      pair.step(token());
      pair.both((cache) => cache.append(k, v));
      pair.step(token());
      pair.both((cache) => cache.truncate(350));
      pair.step(token());
      expect(pair.cache.attend(q).data).toEqual(pair.twin.attend(q).data);
      pair.step(token());
      await pair.cache.stepAsync(q, k, v);
      pair.twin.append(k, v);
      pair.step(token());
      pair.expectAlike();
      expectRepeated(4);
    });

    test('while the memory grows, and is told', () => {
      const { cache, twin } = twins({ headDim: 512, valueDim: 512 });
      const random = (seed: number): Tensor => Tensor.randn([2, 2, 1, 512], { seed });
      const [q, k, v] = [random(1), random(2), random(3)];
      cache.step(q, k, v);
      const before = cache.byteLength;
      for (let n = 0; n < 100; n++) cache.step(q, k, v);
      for (let n = 0; n < 101; n++) twin.append(k, v);
      expect(cache.byteLength).toBeGreaterThan(before);
      if (backend === 'native') expect(cache.byteLength).toBe(twin.byteLength);
      expect(cache.keys().data).toEqual(twin.keys().data);
      expectRepeated(100);
    });

    test('in turns with another cache, in one out', () => {
      const [one, two] = [twins(), twins({ dtype: 'bfloat16' })];
      const out = Tensor.empty([2, 6, 1, 20]);
      for (let n = 0; n < 5; n++) {
        one.step(token(), { scale: 0.1 }, out);
        two.step(token(1, 'bfloat16', 'float32'), { scale: 0.9 }, out);
      }
      expectRepeated(8);
    });

    test('in an out where its values come from', () => {
      const { cache, twin } = twins({ valueDim: 24 });
      for (let n = 0; n < 3; n++) {
        const { q, k } = token();
        const out = Tensor.randn([2, 6, 1, 24], { seed: n });
        const v = out.slice(1, 0, 2);
        const want = twin.step(foreign(q), k, v.clone());
        expect(cache.step(q, k, v, { out }).data).toEqual(want.data);
      }
      expectRepeated(2);
    });
  });

  test('beyond maxLength it is refused, and goes on after truncate', () => {
    const pair = twins({ maxLength: 4 });
    for (let n = 0; n < 4; n++) pair.step(token());
    const { q, k, v } = token();
    pair.refuse({ q, k, v }, { out: outFor(q) }, CapacityError);
    pair.both((cache) => cache.truncate(1));
    pair.step(token());
    pair.expectAlike();
    expectRepeated(4);
  });

  test('it is refused while an asynchronous call runs, and after dispose', async () => {
    const { cache } = twins();
    const { q, k, v } = token();
    for (let n = 0; n < 2; n++) cache.step(q, k, v);
    const pending = cache.attendAsync(q);
    expect(() => cache.step(q, k, v)).toThrow('an asynchronous call is running on this cache');
    await pending;
    cache.step(q, k, v);
    expect(cache.length).toBe(3);
    cache.dispose();
    expect(() => cache.step(q, k, v)).toThrow(DisposedError);
    expect(() => cache.step(q, k, v)).toThrow('KVCache.step: the cache was disposed');
  });

  test('it runs anew after one that failed', () => {
    const pair = twins();
    pair.step(token());
    pair.refuse(token(), { scale: NaN }, OptionError);
    pair.step(token());
    pair.expectAlike();
    expectRepeated(1);
  });
});
