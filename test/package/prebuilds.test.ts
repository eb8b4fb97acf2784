import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { prebuildFile } from '../../lib/native/loader.ts';
import { loadPrebuild } from '../../lib/native/prebuilds.cjs';

const root = resolve(import.meta.dirname, '../..');

test('the file of a platform names its C library on Linux only', () => {
  expect(prebuildFile('linux', 'x64', false)).toBe('linux-x64/node-sdpa.glibc.node');
  expect(prebuildFile('linux', 'arm64', true)).toBe('linux-arm64/node-sdpa.musl.node');
  expect(prebuildFile('darwin', 'arm64', false)).toBe('darwin-arm64/node-sdpa.node');
});

describe('every file that ships', () => {
  const text = readFileSync(join(root, 'lib/native/prebuilds.cjs'), 'utf8');
  const cases = [...text.matchAll(/case '([^']+)':\s*return \{ addon: require\('([^']+)'\) \};/g)];
  const expected = [
    'linux-x64',
    'linux-arm64',
    'darwin-x64',
    'darwin-arm64',
    'win32-x64',
    'win32-arm64',
  ].flatMap((target) => {
    const [platform, arch] = target.split('-');
    return [...new Set([false, true].map((isMusl) => prebuildFile(platform, arch, isMusl)))];
  });

  test('is required by its own name', () => {
    for (const [, name, path] of cases) expect(path).toBe(`../../prebuilds/${name}`);
    expect(cases.map(([, name]) => name).sort()).toEqual(expected.sort());
  });

  test('is asked for by the release workflow', () => {
    const workflow = readFileSync(join(root, '.github/workflows/release.yml'), 'utf8');
    for (const file of expected) expect(workflow).toContain(file);
  });
});

test('no other file is looked for', () => {
  expect(loadPrebuild('aix-ppc64/node-sdpa.node')).toEqual({});
});

test('an addon that cannot be loaded is an error with its reason, not a slow path unheard', () => {
  const folder = mkdtempSync(join(tmpdir(), 'node-sdpa-prebuilds-'));
  try {
    cpSync(join(root, 'dist'), join(folder, 'dist'), { recursive: true });
    writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
    const file = join(folder, 'prebuilds', prebuildFile(process.platform, process.arch, false));
    mkdirSync(join(file, '..'), { recursive: true });
    writeFileSync(file, 'no library'.repeat(1000));
    writeFileSync(
      join(folder, 'use.mjs'),
      "import { attention, Tensor } from './dist/index.js'; const x = Tensor.zeros([1, 1, 2, 8]); attention(x, x, x); attention(x, x, x);",
    );
    const run = (backend: string) =>
      spawnSync(process.execPath, ['use.mjs'], {
        cwd: folder,
        encoding: 'utf8',
        env: { ...process.env, NODE_SDPA_BACKEND: backend },
      });
    const quiet = run('auto');
    expect(quiet.status).toBe(0);
    expect(quiet.stderr.trim().split('\n')).toHaveLength(1);
    expect(quiet.stderr).toMatch(/slow TypeScript backend.*node-sdpa(\.\w+)?\.node: (?!not there)\S/);
    const strict = run('native');
    expect(strict.status).toBe(1);
    expect(strict.stderr).toContain('NativeLoadError');
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
});
