import { describe, expect, test } from 'vitest';
import { OptionError } from '../../../lib/errors.ts';
import { alibiSlopes } from '../../../lib/modules/alibi.ts';

/** The recursion of the paper's own code, to compare the closed form with. */
function paperSlopes(n: number): number[] {
  const powerOf2 = (m: number) => {
    const start = 2 ** -(2 ** -(Math.log2(m) - 3));
    return Array.from({ length: m }, (_, i) => start * start ** i);
  };
  if (Number.isInteger(Math.log2(n))) return powerOf2(n);
  const closest = 2 ** Math.floor(Math.log2(n));
  const rest = paperSlopes(2 * closest).filter((_, i) => i % 2 === 0);
  return [...powerOf2(closest), ...rest.slice(0, n - closest)];
}

describe('alibiSlopes', () => {
  test('gives the geometric sequence of a power of two, exactly', () => {
    const slopes = alibiSlopes(8);
    expect(slopes.shape).toEqual([8]);
    expect(slopes.dtype).toBe('float32');
    expect([...slopes.data]).toEqual([1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 32, 1 / 64, 1 / 128, 1 / 256]);
  });

  test('fills up from the next power of two', () => {
    expect([...alibiSlopes(3).data]).toEqual([2 ** -4, 2 ** -8, 2 ** -2]);
    expect(alibiSlopes(12).at(8)).toBe(Math.fround(Math.SQRT1_2));
  });

  test.each([1, 2, 5, 6, 7, 16, 20, 40, 71, 112, 128])(
    'agrees with the code of the paper for %i heads',
    (n) => {
      const slopes = alibiSlopes(n);
      // A float64 power of a power is off by a few n ulp, far below one float32 rounding of 2^-24.
      paperSlopes(n).forEach((slope, i) => {
        expect(Math.abs(slopes.at(i) / slope - 1)).toBeLessThanOrEqual(2 ** -24 + n * 2 ** -50);
      });
    },
  );

  test.each([0, -1, 1.5, Number.NaN, '8', null, undefined, {}])('refuses %s', (n) => {
    expect(() => alibiSlopes(n as number)).toThrow(OptionError);
    expect(() => alibiSlopes(n as number)).toThrow(/numHeads/);
  });
});
