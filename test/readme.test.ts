import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';

const root = resolve(import.meta.dirname, '..');
const text = readFileSync(join(root, 'README.md'), 'utf8');
const scripts = [...text.matchAll(/^```js\n(.*?)^```/gms)].map(([, script]) => script);

/** Inside the package 'node-sdpa' resolves to it, as it does for a user who installed it. */
let folder: string;
beforeAll(() => {
  mkdirSync(join(root, '.cache'), { recursive: true });
  folder = mkdtempSync(join(root, '.cache', 'readme-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function run(script: string): { status: number | null; stdout: string; stderr: string } {
  const file = join(folder, 'script.mjs');
  writeFileSync(file, script);
  return spawnSync(process.execPath, [file], { encoding: 'utf8' });
}

describe('the scripts of README.md', () => {
  test('the first gives the same numbers from attention and referenceAttention', () => {
    expect(scripts[0].trim().split('\n').length).toBeLessThanOrEqual(10);
    expect(run(scripts[0])).toMatchObject({ status: 0, stdout: '[ 1, 8, 256, 64 ] the same numbers\n' });
  });

  test('the second decodes through a cache', () => {
    expect(run(scripts[1])).toMatchObject({ status: 0, stdout: '520 tokens cached\n', stderr: '' });
  });

  test('there is no third that nobody runs', () => expect(scripts).toHaveLength(2));
});

test('every local link of README.md leads somewhere', () => {
  const links = [...text.matchAll(/\]\((?!https?:)([^)#]+)\)/g)].map(([, link]) => link);
  expect(links.length).toBeGreaterThan(0);
  for (const link of links) expect(existsSync(join(root, link)), link).toBe(true);
});
