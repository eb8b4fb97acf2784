import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { expect, test } from 'vitest';

const root = resolve(import.meta.dirname, '../..');
const built = existsSync(join(root, 'dist/index.js'));
const examples = readdirSync(join(root, 'examples')).filter((name) => name.endsWith('.mjs'));

// They import 'node-sdpa', which inside the package is the package itself.
test.skipIf(!built).each(examples)('examples/%s runs', (name) => {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join('examples', name)], {
    cwd: root,
    encoding: 'utf8',
  });
  expect({ status, stderr }).toEqual({ status: 0, stderr: '' });
  expect(stdout).not.toBe('');
});
