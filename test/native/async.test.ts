import { stat } from 'node:fs/promises';
import { describe, expect, test } from 'vitest';
import { attention, attentionAsync } from '../../lib/attention.ts';
import { DTypeError, OptionError, ShapeError } from '../../lib/errors.ts';
import { loadAddon } from '../../lib/native/loader.ts';
import { Tensor } from '../../lib/tensor.ts';

const make = (heads: number, length: number, seed: number): Tensor =>
  Tensor.randn([1, heads, length, 64], { seed });

describe.runIf(!(loadAddon() instanceof Error))('attentionAsync on the addon', () => {
  // Some hundred milliseconds of work for one thread, some ten for one with AMX.
  const long = [make(16, 2048, 1), make(16, 2048, 2), make(16, 2048, 3)] as const;
  const given = { backend: 'native', threads: 1 } as const;

  /** A time that a neighbour's burst may have spoilt: once right is right. */
  const timed = { retry: 3 };

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

  test('lets the event loop turn', timed, async () => {
    const { ms, gap } = await watch(() => attentionAsync(...long, given));
    expect(ms).toBeGreaterThan(10);
    expect(gap).toBeLessThan(ms / 2);
  });

  test('an abort ends it early, and its thread is free again', timed, async () => {
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

  test('a call that still waits is settled at once by its abort', timed, async () => {
    const controllers = Array.from({ length: 40 }, () => new AbortController());
    const calls = controllers.map(({ signal }) => attentionAsync(...long, { ...given, signal }));
    const settled = Promise.allSettled(calls);
    await new Promise((resolve) => setTimeout(resolve, 5));
    let ended = 0;
    for (const call of calls)
      void call.then(
        () => ended++,
        () => {},
      );
    controllers[39].abort('enough');
    await expect(calls[39]).rejects.toBe('enough');
    expect(ended).toBeLessThan(30); // while the others go on
    const begin = performance.now();
    for (const controller of controllers) controller.abort('enough');
    const outcomes = await settled;
    // Forty calls take many seconds; stopping them all, those that run too, takes some blocks of keys.
    expect(performance.now() - begin).toBeLessThan(1000);
    expect(outcomes.every((one) => one.status === 'rejected' && one.reason === 'enough')).toBe(true);
  });

  test('short calls and the file system do not wait for long calls', timed, async () => {
    const controller = new AbortController();
    let ended = 0;
    const busy = Array.from({ length: 40 }, () =>
      attentionAsync(...long, { ...given, signal: controller.signal }).then(
        () => ended++,
        () => {},
      ),
    );
    const [q, k, v] = [make(2, 1, 1), make(2, 50, 2), make(2, 50, 3)];
    for (let n = 0; n < 20; n++) {
      const [out] = await Promise.all([attentionAsync(q, k, v), stat(import.meta.filename)]);
      expect(out.data).toEqual(attention(q, k, v).data);
    }
    // A queue in order would have let all of them by.
    expect(ended).toBeLessThan(30);
    controller.abort();
    await Promise.all(busy);
  });

  test('200 calls at once: each its own result', async () => {
    const part = (x: Tensor, heads: number, n: number, length: number): Tensor =>
      x.slice(1, 0, heads).slice(2, n, n + length);
    const problem = (n: number): [Tensor, Tensor, Tensor] => {
      const [qLen, kvLen] = [1 + ((n * 37) % 90), 1 + ((n * 53) % 300)];
      const [q, k, v] = long;
      return [part(q, 4, n, qLen), part(k, 2, n, kvLen), part(v, 2, n, kvLen)];
    };
    const calls = Array.from({ length: 200 }, (_, n) => attentionAsync(...problem(n), { causal: true }));
    const results = await Promise.all(calls);
    const isRight = ({ data }: Tensor, n: number): boolean => {
      const want = attention(...problem(n), { causal: true }).data;
      return Buffer.from(data.buffer).equals(Buffer.from(want.buffer));
    };
    expect(results.filter((out, n) => !isRight(out, n))).toEqual([]);
  });
});
