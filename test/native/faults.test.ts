import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';
import { expect, test } from 'vitest';

// Some of what `npm run test:faults` does in full: each request that the addon makes is refused, and the process goes on.
test('no refused request for memory, address space or a thread breaks anything', () => {
  const script = resolve(import.meta.dirname, '../../scripts/test-faults.mjs');
  const { status, stdout, stderr } = spawnSync(process.execPath, [script, '--short'], { encoding: 'utf8' });
  expect(status, stdout + stderr).toBe(0);
  const rounds = /ok, (\d+) rounds/.exec(stdout)?.[1];
  if (rounds === undefined) console.warn(stdout.trim());
  else expect(Number(rounds)).toBeGreaterThan(40);
}, 900_000);
