import { afterEach, beforeEach, describe, expect, test, vi } from 'vitest';
import { Ceilings } from '../../../lib/cli/ceilings.ts';
import type { Addon } from '../../../lib/native/addon.ts';

/** Seconds that a probe takes for one iteration, on a clock that stands still otherwise. */
const SECONDS = 1e-5;
let now = 0;
beforeEach(() => void vi.spyOn(performance, 'now').mockImplementation(() => now));
afterEach(() => vi.restoreAllMocks());

function fakeAddon({ tiles }: { tiles: boolean }) {
  const calls: { iterations: number; threads: number }[] = [];
  const probe = (flops: number) => (iterations: number, threads: number) => {
    calls.push({ iterations, threads });
    now += 1000 * SECONDS * iterations;
    return flops * iterations * threads;
  };
  const addon = { fmaProbe: probe(10), tileProbe: tiles ? probe(40) : () => 0 };
  return { addon: addon as unknown as Addon, calls };
}

describe('Ceilings', () => {
  test('rates are FLOPs of all threads by seconds', () => {
    const { addon, calls } = fakeAddon({ tiles: true });
    const ceilings = new Ceilings(addon, 3);
    expect(ceilings.fma(0.01)).toBeCloseTo((3 * 10) / SECONDS, 0);
    expect(ceilings.tile(0.01)).toBeCloseTo((3 * 40) / SECONDS, 0);
    expect(calls.every(({ threads }) => threads === 3)).toBe(true);
  });

  test.each([
    ['nothing', 0, 0.002],
    ['10 ms', 0.01, 0.01],
    ['a minute', 60, 0.05],
  ])('asked for %s, the first probe already runs %d -> %d s', (_, asked, spent) => {
    for (const name of ['fma', 'tile'] as const) {
      const { addon, calls } = fakeAddon({ tiles: true });
      new Ceilings(addon, 1)[name](asked);
      expect(calls.at(-1)!.iterations * SECONDS).toBeCloseTo(spent, 4);
    }
  });

  const bfloat16 = { dtype: 'bfloat16' } as const;
  const float16 = { dtype: 'float16', precision: 'medium' } as const;
  const float32 = { dtype: 'float32' } as const;
  const high = { dtype: 'float32', precision: 'high' } as const;
  const medium = { dtype: 'float32', precision: 'medium' } as const;

  test('with tiles, they bound bfloat16 and precision medium', () => {
    const ceilings = new Ceilings(fakeAddon({ tiles: true }).addon, 1);
    expect(ceilings.hasTiles).toBe(true);
    for (const workload of [bfloat16, medium]) expect(ceilings.unitOf(workload)).toBe('tile');
    for (const workload of [float32, high, float16]) expect(ceilings.unitOf(workload)).toBe('FMA');
    expect(ceilings.products('tile', 0)).toBeCloseTo(4 * ceilings.products('FMA', 0), 0);
  });

  test('without tiles, FMAs bound everything', () => {
    const ceilings = new Ceilings(fakeAddon({ tiles: false }).addon, 1);
    expect(ceilings.hasTiles).toBe(false);
    expect(ceilings.tile(0.01)).toBe(0);
    for (const workload of [bfloat16, medium, float32, high, float16])
      expect(ceilings.unitOf(workload)).toBe('FMA');
  });
});
