import { describe, expect, test } from 'vitest';
import { attention, attentionAsync } from '../../lib/attention.ts';
import { Tensor } from '../../lib/tensor.ts';

const q = Tensor.randn([2, 4, 5, 8], { seed: 1 });
const k = Tensor.randn([2, 2, 7, 8], { seed: 2 });
const v = Tensor.randn([2, 2, 7, 6], { seed: 3 });

describe('attentionAsync', () => {
  test('rejects with the reason of a signal that was aborted before, and does nothing', async () => {
    const out = Tensor.full([2, 4, 5, 6], 7);
    const reason = new Error('enough');
    await expect(attentionAsync(q, k, v, { out, signal: AbortSignal.abort(reason) })).rejects.toBe(reason);
    expect(out.data.every((x) => x === 7)).toBe(true);
  });

  test('stops when the signal is aborted', async () => {
    const big = Tensor.randn([1, 8, 300, 16], { seed: 4 });
    const controller = new AbortController();
    const promise = attentionAsync(big, big, big, { backend: 'reference', signal: controller.signal });
    controller.abort();
    await expect(promise).rejects.toMatchObject({ name: 'AbortError' });
  });

  test('gives what attention gives', async () => {
    const got = await attentionAsync(q, k, v, { causal: true, returnLse: true });
    const want = attention(q, k, v, { causal: true, returnLse: true });
    expect(got).toEqual(want);
  });

  test('returns the out that was given', async () => {
    const out = Tensor.empty([2, 4, 5, 6]);
    expect(await attentionAsync(q, k, v, { out })).toBe(out);
    expect(out.data).toEqual(attention(q, k, v).data);
  });
});
