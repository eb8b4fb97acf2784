import { beforeAll, describe, expect, test } from 'vitest';
import { DisposedError } from '../../lib/errors.ts';
import type { Tensor } from '../../lib/tensor.ts';
import type { ForeignTensor } from '../../lib/tensor-like.ts';
import { backendsUnderTest } from '../backends.ts';
import { token, useTwins } from '../cache-twins.ts';

const getter = (name: string, get: () => unknown): object =>
  Object.defineProperty({}, name, { get, enumerable: true });

// Arguments may be objects whose getters do anything, the first time or when a step has been repeated many times.
describe.each(backendsUnderTest())('$name: a getter', (under) => {
  beforeAll(under.select);
  const { twins, expectRepeated } = useTwins(under);

  test.each(['scale', 'causal', 'queryOffset', 'window', 'mask', 'bias', 'alibiSlopes', 'softcap'])(
    'is asked once a step: %s',
    (name) => {
      const { cache } = twins();
      const { q, k, v } = token();
      let asked = 0;
      const options = getter(name, () => {
        asked++;
        return undefined;
      });
      const calls = [options, options, { scale: 1 }, options, options];
      for (const given of calls) cache.step(q, k, v, given);
      expect(asked).toBe(4);
      cache.attend(q, options);
      expect(asked).toBe(5);
      expectRepeated(2);
    },
  );

  test('may answer differently each time: what it answers is computed', () => {
    const pair = twins();
    const answers = (values: readonly unknown[]): (() => unknown) => {
      let asked = 0;
      return () => values[asked++ >> 1]; // The twin asks first.
    };
    const scales = [0.5, 0.5, 0.1, 0.1, 2];
    const scale = answers(scales);
    for (const _ of scales)
      pair.step(token(), Object.create(null, { scale: { get: scale, enumerable: true } }));
    const left = answers([3, 3, 1, 1]);
    for (let n = 0; n < 4; n++) pair.step(token(), { window: getter('left', left) });
    pair.expectAlike();
    expectRepeated(4);
  });

  test('that throws: what it throws is passed on, and nothing changes', () => {
    const pair = twins();
    const options = { scale: 1, window: { left: 1 } };
    pair.step(token(), { ...options });
    const thrown = new Error('no');
    const fail = (): never => {
      throw thrown;
    };
    const { q, k, v } = token();
    for (const given of [
      getter('scale', fail),
      { scale: 1, window: getter('left', fail) },
      new Proxy(options, { get: fail }),
      new Proxy(options, { ownKeys: fail }),
      new Proxy(options, { getPrototypeOf: fail }),
    ]) {
      expect(() => pair.cache.step(q, k, v, given)).toThrow(thrown);
      pair.expectAlike();
    }
    pair.step(token(), { ...options });
    expectRepeated(1);
  });

  test('of the options that uses the cache: the step follows', () => {
    const { cache, twin } = twins();
    const { q, k, v } = token();
    const during = (act: () => unknown): object => getter('scale', () => void act());
    for (let n = 0; n < 2; n++) cache.step(q, k, v);
    cache.step(
      q,
      k,
      v,
      during(() => cache.append(k, v)),
    );
    cache.step(
      q,
      k,
      v,
      during(() => cache.truncate(2)),
    );
    cache.step(
      q,
      k,
      v,
      during(() => cache.step(q, k, v, { softcap: 3 })),
    );
    for (let n = 0; n < 5; n++) twin.append(k, v);
    expect(cache.step(q, k, v).data).toEqual(twin.step(q, k, v).data);
    expect(cache.keys().data).toEqual(twin.keys().data);
    const disposing = during(() => cache.dispose());
    expect(() => cache.step(q, k, v, disposing)).toThrow(DisposedError);
  });

  test('of the options that starts an asynchronous call: the step is refused', async () => {
    const { cache, twin } = twins();
    const { q, k, v } = token();
    for (let n = 0; n < 3; n++) cache.step(q, k, v);
    for (let n = 0; n < 4; n++) twin.append(k, v);
    const pending: Promise<unknown>[] = [];
    const options = getter('scale', () => void pending.push(cache.stepAsync(q, k, v)));
    expect(() => cache.step(q, k, v, options)).toThrow('an asynchronous call is running on this cache');
    await Promise.all(pending);
    expect(cache.keys().data).toEqual(twin.keys().data);
  });

  test('of a tensor that uses the cache: the call is refused', async () => {
    const { cache } = twins();
    const { q, k, v } = token();
    cache.step(q, k, v);
    const sly = (x: Tensor, act: () => void): ForeignTensor => ({
      get data() {
        act();
        return x.data;
      },
      dims: x.shape,
      type: x.dtype,
    });
    const grow = (): void => void cache.append(k, v);
    const shrink = (): void => void cache.truncate(0);
    const changed = 'a getter of an argument changed the cache';
    expect(() => cache.step(sly(q, grow), k, v)).toThrow(changed);
    expect(() => cache.step(q, sly(k, grow), v)).toThrow(changed);
    expect(() => cache.append(k, sly(v, grow))).toThrow(changed);
    expect(() => cache.attend(sly(q, grow))).toThrow(changed);
    await expect(cache.stepAsync(q, k, sly(v, grow))).rejects.toThrow(changed);
    expect(cache.length).toBe(6);
    await expect(cache.attendAsync(sly(q, shrink))).rejects.toThrow(changed);
    expect(cache.length).toBe(0);
    cache.append(k, v);
    expect(() => cache.attend(sly(q, shrink))).toThrow(changed);
    const disposing = sly(q, () => cache.dispose());
    expect(() => cache.step(disposing, k, v)).toThrow(DisposedError);
  });

  test('and a signal that does: likewise, and the call that it began goes on alone', async () => {
    const { cache, twin } = twins();
    const { q, k, v } = token();
    const sly = (act: () => unknown): AbortSignal =>
      Object.assign(new AbortController().signal, { throwIfAborted: act });
    const changed = 'a getter of an argument changed the cache';
    await expect(cache.stepAsync(q, k, v, { signal: sly(() => cache.append(k, v)) })).rejects.toThrow(
      changed,
    );
    expect(cache.length).toBe(twin.append(k, v).length);
    await expect(cache.attendAsync(q, { signal: sly(() => cache.truncate(0)) })).rejects.toThrow(changed);
    expect(cache.length).toBe(twin.truncate(0).length);
    const pending: Promise<unknown>[] = [];
    const begin = sly(() => pending.push(cache.stepAsync(q, k, v)));
    const busy = 'an asynchronous call is running on this cache';
    await expect(cache.stepAsync(q, k, v, { signal: begin })).rejects.toThrow(busy);
    expect(() => cache.append(k, v)).toThrow(busy);
    await Promise.all(pending);
    expect(cache.keys().data).toEqual(twin.append(k, v).keys().data);
    const disposing = sly(() => cache.dispose());
    await expect(cache.stepAsync(q, k, v, { signal: disposing })).rejects.toThrow(DisposedError);
  });
});
