import { afterAll, describe, expect, test } from 'vitest';
import { loadAddon } from '../../lib/native/loader.ts';

const addon = loadAddon();
const isas = addon instanceof Error ? [] : addon.isas();

describe.runIf(isas.length > 0)('probes', () => {
  if (addon instanceof Error) return;
  const active = addon.activeIsa();
  afterAll(() => void addon.selectIsa(active));

  describe.each(isas)('%s', (isa) => {
    test.each(['fmaProbe', 'tileProbe'] as const)('%s counts the work of all threads', (name) => {
      addon.selectIsa(isa);
      const once = addon[name](10, 1);
      expect(addon[name](30, 1)).toBe(3 * once);
      expect(addon[name](10, 4)).toBe(4 * once);
      // Whole vectors of FMAs; whole tiles, or none at all.
      if (name === 'fmaProbe' || once > 0) expect(once).toBeGreaterThanOrEqual(10 * 2 * 4);
    });

    test('has tiles exactly where its name speaks of bfloat16 products', () => {
      addon.selectIsa(isa);
      expect(addon.tileProbe(1, 1) > 0).toBe(isa === 'amx' || isa === 'avx512bf16');
    });
  });
});
