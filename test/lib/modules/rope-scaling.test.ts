import { describe, expect, test } from 'vitest';
import { OptionError } from '../../../lib/errors.ts';
import { ropeTables } from '../../../lib/modules/rope.ts';
import type { RopeScaling } from '../../../lib/modules/rope-scaling.ts';

describe('scaling of rope', () => {
  const yarn = { rope_type: 'yarn', factor: 2, original_max_position_embeddings: 64 };
  const longrope = { rope_type: 'longrope', short_factor: [1, 1], long_factor: [1, 1], factor: 2 };

  test.each<[object, number, RegExp]>([
    [
      { ...yarn, mscale: 'abc', mscale_all_dim: 1 },
      1e4,
      /scaling\.mscale must be a positive number; got 'abc'/,
    ],
    [{ ...yarn, mscale: 1, mscale_all_dim: -10 }, 1e4, /scaling\.mscale_all_dim must be a positive number/],
    [{ ...yarn, truncate: 'no' }, 1e4, /scaling\.truncate must be true or false; got 'no'/],
    [{ ...longrope, original_max_position_embeddings: 1 }, 1e4, /not finite/],
    [{ rope_type: 'linear', factor: 1e-320 }, 1e4, /not finite/],
    [{ rope_type: 'default' }, 1e-320, /not finite/],
  ])('%j with theta %j is refused', (scaling, theta, message) => {
    const tables = () => ropeTables({ dim: 4, maxPosition: 2, theta, scaling: scaling as RopeScaling });
    expect(tables).toThrow(OptionError);
    expect(tables).toThrow(message);
  });

  test("dynamic with HunYuan's alpha: theta grows by that, at any length", () => {
    const scaling = { type: 'dynamic', alpha: 1000, factor: 1 };
    for (const maxPosition of [2, 50]) {
      const expected = ropeTables({ dim: 16, maxPosition, theta: 10000 * 1000 ** (16 / 14) });
      expect(ropeTables({ dim: 16, maxPosition, scaling }).cos.data).toEqual(expected.cos.data);
    }
  });

  test('an mscale of 0 is none', () => {
    const plain = ropeTables({ dim: 4, maxPosition: 2, scaling: yarn });
    const zero = ropeTables({ dim: 4, maxPosition: 2, scaling: { ...yarn, mscale: 0, mscale_all_dim: 1 } });
    expect(zero.cos.data).toEqual(plain.cos.data);
  });
});
