import { describe, expect, it } from 'vitest';
import { OptionError } from '../../lib/errors.ts';
import { createNormal } from '../../lib/random.ts';

const draw = (seed: number | undefined, count: number): number[] => {
  const next = createNormal('test', seed);
  return Array.from({ length: count }, next);
};

describe('createNormal', () => {
  it('repeats itself for a seed, and never without one', () => {
    expect(draw(7, 100)).toEqual(draw(7, 100));
    expect(draw(undefined, 4)).not.toEqual(draw(undefined, 4));
  });

  it('tells seeds apart, beyond 32 bits and below 0 too', () => {
    const firsts = [0, 1, 2, -1, 2 ** 32, 2 ** 32 + 1, 2 ** 53 - 1].map((seed) => draw(seed, 1)[0]);
    expect(new Set(firsts).size).toBe(firsts.length);
  });

  it('has the moments of the standard normal distribution', () => {
    const n = 200_000;
    const values = draw(1, n);
    const moment = (power: number): number => values.reduce((sum, x) => sum + x ** power, 0) / n;
    // Five standard errors of each sample moment, sqrt((E[x^2p] - E[x^p]^2) / n); the moments of order
    // 2, 4, 6, 8 are 1, 3, 15, 105.
    expect(Math.abs(moment(1))).toBeLessThan(5 * Math.sqrt(1 / n));
    expect(Math.abs(moment(2) - 1)).toBeLessThan(5 * Math.sqrt(2 / n));
    expect(Math.abs(moment(3))).toBeLessThan(5 * Math.sqrt(15 / n));
    expect(Math.abs(moment(4) - 3)).toBeLessThan(5 * Math.sqrt(96 / n));
    // Neighbours, which one Box-Muller step makes together, are uncorrelated.
    const product = values.reduce((sum, x, i) => sum + x * (values[i + 1] ?? 0), 0) / n;
    expect(Math.abs(product)).toBeLessThan(5 * Math.sqrt(1 / n));
  });

  it('refuses a seed that is no safe integer', () => {
    for (const seed of [1.5, NaN, 2 ** 53, '1', {}, Symbol('s')]) {
      expect(() => createNormal('Tensor.randn', seed)).toThrow(OptionError);
    }
    expect(() => createNormal('Tensor.randn', 0.5)).toThrow(
      'Tensor.randn: seed must be a safe integer; got 0.5',
    );
  });
});
