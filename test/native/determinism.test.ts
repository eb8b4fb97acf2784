import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type AttentionResult, attention } from '../../lib/attention.ts';
import type { DType } from '../../lib/dtype.ts';
import { KVCache, type KVCacheOptions } from '../../lib/kv-cache.ts';
import { Tensor } from '../../lib/tensor.ts';
import { backendsUnderTest } from '../backends.ts';

// What holds to the last bit, beyond the same call on the same machine (docs/RELIABILITY.md, Determinism). Between ISAs
// nothing does; scripts/soak/determinism.mjs is the long form of the rest.

const script = resolve(import.meta.dirname, '../../scripts/soak/determinism.mjs');
const natives = backendsUnderTest().filter(({ backend }) => backend === 'native');
const isaOf = (name: string): string => name.slice('native/'.length);

const bytesOf = (x: Tensor): Buffer => {
  const { data } = x.contiguous();
  return Buffer.from(data.buffer, data.byteOffset, data.byteLength);
};
const expectSameBits = (got: Tensor, want: Tensor): void =>
  expect(bytesOf(got).equals(bytesOf(want)), `${got.shape} against ${want.shape}`).toBe(true);

const made: KVCache[] = [];
afterEach(() => {
  for (const cache of made.splice(0)) cache.dispose();
});

describe.each(natives)('$name', ({ name, backend, select }) => {
  beforeAll(select);

  test('19 problems, any threads, sync and async, alone and beside busy processes', () => {
    const args = [script, '--runs', '6', '--load-every', '4', '--isa', isaOf(name), '--json'];
    const env = {
      ...process.env,
      NODE_SDPA_ISA: isaOf(name),
      NODE_SDPA_BACKEND: '',
      NODE_SDPA_NUM_THREADS: '',
    };
    const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8', env });
    expect(JSON.parse(stdout || '{}'), stderr).toEqual({
      isa: isaOf(name),
      runs: 6,
      problems: 19,
      differ: {},
    });
  });

  const randomOf =
    (dtype: DType) =>
    (heads: number, length: number, seed: number): Tensor =>
      Tensor.randn([1, heads, length, 32], { seed, dtype });

  describe.each(['float32', 'float16', 'bfloat16', 'int8'] as const)('a cache of %s', (cacheDType) => {
    const dtype: DType = cacheDType === 'int8' ? 'float32' : cacheDType;
    const random = randomOf(dtype);
    const cacheOf = (k: Tensor, v: Tensor, options: Partial<KVCacheOptions> = {}): KVCache => {
      const cache = new KVCache({ numKvHeads: 2, headDim: 32, dtype: cacheDType, backend, ...options });
      made.push(cache);
      return cache.append(k, v);
    };
    const forkOf = (cache: KVCache): KVCache => {
      const fork = cache.fork();
      made.push(fork);
      return fork;
    };

    test.each([
      [300, 1],
      [3000, 1],
      [700, 3],
      [700, 64],
    ])('%i tokens, %i queries: how it came to be changes no bit', (length, count) => {
      const [q, k, v] = [random(4, count, 1), random(2, length, 2), random(2, length, 3)];
      const begin = length - count;
      const cut = (x: Tensor, from: number, to?: number): Tensor => x.slice(2, from, to);
      const cache = cacheOf(k, v);
      const want = cache.attend(q);
      if (cacheDType !== 'int8')
        expectSameBits(want, attention(q, k, v, { causal: true, backend }) as Tensor);
      expectSameBits(cacheOf(cut(k, 0, begin), cut(v, 0, begin)).step(q, cut(k, begin), cut(v, begin)), want);
      expectSameBits(forkOf(cache).attend(q), want);
      const late = forkOf(cacheOf(cut(k, 0, 100), cut(v, 0, 100))).append(cut(k, 100), cut(v, 100));
      expectSameBits(late.attend(q), want);
      const loaded = KVCache.load(cache.save(), { backend });
      made.push(loaded);
      expectSameBits(loaded.attend(q), want);
      const longer = cacheOf(k, v).append(cut(k, 0, 9), cut(v, 0, 9));
      longer.truncate(length);
      expectSameBits(longer.attend(q), want);
    });

    test('many caches that share nothing are as many steps', () => {
      const prompts = [300, 900].map(
        (length, n) => [random(2, length, n), random(2, length, n + 5)] as const,
      );
      const [q, k, v] = [4, 2, 2].map((heads, n) => Tensor.randn([2, heads, 1, 32], { seed: 20 + n, dtype }));
      const together = KVCache.stepAll(
        prompts.map(([pk, pv]) => cacheOf(pk, pv)),
        q,
        k,
        v,
      );
      prompts.forEach(([pk, pv], n) => {
        const [qn, kn, vn] = [q, k, v].map((x) => x.slice(0, n, n + 1));
        expectSameBits(together.slice(0, n, n + 1), cacheOf(pk, pv).step(qn, kn, vn));
      });
    });

    test('a cache with a window is a window over all', () => {
      const [q, k, v] = [random(4, 1, 1), random(2, 1000, 2), random(2, 1000, 3)];
      const kept = cacheOf(k.slice(2, 0, 50), v.slice(2, 0, 50), { window: 100, sinkTokens: 4 });
      for (let at = 50; at < 950; at += 50) kept.append(k.slice(2, at, at + 50), v.slice(2, at, at + 50));
      const all = cacheOf(k.slice(2, 0, 950), v.slice(2, 0, 950));
      for (let t = 950; t < 1000; t++) {
        const token = [k.slice(2, t, t + 1), v.slice(2, t, t + 1)] as const;
        expectSameBits(
          kept.step(q, ...token),
          all.step(q, ...token, { window: { left: 99, sinkTokens: 4 } }),
        );
      }
    });
  });

  describe.each(['float32', 'float16', 'bfloat16'] as const)('%s', (dtype) => {
    const random = randomOf(dtype);

    test('prefill in chunks, a head alone, a sequence alone', () => {
      const [q, k, v] = [random(4, 1000, 1), random(2, 1000, 2), random(2, 1000, 3)];
      const given = { causal: true, backend } as const;
      const whole = attention(q, k, v, given) as Tensor;
      // More than 48 query rows of a key head, here 2 a query: fewer go through decode, which sums in another order.
      for (const chunk of [25, 64, 100, 300]) {
        for (let at = 0; at + chunk <= 1000; at += chunk) {
          const end = at + chunk;
          const part = attention(
            q.slice(2, at, end),
            k.slice(2, 0, end),
            v.slice(2, 0, end),
            given,
          ) as Tensor;
          expectSameBits(part, whole.slice(2, at, end));
        }
      }
      const head = [q.slice(1, 2, 4), k.slice(1, 1, 2), v.slice(1, 1, 2)] as const;
      expectSameBits(attention(...head, given) as Tensor, whole.slice(1, 2, 4));
      const flat = [q, k, v].map((x) => x.squeeze(0)) as [Tensor, Tensor, Tensor];
      const ends = Int32Array.of(0, 1000);
      const ragged = attention(...flat, { ...given, cuSeqlensQ: ends, cuSeqlensK: ends }) as Tensor;
      expectSameBits(ragged, whole.squeeze(0));
    });

    // Tiles of bfloat16 weights sum them once more for the lse, in prefill and in decode of many rows.
    test.each([1, 3, 6, 12, 24, 25, 200])('%i queries, with lse or without', (count) => {
      const [q, k, v] = [random(4, count, 1), random(2, 1000, 2), random(2, 1000, 3)];
      for (const precision of ['highest', 'high', 'medium'] as const) {
        const given = { causal: true, precision, backend } as const;
        const { out } = attention(q, k, v, { ...given, returnLse: true }) as AttentionResult;
        expectSameBits(out, attention(q, k, v, given) as Tensor);
      }
    });
  });
});
