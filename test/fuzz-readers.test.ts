import { spawnSync } from 'node:child_process';
import { join, resolve } from 'node:path';
import { expect, test } from 'vitest';

const script = join(resolve(import.meta.dirname, '..'), 'scripts', 'fuzz-readers.mjs');

test.each(['npy', 'safetensors', 'cache', 'config'])(
  'some hundred files that lie to the reader of %s',
  (name) => {
    const { status, stdout, stderr } = spawnSync(
      process.execPath,
      [script, '--only', name, '--runs', '320', '--seed', '1'],
      { encoding: 'utf8' },
    );
    expect(stderr).toBe('');
    expect(stdout).toContain('320 inputs');
    expect(status).toBe(0);
  },
  180_000,
);
