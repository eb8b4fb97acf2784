import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, expect, test } from 'vitest';

const root = resolve(import.meta.dirname, '../..');
let project: string;

function run(command: string, args: string[], cwd = project) {
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd,
    encoding: 'utf8',
    shell: process.platform === 'win32',
  });
  if (error) throw error;
  return { status, stdout, stderr };
}

function runOk(command: string, args: string[], cwd = project) {
  const result = run(command, args, cwd);
  expect(result.status, `${command} ${args.join(' ')}\n${result.stdout}${result.stderr}`).toBe(0);
  return result;
}

// A stranger's project into which the packed tarball has been installed, without a network.
beforeAll(() => {
  expect(existsSync(join(root, 'dist/index.js')), 'dist/ is missing; run npm run build').toBe(true);
  project = mkdtempSync(join(tmpdir(), 'node-sdpa-package-'));
  writeFileSync(join(project, 'package.json'), JSON.stringify({ private: true, type: 'module' }));
  runOk('npm', ['pack', '--ignore-scripts', '--pack-destination', project], root);
  const tarball = readdirSync(project).find((name) => name.endsWith('.tgz'));
  runOk('npm', ['install', '--offline', '--no-audit', '--no-fund', `./${tarball}`]);
});
afterAll(() => rmSync(project, { recursive: true, force: true }));

const smoke = `
const q = Tensor.randn([1, 4, 3, 16], { seed: 1 });
const k = Tensor.randn([1, 2, 5, 16], { seed: 2 });
const v = Tensor.randn([1, 2, 5, 16], { seed: 3 });
const out = attention(q, k, v, { causal: true });
const expected = referenceAttention(q, k, v, { causal: true });
const worst = Math.max(...out.data.map((x, i) => Math.abs(x - expected.data[i])));
console.log(JSON.stringify({ shape: out.shape, worst, backend: backendInfo().backend, reason: backendInfo().reason }));
`;

test('the installed package computes attention, whatever backend it finds', () => {
  writeFileSync(
    join(project, 'smoke.mjs'),
    `import { attention, backendInfo, referenceAttention, Tensor } from 'node-sdpa';\n${smoke}`,
  );
  const { stdout, stderr } = runOk(process.execPath, ['smoke.mjs']);
  const { shape, worst, backend, reason } = JSON.parse(stdout);
  expect(shape).toEqual([1, 4, 3, 16]);
  // float32: headDim + kvLen = 21 rounded operations on values below 4.
  expect(worst).toBeLessThan(21 * 4 * 2 ** -24);
  expect(reason).not.toBe('');
  // The slow backend says so, once.
  expect(stderr.trim().split('\n').filter(Boolean)).toHaveLength(backend === 'native' ? 0 : 1);
});

test('require() gives the same module as import', () => {
  writeFileSync(
    join(project, 'same.cjs'),
    "const { Tensor } = require('node-sdpa'); import('node-sdpa').then((m) => console.log(m.Tensor === Tensor));\n",
  );
  expect(runOk(process.execPath, ['same.cjs']).stdout.trim()).toBe('true');
});

test('the types serve a strict project', () => {
  writeFileSync(
    join(project, 'use.ts'),
    "import { attention, KVCache, Tensor } from 'node-sdpa';\n" +
      'const q: Tensor = Tensor.zeros([1, 1, 1, 8]);\n' +
      'const out: Tensor = attention(q, q, q);\n' +
      'const { lse }: { lse: Tensor } = attention(q, q, q, { returnLse: true });\n' +
      'const cache = new KVCache({ numKvHeads: 1, headDim: 8 });\n' +
      'const step: Tensor = cache.step(q, q, q);\n' +
      "// @ts-expect-error: causal is a boolean\nattention(q, q, q, { causal: 'yes' });\n" +
      'console.log(out, lse, step);\n',
  );
  symlinkSync(join(root, 'node_modules/@types'), join(project, 'node_modules/@types'), 'junction');
  const tsc = join(root, 'node_modules/typescript/bin/tsc');
  const options = ['--noEmit', '--strict', '--module', 'nodenext', '--target', 'es2022', '--types', 'node'];
  runOk(process.execPath, [tsc, ...options, 'use.ts']);
});

test('npx node-sdpa runs in the project and in the checkout', () => {
  for (const cwd of [project, root])
    expect(runOk('npx', ['--no-install', 'node-sdpa', 'info'], cwd).stdout).toMatch(/backend/i);
});
