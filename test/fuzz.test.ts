import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import { expect, test } from 'vitest';
import { loadAddon } from '../lib/native/loader.ts';

// The short form of `npm run fuzz`: fixed seeds, so that it finds the same every time; two, so that both backends together see
// more. It runs what is compiled, in processes of its own.

const root = resolve(import.meta.dirname, '..');
const backends = loadAddon() instanceof Error ? ['reference'] : ['native', 'reference'];

test.each(backends)('a few thousand hostile calls of the %s backend', (backend) => {
  const args = [
    'scripts/fuzz/main.mjs',
    '--calls',
    '3000',
    '--batch',
    '1000',
    '--jobs',
    '1',
    '--seed',
    backend === 'native' ? '7' : '8',
    '--backend',
    backend,
  ];
  const { status, stdout, stderr } = spawnSync(process.execPath, args, {
    cwd: root,
    encoding: 'utf8',
    timeout: 55_000,
  });
  expect(status, stdout + stderr).toBe(0);
  expect(Number(/^(\d+) calls/m.exec(stdout)?.[1])).toBeGreaterThan(2999);
});
