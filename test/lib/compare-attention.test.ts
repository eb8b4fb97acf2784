import { inspect } from 'node:util';
import { describe, expect, test } from 'vitest';
import { referenceAttention } from '../../lib/attention.ts';
import { compareAttention } from '../../lib/compare-attention.ts';
import type { DType } from '../../lib/dtype.ts';
import { summarizeErrors } from '../../lib/error-summary.ts';
import { Tensor } from '../../lib/tensor.ts';
import { backendsUnderTest } from '../backends.ts';

const shapes = [
  [1, 4, 20, 16],
  [1, 2, 30, 16],
  [1, 2, 30, 16],
];
const inputs = (dtype: DType = 'float32'): Tensor[] =>
  shapes.map((shape, n) => Tensor.randn(shape, { dtype, seed: n + 1 }));
const [q, k, v] = inputs();

describe('compareAttention', () => {
  test.each(backendsUnderTest())('passes for $name', ({ backend, select }) => {
    select();
    const report = compareAttention(q, k, v, { causal: true, backend });
    expect(report).toMatchObject({ pass: true, dtype: 'float32', backend });
    expect(report.lse?.pass).toBe(true);
    expect(report.relativeFrobenius).toBeLessThan(1e-6);
  });

  test.each<DType>(['float32', 'float16', 'bfloat16'])(
    'passes for the oracle’s own numbers in %s',
    (dtype) => {
      const [a, b, c] = inputs(dtype);
      const report = compareAttention(a, b, c, {}, referenceAttention(a, b, c, { returnLse: true }));
      expect(report).toMatchObject({
        pass: true,
        dtype,
        backend: 'expected',
        maxAbs: 0,
        maxUlp: 0,
        worst: null,
      });
      expect(report.tolerance.maxAbs).toBeGreaterThan(0);
    },
  );

  test('the tolerance is of the size of float32 rounding', () => {
    const { tolerance } = compareAttention(q, k, v, {}, referenceAttention(q, k, v));
    expect(tolerance.maxAbs).toBeGreaterThan(1e-7);
    expect(tolerance.maxAbs).toBeLessThan(5e-6);
    expect(tolerance.relativeFrobenius).toBeLessThan(3e-6);
  });

  test('a wrong element fails, and is shown with its place', () => {
    const wrong = referenceAttention(q, k, v);
    const want = wrong.at(0, 2, 7, 5);
    wrong.data[(2 * 20 + 7) * 16 + 5] += 0.001;
    const report = compareAttention(q, k, v, {}, wrong);
    expect(report.pass).toBe(false);
    expect(report.lse).toBe(null);
    expect(report.worst?.index).toEqual([0, 2, 7, 5]);
    expect(report.worst?.want).toBe(want);
    expect(report.maxAbs).toBeCloseTo(0.001, 5);
    expect(`${report}`).toMatch(
      /^FAIL out \(float32, expected\): max abs 0\.00100 .*worst at \[0, 2, 7, 5\]/,
    );
    expect(inspect(report)).toBe(`${report}`);
    expect(JSON.parse(JSON.stringify(report)).worst.index).toEqual([0, 2, 7, 5]);
  });

  test.each<[string, object]>([
    ['the other alignment of causal', { causal: true, queryOffset: 0 }],
    ['a scale that is off by a thousandth', { causal: true, scale: 0.25025 }],
    ['a window that is one wider', { causal: true, window: { left: 9 } }],
    ['no causal at all', {}],
  ])('%s fails', (_, options) => {
    const wrong = referenceAttention(q, k, v, { ...options, returnLse: true });
    const want = 'window' in options ? { causal: true, window: { left: 8 } } : { causal: true };
    const report = compareAttention(q, k, v, want, wrong);
    expect(report.pass).toBe(false);
    expect(report.lse?.pass).toBe(false);
  });

  test('a wrong lse alone fails', () => {
    const { out, lse } = referenceAttention(q, k, v, { returnLse: true });
    lse.data[3] *= 1.0001;
    const report = compareAttention(q, k, v, {}, { out, lse });
    expect(report).toMatchObject({
      pass: false,
      maxAbs: 0,
      lse: { pass: false, worst: { index: [0, 0, 3] } },
    });
  });

  test('NaN where the oracle is finite fails, and so does a number where it is NaN', () => {
    const nan = referenceAttention(q, k, v);
    nan.data[0] = NaN;
    expect(compareAttention(q, k, v, {}, nan)).toMatchObject({ pass: false, maxAbs: Infinity });
    const spoiled = v.clone();
    spoiled.data[0] = NaN;
    expect(compareAttention(q, k, spoiled, {}, referenceAttention(q, k, v)).pass).toBe(false);
    expect(compareAttention(q, k, spoiled, {}, referenceAttention(q, k, spoiled)).pass).toBe(true);
  });

  test('precision widens the tolerance to what it promises', () => {
    const exact = referenceAttention(q, k, v);
    const [highest, high, medium] = (['highest', 'high', 'medium'] as const).map(
      (precision) => compareAttention(q, k, v, { precision }, exact).tolerance.maxAbs,
    );
    expect(high).toBeGreaterThan(50 * highest);
    expect(high).toBeLessThan(0.01);
    expect(medium).toBeGreaterThan(high);
  });

  test.each<[string, unknown, object, string, RegExp]>([
    [
      'expected of another shape',
      Tensor.zeros([1, 4, 20, 8]),
      {},
      'ERR_SHAPE',
      /expected \[1, 4, 20, 8\], result \[1, 4, 20, 16\]/,
    ],
    ['an lse of another shape', { out: q, lse: q }, {}, 'ERR_SHAPE', /expected\.lse/],
    ['expected in int32', Tensor.zeros([1, 4, 20, 16], { dtype: 'int32' }), {}, 'ERR_DTYPE', /int32/],
    ['the option out', q, { out: q }, 'ERR_OPTION', /'out' does not apply here/],
  ])('refuses %s', (_, expected, options, code, message) => {
    expect(() => compareAttention(q, k, v, options, expected as Tensor)).toThrow(
      expect.objectContaining({ code, message: expect.stringMatching(message) }),
    );
  });
});

describe('summarizeErrors', () => {
  const tensor = (...values: number[]): Tensor => new Tensor(Float32Array.from(values), [values.length]);

  test('counts representable values between the two', () => {
    expect(summarizeErrors(tensor(1), tensor(1 + 2 ** -23), 'float32').maxUlp).toBe(1);
    expect(summarizeErrors(tensor(-1), tensor(-1 - 3 * 2 ** -23), 'float32').maxUlp).toBe(3);
    expect(summarizeErrors(tensor(-(2 ** -149)), tensor(2 ** -149), 'float32').maxUlp).toBe(2);
    expect(summarizeErrors(tensor(1), tensor(1 + 2 ** -7), 'bfloat16').maxUlp).toBe(1);
    expect(summarizeErrors(tensor(1), tensor(1 + 2 ** -9), 'float16').maxUlp).toBe(2);
  });

  test('equal infinities and NaN are no error, unequal ones are infinite', () => {
    const same = tensor(Infinity, -Infinity, NaN, 0);
    expect(summarizeErrors(same, tensor(Infinity, -Infinity, NaN, -0), 'float32')).toMatchObject({
      maxAbs: 0,
      worst: null,
    });
    expect(summarizeErrors(tensor(Infinity), tensor(-Infinity), 'float32').maxAbs).toBe(Infinity);
    expect(summarizeErrors(tensor(NaN), tensor(1), 'float32').maxAbs).toBe(Infinity);
  });

  test('takes norms over all elements', () => {
    const errors = summarizeErrors(tensor(3, 4.5), tensor(3, 4), 'float32');
    expect(errors.relativeFrobenius).toBeCloseTo(0.1, 12);
    expect(errors.maxRel).toBeCloseTo(0.125, 12);
  });
});
