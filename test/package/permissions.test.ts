import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { describe, expect, test } from 'vitest';
import { loadAddon } from '../../lib/native/loader.ts';
import { type ChildResult, runChild, runChildOk } from '../child.ts';

// What the package may reach: no file but its own, no network, no process (SECURITY.md).

const root = resolve(import.meta.dirname, '../..');
const hasAddon = !(loadAddon() instanceof Error);
const permission = process.allowedNodeEnvironmentFlags.has('--permission')
  ? '--permission'
  : '--experimental-permission';
const readable = ['dist/*', 'build/Release/*', 'prebuilds/*', 'package.json'];

/** In a process that may read the package and nothing else. */
function runRestricted(script: string, flags: string[] = [], env: Record<string, string> = {}): ChildResult {
  const reads = readable.map((path) => `--allow-fs-read=${join(root, path)}`);
  return runChild(script, { flags: [permission, ...reads, ...flags], env });
}

const use = `
const x = sdpa.Tensor.randn([1, 2, 50, 16], { seed: 1 });
const cache = new sdpa.KVCache({ numKvHeads: 2, headDim: 16 }).append(x, x);
const shapes = [sdpa.attention(x, x, x), await sdpa.attentionAsync(x, x, x), cache.attend(x), await cache.attendAsync(x)]
  .map(({ shape }) => shape.join());
const copy = sdpa.KVCache.load(cache.save());
copy.dispose();
cache.dispose();
`;
const tell = `
const { backend, reason } = sdpa.backendInfo();
console.log(JSON.stringify({ backend, reason, shapes: new Set(shapes).size }));`;

describe("Node's permission model", () => {
  test.runIf(hasAddon)('with --allow-addons and its own folder all of it works', () => {
    const { status, stdout, stderr } = runRestricted(use + tell, ['--allow-addons']);
    expect(status, stderr).toBe(0);
    expect(JSON.parse(stdout)).toMatchObject({ backend: 'native', shapes: 1 });
    expect(stderr).not.toContain('node-sdpa');
  });

  test.runIf(hasAddon)('without --allow-addons TypeScript computes, and one line says why', () => {
    const { status, stdout, stderr } = runRestricted(use + tell);
    expect(status, stderr).toBe(0);
    const told = JSON.parse(stdout);
    expect(told).toMatchObject({ backend: 'reference', shapes: 1 });
    expect(told.reason).toContain('told to load no addons (ERR_DLOPEN_DISABLED)');
    const lines = stderr.split('\n').filter((line) => line.startsWith('node-sdpa:'));
    expect(lines).toHaveLength(1);
    expect(lines[0]).toContain('using the slow TypeScript backend');
    expect(lines[0]).toContain('also give node --allow-addons and --allow-fs-read=');
  });

  test('without the right to read the addon likewise', () => {
    const flags = [permission, '--allow-addons', `--allow-fs-read=${join(root, 'dist/*')}`];
    const { status, stdout, stderr } = runChild(use + tell, {
      flags: [...flags, `--allow-fs-read=${join(root, 'package.json')}`],
    });
    expect(status, stderr).toBe(0);
    const { backend, reason } = JSON.parse(stdout);
    // A prebuilt addon is loaded without being read.
    if (backend === 'reference') expect(reason).toContain('told not to read it (ERR_ACCESS_DENIED)');
  });

  test.runIf(hasAddon)("NODE_SDPA_BACKEND=native makes it an error that carries Node's", () => {
    const script = `
      const x = sdpa.Tensor.zeros([1, 1, 2, 4]);
      try { sdpa.attention(x, x, x); } catch ({ name, code, cause }) {
        console.log(JSON.stringify({ name, code, cause: cause.code }));
      }`;
    const { stdout, stderr } = runRestricted(script, [], { NODE_SDPA_BACKEND: 'native' });
    const want = { name: 'NativeLoadError', code: 'ERR_NATIVE_LOAD', cause: 'ERR_DLOPEN_DISABLED' };
    expect(JSON.parse(stdout || '{}'), stderr).toEqual(want);
  });
});

describe('importing and using the package', () => {
  test('loads no module of Node for the network, for processes or for workers', () => {
    const script = `
      const before = new Set(process.moduleLoadList);
      await import(url + '?again');
      ${use}
      const loaded = process.moduleLoadList.filter((name) => !before.has(name));
      console.log(JSON.stringify(loaded));`;
    // The first import of the child counts as well: what node itself loads is in neither list.
    const nothing = runChildOk<string[]>('console.log(JSON.stringify(process.moduleLoadList))');
    const bare = spawnSync(
      process.execPath,
      ['--input-type=module', '-e', 'console.log(JSON.stringify(process.moduleLoadList))'],
      {
        encoding: 'utf8',
      },
    );
    const ofNode = new Set(JSON.parse(bare.stdout));
    const loaded = [...nothing.filter((name) => !ofNode.has(name)), ...runChildOk<string[]>(script)];
    const reaching =
      /NativeModule (net|tls|https?|http2|dgram|dns|child_process|cluster|worker_threads|inspector)\b/;
    expect(loaded.filter((name) => reaching.test(name) && !ofNode.has(name))).toEqual([]);
  });

  const hasStrace = spawnSync('strace', ['-o', '/dev/null', 'true']).status === 0;
  test.runIf(hasStrace)('opens no file but its own and the C++ library’s, no socket, no process', () => {
    const folder = mkdtempSync(join(tmpdir(), 'node-sdpa-trace-'));
    const trace = (script: string): string[] => {
      const log = join(folder, 'log');
      const args = ['-f', '-qq', '-e', 'trace=open,openat,socket,connect,execve,fork,vfork', '-o', log];
      const node = [process.execPath, '--input-type=module', '-e', script];
      const { status, stderr } = spawnSync('strace', [...args, ...node], { encoding: 'utf8' });
      expect(status, stderr).toBe(0);
      return readFileSync(log, 'utf8')
        .split('\n')
        .filter(
          (line) =>
            /^\d+ +(open|openat|socket|connect|execve|fork|vfork)\(/.test(line) && !/ = -1 /.test(line),
        )
        .map((line) => /"([^"]*)"/.exec(line)?.[1] ?? line.replace(/^\d+ +/, ''));
    };
    try {
      const url = JSON.stringify(`file://${join(root, 'dist/index.js')}`);
      const usual = new Set(trace('await new Promise(setImmediate)'));
      const more = trace(`const sdpa = await import(${url});${use}`).filter((what) => !usual.has(what));
      const own = (what: string): boolean => what.startsWith(root) || /^\/(proc|sys)\//.test(what);
      const library =
        /^(\/etc\/ld\.so\.cache|\/(usr\/)?lib.*\/lib(stdc\+\+|m|c|gcc_s|dl|pthread)\.so[.\d]*)$/;
      expect(more.filter((what) => !own(what) && !library.test(what))).toEqual([]);
      expect(more.some((what) => what.endsWith('/dist/index.js'))).toBe(true);
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });

  const addon = join(root, 'build/Release/node_sdpa.node');
  const ldd = spawnSync('ldd', [addon], { encoding: 'utf8' });
  test.runIf(ldd.status === 0)('the addon is linked to the C and C++ libraries only', () => {
    const names = ldd.stdout.split('\n').flatMap((line) => /^\s*(\S+)/.exec(line)?.[1] ?? []);
    const known = /^(linux-vdso|lib(stdc\+\+|m|c|gcc_s|dl|pthread)|.*\/ld-linux.*)\.so[.\d]*$/;
    expect(names.filter((name) => !known.test(name))).toEqual([]);
  });
});

describe('a process that was changed', () => {
  test.each(['--frozen-intrinsics', '--disable-proto=delete', '--disable-proto=throw'])('%s', (flag) => {
    expect(runChildOk(use + tell, { flags: [flag] })).toMatchObject({ shapes: 1 });
  });

  const tampering: Record<string, string> = {
    'enumerable names on Object.prototype and Array.prototype': `
      Object.prototype.scale = 3; Object.prototype.causal = 'yes'; Object.prototype.extra = () => {};
      Array.prototype.last = function () { return this[this.length - 1]; };`,
    'Array.prototype.map and join replaced': `
      const { map, join } = Array.prototype;
      Array.prototype.map = function (...args) { return map.apply(this, args); };
      Array.prototype.join = function (...args) { return join.apply(this, args); };`,
    'Symbol.iterator of arrays replaced by one that counts': `
      const iterate = Array.prototype[Symbol.iterator];
      Array.prototype[Symbol.iterator] = function () { globalThis.count = (globalThis.count ?? 0) + 1; return iterate.call(this); };`,
    'numeric setters on Array.prototype': `
      Object.defineProperty(Array.prototype, 7, { set() {}, get() { return 1; }, configurable: true });`,
  };
  test.each(Object.entries(tampering))('%s: the same result, or a typed error', (_, tamper) => {
    const script = `
      const want = (() => { const x = sdpa.Tensor.randn([1, 2, 50, 16], { seed: 1 }); return sdpa.attention(x, x, x).data; })();
      ${tamper}
      let outcome;
      try {
        const x = sdpa.Tensor.randn([1, 2, 50, 16], { seed: 1 });
        const got = sdpa.attention(x, x, x, { __proto__: null }).data;
        outcome = got.every((y, i) => Object.is(y, want[i])) ? 'same' : 'other numbers';
      } catch (error) {
        outcome = error instanceof sdpa.SdpaError ? 'typed' : String(error);
      }
      console.log(JSON.stringify(outcome));`;
    expect(['same', 'typed']).toContain(runChildOk<string>(script));
  });

  test('methods that lie end in an error or in numbers, not in a crash', () => {
    const script = `
      const x = sdpa.Tensor.randn([1, 2, 50, 16], { seed: 1 });
      sdpa.attention(x, x, x);
      let [numbers, errors] = [0, 0];
      const tryOut = (object, name, value) => {
        const before = Object.getOwnPropertyDescriptor(object, name);
        Object.defineProperty(object, name, { ...before, value });
        try { sdpa.attention(x, x, x); numbers++; } catch { errors++; }
        Object.defineProperty(object, name, before);
      };
      for (const name of ['map', 'every', 'some', 'filter', 'slice', 'join', 'reduce', 'forEach', 'includes', 'push'])
        for (const value of [() => undefined, () => [-1, 2 ** 40], () => { throw 1; }]) tryOut(Array.prototype, name, value);
      for (const name of ['isInteger', 'isSafeInteger', 'isFinite'])
        for (const value of [() => true, () => false]) tryOut(Number, name, value);
      for (const name of ['min', 'max', 'floor'])
        for (const value of [() => NaN, () => -1, () => 2 ** 52]) tryOut(Math, name, value);
      console.log(numbers + errors);`;
    const result = runChild(script);
    expect(result, result.stderr).toMatchObject({ status: 0, signal: null, stdout: '45\n' });
  });
});
