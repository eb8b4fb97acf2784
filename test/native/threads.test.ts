import { afterEach, beforeAll, describe, expect, test } from 'vitest';
import { type AttentionResult, attention, attentionAsync } from '../../lib/attention.ts';
import { getNumThreads, setNumThreads } from '../../lib/backend-info.ts';
import { KVCache } from '../../lib/kv-cache.ts';
import type { AttentionOptions } from '../../lib/options.ts';
import { Tensor } from '../../lib/tensor.ts';
import { backendsUnderTest } from '../backends.ts';

// Large enough that the work is spread: a prefill in several tasks, a decode in several chunks, sequences of many
// lengths. The bits must not tell who has done which part.
const make = (heads: number, length: number, seed: number): Tensor =>
  Tensor.randn([heads, length, 32], { seed });
const problems: Record<string, { q: Tensor; k: Tensor; v: Tensor; options: AttentionOptions }> = {
  prefill: { q: make(8, 700, 1), k: make(2, 700, 2), v: make(2, 700, 3), options: { causal: true } },
  decode: { q: make(8, 1, 1), k: make(2, 5000, 2), v: make(2, 5000, 3), options: {} },
  'decode of several': {
    q: make(6, 3, 1),
    k: make(2, 3001, 2),
    v: make(2, 3001, 3),
    options: { causal: true },
  },
  ragged: {
    q: make(4, 606, 1),
    k: make(2, 1600, 2),
    v: make(2, 1600, 3),
    options: {
      causal: true,
      cuSeqlensQ: Int32Array.from([0, 5, 5, 305, 306, 606]),
      cuSeqlensK: Int32Array.from([0, 50, 90, 600, 1300, 1600]),
    },
  },
};

const bytesOf = ({ data }: Tensor): Buffer => Buffer.from(data.buffer, data.byteOffset, data.byteLength);
const expectSameBits = (a: Tensor, b: Tensor): void => expect(bytesOf(a).equals(bytesOf(b))).toBe(true);

const before = getNumThreads();
afterEach(() => setNumThreads(before));

describe.each(backendsUnderTest().filter(({ backend }) => backend === 'native'))(
  '$name',
  ({ backend, select }) => {
    beforeAll(select);

    test.each(Object.entries(problems))(
      '%s: the same bits for any threads, any time, sync and async',
      async (_, problem) => {
        const { q, k, v, options } = problem;
        const given = { ...options, backend, returnLse: true } as const;
        setNumThreads(1);
        const want = attention(q, k, v, given) as AttentionResult;
        for (const threads of [1, 2, 3, 4]) {
          setNumThreads(threads);
          const runs: AttentionResult[] = [];
          for (let n = 0; n < 3; n++) runs.push(attention(q, k, v, given) as AttentionResult);
          runs.push((await attentionAsync(q, k, v, given)) as AttentionResult);
          // As many threads by the option of the call, beside others that run at once.
          setNumThreads(4);
          const calls = [0, 1, 2].map(() => attentionAsync(q, k, v, { ...given, threads }));
          runs.push(...((await Promise.all(calls)) as AttentionResult[]));
          for (const { out, lse } of runs) {
            expectSameBits(out, want.out);
            expectSameBits(lse, want.lse);
          }
        }
      },
    );

    test('a cache: likewise', async () => {
      const { q, k, v } = problems.decode;
      const cache = new KVCache({ numKvHeads: 2, headDim: 32, backend });
      setNumThreads(1);
      cache.append(k, v);
      const want = cache.attend(q);
      for (const threads of [2, 3, 4]) {
        setNumThreads(threads);
        const other = new KVCache({ numKvHeads: 2, headDim: 32, backend }).append(k, v);
        expectSameBits(other.keys(), k);
        expectSameBits(other.attend(q), want);
        expectSameBits(await other.attendAsync(q, { threads }), want);
        other.dispose();
      }
    });
  },
);
