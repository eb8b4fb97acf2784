import { runInNewContext } from 'node:vm';
import { beforeAll, describe, expect, test } from 'vitest';
import { KVCache } from '../../lib/kv-cache.ts';
import { Tensor } from '../../lib/tensor.ts';
import { backendsUnderTest } from '../backends.ts';

const random = (heads: number, tokens: number, seed: number): Tensor =>
  Tensor.randn([1, heads, tokens, 64], { seed });

const bytes = ({ data }: Tensor): Buffer => Buffer.from(data.buffer, data.byteOffset, data.byteLength);

/** Runs `act` until JavaScript is stopped, as by Ctrl-C in the REPL: no catch and no finally runs then. */
function stopIn(act: () => unknown): void {
  const stopped = (): unknown => runInNewContext('act()', { act }, { timeout: 5 });
  expect(stopped).toThrow(/timed out/);
}

describe.each(backendsUnderTest())('$name: JavaScript stops while a cache changes', ({ backend, select }) => {
  beforeAll(select);
  // Many milliseconds, so that the time is out in the middle of it.
  const count = backend === 'native' ? 1500 : 60;
  const [q, k, v] = [random(8, count, 1), random(2, count, 2), random(2, count, 3)];
  const [q1, k1, v1] = [random(8, 1, 4), random(2, 1, 5), random(2, 1, 6)];
  const given = { threads: 1 } as const;

  test.each([
    ['step', (cache: KVCache) => cache.step(q, k, v, given)],
    ['stepAll', (cache: KVCache) => KVCache.stepAll([cache], q, k, v, given)],
    ['step after step', (cache: KVCache) => [1, 2, 3].map(() => cache.step(q, k, v, given))],
  ])('%s: it tells what it holds, and goes on from there', (_, act) => {
    const [cache, twin] = [0, 1].map(() =>
      new KVCache({ numKvHeads: 2, headDim: 64, backend }).append(k1, v1),
    );
    stopIn(() => act(cache));
    for (let n = 1; n < cache.length; n += count) twin.append(k, v);
    const expectAlike = (): void => {
      expect(cache.length).toBe(twin.length);
      expect(bytes(cache.keys()).equals(bytes(twin.keys()))).toBe(true);
    };
    expectAlike();
    expect(cache.step(q1, k1, v1).data).toEqual(twin.step(q1, k1, v1).data);
    expectAlike();
    stopIn(() => act(cache));
    for (let n = twin.length; n < cache.length; n += count) twin.append(k, v);
    for (const each of [cache, twin]) each.keep([0]);
    expectAlike();
  });
});
