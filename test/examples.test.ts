import { execFile } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';

const folder = fileURLToPath(new URL('../examples/', import.meta.url));
const root = fileURLToPath(new URL('..', import.meta.url));
const run = promisify(execFile);

// Each is a program that a reader copies: it imports the package by its name, ends well, and prints something.
describe('examples', () => {
  test.each(readdirSync(folder).filter((name) => name.endsWith('.mjs')))(
    '%s',
    async (name) => {
      const { stdout, stderr } = await run(process.execPath, [`${folder}${name}`], { cwd: root });
      expect(stdout.trim().split('\n').length).toBeGreaterThan(2);
      expect(stderr).toBe('');
    },
    60_000,
  );
});
