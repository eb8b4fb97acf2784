import { beforeAll, describe, expect, test } from 'vitest';
import { type AttentionResult, attention, attentionAsync, referenceAttention } from '../lib/attention.ts';
import { summarizeErrors } from '../lib/error-summary.ts';
import { backendsUnderTest } from './backends.ts';
import { build, CASES, type Case } from './cases.ts';
import { denseAttention } from './dense.ts';
import { expectWithin, yardstickOf } from './tolerance.ts';

test('every case has a name of its own', () => {
  expect(new Set(CASES.map(({ name }) => name)).size).toBe(CASES.length);
});

describe.each(backendsUnderTest())('$name agrees with the oracle', ({ backend, select }) => {
  beforeAll(select);

  test.each(CASES)('$name', (testCase: Case) => {
    const { q, k, v, options } = build(testCase);
    const result = attention(q, k, v, { ...options, backend, returnLse: true }) as AttentionResult;
    expectWithin(result, yardstickOf(testCase));
    if (options.out) expect(result.out).toBe(options.out);
  });

  test('leaves q, k and v as they were', () => {
    const { q, k, v, options } = build(CASES.find(({ name }) => name === 'prefill: causal, softcap')!);
    const before = [q, k, v].map((x) => x.clone().data);
    attention(q, k, v, { ...options, backend });
    expect([q, k, v].map((x) => x.data)).toEqual(before);
  });

  test('gives the same bits whatever the number of threads, sync or async', async () => {
    for (const name of ['kvLen 513 causal', 'decode 5 of 4097', 'ragged: sinkTokens', 'square 257 causal']) {
      const { q, k, v, options } = build(CASES.find((testCase) => testCase.name === name)!);
      const one = attention(q, k, v, { ...options, backend, threads: 1, returnLse: true }) as AttentionResult;
      const many = attention(q, k, v, { ...options, backend, returnLse: true }) as AttentionResult;
      const later = (await attentionAsync(q, k, v, {
        ...options,
        backend,
        threads: 3,
        returnLse: true,
      })) as AttentionResult;
      for (const other of [many, later]) {
        expect(other.out.data).toEqual(one.out.data);
        expect(other.lse.data).toEqual(one.lse.data);
      }
    }
  });
});

describe('the oracle agrees with the contract, written out a second time', () => {
  const work = ({ shape }: Case): number =>
    shape.batch * shape.numHeads * shape.qLen * shape.kvLen * shape.headDim;
  const small = CASES.filter((testCase) => testCase.dtype === undefined && work(testCase) < 700_000);

  test.each(small)('$name', (testCase: Case) => {
    const inputs = build(testCase);
    const want = denseAttention(inputs);
    const got = referenceAttention(inputs.q, inputs.k, inputs.v, {
      ...inputs.options,
      returnLse: true,
    }) as AttentionResult;
    // Both are float64 rounded once: they differ in the order of sums, so by one unit at a tie, or by 1e-13 near zero.
    for (const [a, b] of [
      [got.out, want.out],
      [got.lse, want.lse],
    ]) {
      const errors = summarizeErrors(a, b, 'float32');
      expect(
        errors.maxAbs < 1e-13 || errors.maxUlp <= 1 || errors.relativeFrobenius < 2e-9,
        JSON.stringify(errors),
      ).toBe(true);
    }
  });
});
