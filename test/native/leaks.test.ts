import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import { expect, test } from 'vitest';
import { loadAddon } from '../../lib/native/loader.ts';

// A few seconds of scripts/soak/leaks.mjs, whose long form holds memory to 2%: every activity a dozen times.
test.runIf(!(loadAddon() instanceof Error))(
  'nothing is left of mixed work, errors and aborts included',
  () => {
    const script = resolve(import.meta.dirname, '../../scripts/soak/leaks.mjs');
    const args = ['--expose-gc', script, '--minutes', '0', '--slack', '0.25', '--json'];
    const { stdout, stderr } = spawnSync(process.execPath, args, { encoding: 'utf8' });
    expect(JSON.parse(stdout || '{}'), stderr).toMatchObject({
      caches: 0,
      bytes: 0,
      resources: [],
      faults: [],
    });
  },
);
