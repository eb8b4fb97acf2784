import { expect, test } from 'vitest';
import { attention, attentionAsync } from '../../lib/attention.ts';
import { ShapeError } from '../../lib/errors.ts';
import { Tensor } from '../../lib/tensor.ts';

// The reference computes on the event loop itself, and lets it turn: between heads, rows and stretches of keys alike.
const make = (length: number, seed: number): Tensor => Tensor.randn([1, 1, length, 32], { seed });
const given = { backend: 'reference' } as const;
const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 1));
const transfer = (x: Tensor): void => {
  const buffer = x.data.buffer as ArrayBuffer;
  structuredClone(buffer, { transfer: [buffer] });
};

test.each([
  ['many rows', 3000, 3000],
  ['one row of many keys', 1, 400_000],
])('an abort stops it early: %s', { retry: 3 }, async (_, qLen, kvLen) => {
  const qkv = [make(qLen, 1), make(kvLen, 2), make(kvLen, 3)] as const;
  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  const begin = performance.now();
  if (qLen === 1) await attentionAsync(...qkv, given);
  const whole = performance.now() - begin;
  if (qLen === 1) expect(turns).toBeGreaterThan(3);
  const controller = new AbortController();
  const call = attentionAsync(...qkv, { ...given, signal: controller.signal });
  await turn();
  const aborted = performance.now();
  controller.abort('enough');
  await expect(call).rejects.toBe('enough');
  clearInterval(timer);
  // 9 million scores of 32 channels take a second at least, a row of 400 000 keys what it took above.
  expect(performance.now() - aborted).toBeLessThan(qLen === 1 ? whole : 500);
});

test('the bits of the synchronous form', async () => {
  const qkv = [make(40, 1), make(9000, 2), make(9000, 3)] as const;
  const options = { ...given, causal: true, window: { left: 5000 } };
  expect((await attentionAsync(...qkv, options)).data).toEqual(attention(...qkv, options).data);
});

test.each(['q', 'k', 'v', 'out'] as const)('%s transferred meanwhile: an error', async (name) => {
  const tensors = { q: make(300, 1), k: make(3000, 2), v: make(3000, 3), out: make(300, 4) };
  const { q, k, v, out } = tensors;
  const call = attentionAsync(q, k, v, { ...given, out });
  await turn();
  transfer(tensors[name]);
  await expect(call).rejects.toThrow(ShapeError);
  await expect(call).rejects.toThrow(`the memory of ${name} was transferred while the call ran`);
});
