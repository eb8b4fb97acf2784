import { describe, expect, test } from 'vitest';
import { type AttentionResult, referenceAttention } from '../../lib/attention.ts';
import { compareAttention } from '../../lib/compare-attention.ts';
import { mergeAttention } from '../../lib/merge-attention.ts';
import { Tensor } from '../../lib/tensor.ts';

const q = Tensor.randn([2, 4, 5, 16], { seed: 1 });
const k = Tensor.randn([2, 2, 60, 16], { seed: 2 });
const v = Tensor.randn([2, 2, 60, 16], { seed: 3 });

/** Attention over keys begin to end. */
function part(begin: number, end: number, options: object = {}): AttentionResult {
  return referenceAttention(q, k.slice(2, begin, end), v.slice(2, begin, end), {
    ...options,
    returnLse: true,
  });
}

describe('mergeAttention', () => {
  test.each([[[0, 60]], [[0, 0, 60]], [[0, 1, 60]], [[0, 17, 40, 60]], [[0, 10, 20, 30, 40, 50, 60]]])(
    'of parts cut at %j is attention over all keys',
    (cuts) => {
      const merged = mergeAttention(cuts.slice(1).map((end, n) => part(cuts[n], end)));
      const report = compareAttention(q, k, v, {}, merged);
      expect(report.pass, `${report}`).toBe(true);
    },
  );

  test('is associative, and the order of the parts does not matter', () => {
    const [a, b, c] = [part(0, 20), part(20, 50), part(50, 60)];
    for (const merged of [
      mergeAttention([mergeAttention([a, b]), c]),
      mergeAttention([c, mergeAttention([b, a])]),
    ]) {
      const report = compareAttention(q, k, v, {}, merged);
      expect(report.pass, `${report}`).toBe(true);
    }
  });

  test('causal parts merge when they keep their positions', () => {
    const near = part(30, 60, { causal: true, queryOffset: 25 });
    const far = part(0, 30, { causal: true, queryOffset: 55 });
    const report = compareAttention(q, k, v, { causal: true }, mergeAttention([near, far]));
    expect(report.pass, `${report}`).toBe(true);
  });

  test('sinks count once', () => {
    const sinks = [0, 1, 2, 3];
    const report = compareAttention(
      q,
      k,
      v,
      { sinks },
      mergeAttention([part(0, 20, { sinks }), part(20, 60)]),
    );
    expect(report.pass, `${report}`).toBe(true);
  });

  test('a part that saw no key is inert, whatever its out holds; nothing but such parts give 0 and -Infinity', () => {
    const whole = part(0, 60);
    const empty = { out: Tensor.full(whole.out.shape, NaN), lse: Tensor.full(whole.lse.shape, -Infinity) };
    const merged = mergeAttention([empty, whole, empty]);
    expect(merged.out.data).toEqual(whole.out.data);
    expect(merged.lse.data).toEqual(whole.lse.data);
    const nothing = mergeAttention([empty, empty]);
    expect(nothing.out.data.every((x) => x === 0)).toBe(true);
    expect(nothing.lse.data.every((x) => x === -Infinity)).toBe(true);
  });

  test('NaN spreads', () => {
    const whole = part(0, 60);
    const bad = { out: Tensor.full(whole.out.shape, NaN), lse: Tensor.full(whole.lse.shape, NaN) };
    expect(mergeAttention([whole, bad]).out.data.every((x) => Number.isNaN(x))).toBe(true);
  });

  test('lse far apart do not overflow; equal parts give their mean', () => {
    const at = (out: number, lse: number) => ({ out: Tensor.full([1, 2], out), lse: Tensor.full([1], lse) });
    expect(mergeAttention([at(1, 1e30), at(2, -1e30)]).out.toArray()).toEqual([[1, 1]]);
    const mean = mergeAttention([at(1, 500), at(2, 500)]);
    expect(mean.out.toArray()).toEqual([[1.5, 1.5]]);
    expect(mean.lse.at(0)).toBeCloseTo(500 + Math.log(2), 4);
  });

  test('keeps the dtype, reads strides and any rank', () => {
    const half = {
      out: Tensor.full([3, 4], 2, { dtype: 'bfloat16' }).transpose(0, 1),
      lse: Tensor.zeros([4]),
    };
    const merged = mergeAttention([half, half]);
    expect(merged.out.dtype).toBe('bfloat16');
    expect(merged.out.shape).toEqual([4, 3]);
    expect(merged.out.toFloat32Array().every((x) => x === 2)).toBe(true);
  });

  const one = { out: Tensor.zeros([2, 3]), lse: Tensor.zeros([2]) };
  test.each<[string, unknown, string, RegExp]>([
    ['no parts', [], 'ERR_OPTION', /at least one/],
    ['no list', one, 'ERR_OPTION', /must be a list/],
    ['a part without lse', [{ out: one.out }], 'ERR_OPTION', /parts\[0\] must be \{ out, lse \}.*returnLse/],
    [
      'an lse of another shape',
      [{ out: one.out, lse: Tensor.zeros([3]) }],
      'ERR_SHAPE',
      /out \[2, 3\], lse \[3\]/,
    ],
    [
      'parts of two shapes',
      [one, { out: Tensor.zeros([2, 4]), lse: one.lse }],
      'ERR_SHAPE',
      /parts\[1\]\.out \[2, 4\]/,
    ],
    [
      'parts of two dtypes',
      [one, { out: one.out.to('float16'), lse: one.lse }],
      'ERR_DTYPE',
      /float32.*float16/,
    ],
    ['an int8 out', [{ out: one.out.to('int8'), lse: one.lse }], 'ERR_DTYPE', /int8/],
  ])('refuses %s', (_, parts, code, message) => {
    expect(() => mergeAttention(parts as never)).toThrow(
      expect.objectContaining({ code, message: expect.stringMatching(message) }),
    );
  });
});
