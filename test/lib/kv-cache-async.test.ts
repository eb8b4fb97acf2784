import { beforeAll, describe, expect, test } from 'vitest';
import type { AttentionResult } from '../../lib/attention.ts';
import { DisposedError, OptionError, ShapeError } from '../../lib/errors.ts';
import { KVCache } from '../../lib/kv-cache.ts';
import { memoryInfo } from '../../lib/memory-info.ts';
import { Tensor } from '../../lib/tensor.ts';
import { backendsUnderTest } from '../backends.ts';
import { expectHolds, keysOf, LAYOUT, queriesOf, valuesOf } from '../cache-parts.ts';

describe.each(backendsUnderTest())('$name', ({ backend, select }) => {
  beforeAll(select);

  const filled = (tokens: number): KVCache =>
    new KVCache({ ...LAYOUT, backend }).append(keysOf(tokens, 1), valuesOf(tokens, 2));
  const bits = ({ out, lse }: AttentionResult): unknown[] => [out.data, lse.data];
  const token = (): [Tensor, Tensor, Tensor] => [queriesOf(1, 6), keysOf(1, 4), valuesOf(1, 5)];

  test('gives the same bits', async () => {
    const [now, later] = [filled(700), filled(700)];
    const given = { sinks: [0, 1, 2, 3, 4, 5], returnLse: true } as const;
    expect(bits(await later.attendAsync(queriesOf(40), given))).toEqual(
      bits(now.attend(queriesOf(40), given)),
    );
    expect(bits(await later.stepAsync(...token(), given))).toEqual(bits(now.step(...token(), given)));
    expectHolds(later, now.keys(), now.values());
    const out = Tensor.empty([2, 6, 1, 20]);
    expect(await later.attendAsync(queriesOf(1), { out })).toBe(out);
  });

  test('one call at a time: every other use is refused until it settles', async () => {
    const cache = filled(5);
    const pending = cache.stepAsync(...token());
    expect(cache.length).toBe(5);
    const busy = 'an asynchronous call is running on this cache; await it first';
    const [q, k, v] = token();
    for (const use of [
      () => cache.append(k, v),
      () => cache.attend(q),
      () => cache.step(q, k, v),
      () => cache.truncate(0),
      () => cache.keys(),
      () => cache.values(),
    ]) {
      expect(use).toThrow(OptionError);
      expect(use).toThrow(busy);
    }
    await expect(cache.attendAsync(q)).rejects.toThrow(busy);
    await expect(cache.stepAsync(q, k, v)).rejects.toThrow(busy);
    await pending;
    expect(cache.length).toBe(6);
    expect(cache.attend(q).data).toEqual((await pending).data);
  });

  test('dispose meanwhile lets the call end, and frees then', async () => {
    const cache = filled(300);
    const want = cache.attend(queriesOf(20)).data;
    const pending = cache.attendAsync(queriesOf(20));
    cache.dispose();
    expect(() => cache.keys()).toThrow(DisposedError);
    const { caches } = memoryInfo();
    expect((await pending).data).toEqual(want);
    expect([cache.length, cache.byteLength]).toEqual([0, 0]);
    if (backend === 'native') expect(memoryInfo().caches).toBeLessThan(caches);
  });

  test('a signal aborted before: rejects with its reason, and nothing is appended', async () => {
    const cache = filled(5);
    const reason = new Error('enough');
    const signal = AbortSignal.abort(reason);
    await expect(cache.stepAsync(...token(), { signal })).rejects.toBe(reason);
    await expect(cache.attendAsync(queriesOf(1), { signal })).rejects.toBe(reason);
    expectHolds(cache, keysOf(5, 1), valuesOf(5, 2));
  });

  test('a signal aborted meanwhile: likewise', async () => {
    const cache = filled(300);
    const controller = new AbortController();
    const reason = { any: 'value' };
    const [k, v] = [keysOf(200, 4), valuesOf(200, 5)];
    const pending = cache.stepAsync(queriesOf(200), k, v, { signal: controller.signal });
    controller.abort(reason);
    await expect(pending).rejects.toBe(reason);
    expectHolds(cache, keysOf(300, 1), valuesOf(300, 2));
    expect(cache.step(...token()).data).toEqual(filled(300).step(...token()).data);
  });

  // [what, options, tokens before, tokens of the call, more options of the call]
  const kinds: [string, object, number, number, object][] = [
    ['plain', {}, 300, 150, {}],
    ['int8', { dtype: 'int8' }, 300, 150, {}],
    ['a window', { window: 256 }, 511, 1, {}],
    ['a window that moves far', { window: 256 }, 600, 700, {}],
    ['a window with sinks', { window: 256, sinkTokens: 4 }, 771, 3, {}],
    ['a window of int8', { window: 256, dtype: 'int8' }, 511, 1, {}],
    ['the first lengths', {}, 40, 3, { lengths: [1, 3] }],
  ];
  const entries = { ...LAYOUT, backend };
  const hash = (cache: KVCache): string => Buffer.from(cache.save()).toString('base64');

  test.each(kinds)('an aborted step leaves no trace: %s', async (_, layout, before, count, options) => {
    const cache = new KVCache({ ...entries, ...layout }).append(keysOf(before, 1), valuesOf(before, 2));
    const fork = cache.fork();
    for (const one of [cache, fork]) {
      const saved = hash(one);
      const controller = new AbortController();
      const pending = one.stepAsync(queriesOf(count), keysOf(count, 4), valuesOf(count, 5), {
        ...options,
        signal: controller.signal,
      });
      controller.abort('enough');
      await expect(pending).rejects.toBe('enough');
      expect(hash(one)).toBe(saved);
      expect([one.length, [...one.lengths]]).toEqual([before, [before, before]]);
    }
    const twin = new KVCache({ ...entries, ...layout }).append(keysOf(before, 1), valuesOf(before, 2));
    expect(cache.attend(queriesOf(1)).data).toEqual(twin.attend(queriesOf(1)).data);
    const step = [queriesOf(count), keysOf(count, 4), valuesOf(count, 5), options] as const;
    expect((await cache.stepAsync(...step)).data).toEqual(twin.step(...step).data);
    expect(hash(cache)).toBe(hash(twin));
  });

  test('an aborted step leaves no trace: entries of different lengths', async () => {
    for (const window of [undefined, 256]) {
      const make = (): KVCache =>
        new KVCache({ ...entries, window })
          .append(keysOf(511, 1), valuesOf(511, 2), { lengths: [511, 7] })
          .append(keysOf(3, 6), valuesOf(3, 7), { lengths: [2, 3] });
      const [cache, twin] = [make(), make()];
      const controller = new AbortController();
      const pending = cache.stepAsync(queriesOf(2), keysOf(2, 4), valuesOf(2, 5), {
        lengths: [1, 2],
        signal: controller.signal,
      });
      controller.abort('enough');
      await expect(pending).rejects.toBe('enough');
      expect(hash(cache)).toBe(hash(twin));
      expect(hash(cache.keep([1]))).toBe(hash(twin.keep([1])));
    }
  });

  test('bad input rejects, and the cache is usable at once', async () => {
    const cache = filled(5);
    const [q, k, v] = token();
    await expect(cache.stepAsync(q, v, v)).rejects.toThrow(ShapeError);
    await expect(cache.stepAsync(v, k, v)).rejects.toThrow(ShapeError);
    await expect(cache.attendAsync(q, { signal: 3 } as never)).rejects.toThrow(
      'signal must be an AbortSignal',
    );
    await expect(cache.attendAsync(q, { sgnal: null } as never)).rejects.toThrow("did you mean 'signal'");
    expectHolds(cache, keysOf(5, 1), valuesOf(5, 2));
  });
});
