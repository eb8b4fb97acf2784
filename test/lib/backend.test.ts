import { cpSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { loadAddon } from '../../lib/native/loader.ts';
import { runChild, runChildOk } from '../child.ts';

// Which backend serves is a matter of the process, so each test has one of its own.

const hasAddon = !(loadAddon() instanceof Error);

const attend = `
const x = sdpa.Tensor.randn([1, 2, 4, 8], { seed: 1 });
const sum = (t) => t.data.reduce((a, b) => a + b, 0);
`;
const caught = `
const caught = (act) => { try { act(); return null; } catch (e) { return { name: e.name, code: e.code, message: e.message }; } };
`;

interface Caught {
  readonly name: string;
  readonly code: string;
  readonly message: string;
}

describe.runIf(hasAddon)('NODE_SDPA_BACKEND', () => {
  const backendOf = (value?: string): string =>
    runChildOk<string>(
      'console.log(JSON.stringify(sdpa.backendInfo().backend))',
      value === undefined ? {} : { env: { NODE_SDPA_BACKEND: value } },
    );

  test.each([undefined, '', 'auto', 'native'])('%s: the addon', (value) => {
    expect(backendOf(value)).toBe('native');
  });

  test('reference: the oracle; a call may still ask for the addon', () => {
    const got = runChildOk<{ info: { isa: string; reason: string }; same: boolean; native: boolean }>(
      `${attend}
      const out = sdpa.attention(x, x, x);
      const native = sdpa.attention(x, x, x, { backend: 'native' });
      console.log(JSON.stringify({
        info: sdpa.backendInfo(),
        same: Buffer.from(out.data.buffer).equals(Buffer.from(sdpa.referenceAttention(x, x, x).data.buffer)),
        native: Math.abs(sum(native) - sum(out)) < 1e-4,
      }));`,
      { env: { NODE_SDPA_BACKEND: 'reference' } },
    );
    expect(got).toMatchObject({
      info: { backend: 'reference', isa: 'typescript' },
      same: true,
      native: true,
    });
    expect(got.info.reason).toContain('NODE_SDPA_BACKEND');
  });

  test.each(['gpu', 'Native', ' native'])('%s is refused, by whatever computes', (value) => {
    const got = runChildOk<Caught[]>(
      `${attend}${caught}
      const later = await sdpa.attentionAsync(x, x, x).catch((e) => ({ name: e.name, code: e.code, message: e.message }));
      console.log(JSON.stringify([
        caught(() => sdpa.attention(x, x, x)),
        caught(() => new sdpa.KVCache({ numKvHeads: 1, headDim: 8 })),
        caught(() => sdpa.backendInfo()),
        later,
      ]));`,
      { env: { NODE_SDPA_BACKEND: value } },
    );
    for (const error of got) {
      expect(error).toMatchObject({ name: 'OptionError', code: 'ERR_OPTION' });
      expect(error.message).toContain(`'auto', 'native' or 'reference', got '${value}'`);
    }
  });
});

describe('without an addon', () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(join(tmpdir(), 'node-sdpa-bare-'));
    cpSync(resolve(import.meta.dirname, '../../dist'), join(folder, 'dist'), { recursive: true });
    writeFileSync(join(folder, 'package.json'), JSON.stringify({ type: 'module' }));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const everything = `${attend}${caught}
    const out = sdpa.attention(x, x, x, { causal: true });
    const later = await sdpa.attentionAsync(x, x, x, { causal: true });
    const cache = new sdpa.KVCache({ numKvHeads: 2, headDim: 8 }).append(x, x);
    const cached = cache.attend(x);
    const want = sdpa.referenceAttention(x, x, x, { causal: true });
    sdpa.setNumThreads(3);
    console.log(JSON.stringify({
      sums: [out, later, cached].map((t) => sum(t) - sum(want)),
      info: sdpa.backendInfo(),
      threads: sdpa.getNumThreads(),
      native: caught(() => sdpa.attention(x, x, x, { backend: 'native' })),
      cache: caught(() => new sdpa.KVCache({ numKvHeads: 1, headDim: 8, backend: 'native' })),
      mixed: caught(() => cache.attend(x, { backend: 'native' })),
    }));`;

  test('all works in TypeScript, and stderr says so once', () => {
    const { status, stdout, stderr } = runChild(everything, { folder: join(folder, 'dist') });
    expect(status, stderr).toBe(0);
    const got = JSON.parse(stdout);
    expect(got.sums).toEqual([0, 0, 0]);
    expect(got.threads).toBe(1);
    expect(got.info).toMatchObject({ backend: 'reference', isa: 'typescript', isas: [], threads: 1 });
    expect(got.info.reason).toContain('build/Release/node_sdpa.node: not there');
    expect(got.info.reason).toContain("'npm run build'");
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
    expect(stderr).toContain('node-sdpa: using the slow TypeScript backend: no addon for');
    for (const error of [got.native, got.cache]) {
      expect(error).toMatchObject({ name: 'NativeLoadError', code: 'ERR_NATIVE_LOAD' });
      expect(error.message).toContain('could be loaded; tried');
    }
    expect(got.mixed).toMatchObject({ code: 'ERR_OPTION' });
  });

  test('who asks for the reference hears nothing', () => {
    const quiet = runChild(everything, {
      folder: join(folder, 'dist'),
      env: { NODE_SDPA_BACKEND: 'reference' },
    });
    expect(quiet.stderr).toBe('');
    const { info } = JSON.parse(quiet.stdout);
    expect(info.reason).toContain('NODE_SDPA_BACKEND asks for the reference backend');
  });

  test('NODE_SDPA_BACKEND=native throws', () => {
    const got = runChildOk<Caught>(
      `${attend}${caught}console.log(JSON.stringify(caught(() => sdpa.attention(x, x, x))));`,
      { folder: join(folder, 'dist'), env: { NODE_SDPA_BACKEND: 'native' } },
    );
    expect(got).toMatchObject({ name: 'NativeLoadError', code: 'ERR_NATIVE_LOAD' });
  });

  test('an addon that cannot be loaded is no addon, and the reason says why', () => {
    const broken = join(folder, 'broken');
    cpSync(join(folder, 'dist'), join(broken, 'dist'), { recursive: true });
    const release = join(broken, 'build/Release');
    cpSync(join(folder, 'package.json'), join(broken, 'package.json'));
    cpSync(join(folder, 'package.json'), join(release, 'node_sdpa.node'));
    const got = runChildOk<{ backend: string; reason: string }>(
      'console.log(JSON.stringify(sdpa.backendInfo()))',
      { folder: join(broken, 'dist') },
    );
    expect(got.backend).toBe('reference');
    expect(got.reason).toMatch(
      /node_sdpa\.node: .*(invalid ELF header|not a mach-o|file too short|not a valid)/i,
    );
  });
});
