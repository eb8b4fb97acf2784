import { beforeAll, describe, expect, test } from 'vitest';
import type { AttentionResult } from '../../lib/attention.ts';
import { DisposedError, OptionError, ShapeError } from '../../lib/errors.ts';
import { KVCache } from '../../lib/kv-cache.ts';
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
    expect((await pending).data).toEqual(want);
    expect([cache.length, cache.byteLength]).toEqual([0, 0]);
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
