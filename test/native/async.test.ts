import { describe, expect, test } from 'vitest';
import { attention, attentionAsync } from '../../lib/attention.ts';
import { DTypeError, OptionError, ShapeError } from '../../lib/errors.ts';
import { loadAddon } from '../../lib/native/loader.ts';
import { Tensor } from '../../lib/tensor.ts';

const make = (heads: number, length: number, seed: number): Tensor =>
  Tensor.randn([1, heads, length, 64], { seed });

describe.runIf(!(loadAddon() instanceof Error))('attentionAsync on the addon', () => {
  // Some hundred milliseconds of work for one thread.
  const long = [make(16, 2048, 1), make(16, 2048, 2), make(16, 2048, 3)] as const;
  const given = { backend: 'native', threads: 1 } as const;

  /** Milliseconds that `work` takes, and the longest time in which the event loop did not turn. */
  async function watch(work: () => Promise<unknown>): Promise<{ ms: number; gap: number }> {
    const begin = performance.now();
    let last = begin;
    let gap = 0;
    const tick = (): void => {
      const now = performance.now();
      gap = Math.max(gap, now - last);
      last = now;
    };
    const timer = setInterval(tick, 1);
    await work();
    clearInterval(timer);
    tick();
    return { ms: last - begin, gap };
  }

  test('lets the event loop turn', async () => {
    const { ms, gap } = await watch(() => attentionAsync(...long, given));
    expect(ms).toBeGreaterThan(40);
    expect(gap).toBeLessThan(ms / 2);
  });

  test('an abort ends it early, and its thread is free again', async () => {
    const { ms } = await watch(() => attentionAsync(...long, given));
    const reason = new Error('enough');
    const controller = new AbortController();
    const aborted = await watch(async () => {
      setTimeout(() => controller.abort(reason), ms / 10);
      await expect(attentionAsync(...long, { ...given, signal: controller.signal })).rejects.toBe(reason);
    });
    expect(aborted.ms).toBeLessThan(ms * 0.75);
  });

  test('AbortSignal.timeout rejects with its TimeoutError', async () => {
    const call = attentionAsync(...long, { ...given, signal: AbortSignal.timeout(5) });
    await expect(call).rejects.toMatchObject({ name: 'TimeoutError' });
  });

  test('an abort afterwards changes nothing', async () => {
    const controller = new AbortController();
    const [q, k, v] = [make(2, 5, 1), make(2, 5, 2), make(2, 5, 3)];
    const out = await attentionAsync(q, k, v, { signal: controller.signal });
    controller.abort();
    expect(out.data).toEqual(attention(q, k, v).data);
  });

  test('many calls at once give each its own result', async () => {
    const problems = Array.from({ length: 48 }, (_, n) => {
      const [qLen, kvLen] = [1 + ((n * 37) % 90), 1 + ((n * 53) % 400)];
      return [make(4, qLen, n), make(2, kvLen, n + 100), make(2, kvLen, n + 200)] as const;
    });
    const results = await Promise.all(problems.map((qkv) => attentionAsync(...qkv, { causal: true })));
    for (const [n, qkv] of problems.entries())
      expect(results[n].data, `call ${n}`).toEqual(attention(...qkv, { causal: true }).data);
  });

  test('bad input rejects and never throws', async () => {
    const [q, k, v] = [make(2, 5, 1), make(2, 5, 2), make(2, 5, 3)];
    const call = (...args: unknown[]): Promise<unknown> =>
      attentionAsync(...(args as Parameters<typeof attentionAsync>));
    await expect(call()).rejects.toThrow('attentionAsync: q must be');
    await expect(call(q, k.slice(2, 0, 3), v)).rejects.toThrow(ShapeError);
    await expect(call(q, k.to('float16'), v)).rejects.toThrow(DTypeError);
    await expect(call(q, k, v, { scale: NaN })).rejects.toThrow(OptionError);
    await expect(call(q, k, v, { signal: 'now' })).rejects.toThrow(
      "signal must be an AbortSignal; got 'now'",
    );
    await expect(call(q, k, v, { sinal: null })).rejects.toThrow("did you mean 'signal'");
  });
});
