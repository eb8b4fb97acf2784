import { describe, expect, test } from 'vitest';
import { ProgressBar } from '../../../lib/cli/progress-bar.ts';
import { SHAPES, verifyMachine } from '../../../lib/cli/verify-matrix.ts';
import { loadAddon } from '../../../lib/native/loader.ts';

describe('without files', () => {
  const quiet = new ProgressBar({ write: () => {} });

  test('every ISA, dtype and path', async () => {
    const report = await verifyMachine(quiet, [SHAPES[1], SHAPES[8]]);
    expect(report.pass).toBe(true);
    const addon = loadAddon();
    const isas = addon instanceof Error ? ['typescript'] : addon.isas();
    expect(report.rows.map(({ isa, dtype, path }) => `${isa} ${dtype} ${path}`)).toEqual(
      isas.flatMap((isa) =>
        ['float32', 'float16', 'bfloat16'].flatMap((dtype) => [
          `${isa} ${dtype} attention`,
          `${isa} ${dtype} KVCache`,
        ]),
      ),
    );
    for (const row of report.rows) expect(row).toMatchObject({ problems: 18, failed: 0 });
  });
});
