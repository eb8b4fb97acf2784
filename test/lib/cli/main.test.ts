import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, afterEach, describe, expect, test, vi } from 'vitest';
import { Ceilings } from '../../../lib/cli/ceilings.ts';
import { main } from '../../../lib/cli/main.ts';
import { prepare } from '../../../lib/cli/prepare.ts';
import { getNumThreads } from '../../../lib/index.ts';
import type { Addon } from '../../../lib/native/addon.ts';
import { loadAddon } from '../../../lib/native/loader.ts';
import { VERSION } from '../../../lib/version.ts';

const folder = mkdtempSync(join(tmpdir(), 'node-sdpa-cli-'));
vi.mock('../../../lib/cli/prepare.ts', { spy: true });
afterEach(() => vi.clearAllMocks());
afterAll(() => rmSync(folder, { recursive: true, force: true }));

function writeConfig(name: string, fields: object | string): string {
  const file = join(folder, name);
  writeFileSync(file, typeof fields === 'string' ? fields : JSON.stringify(fields));
  return file;
}

const tiny = { hidden_size: 32, num_hidden_layers: 2, num_attention_heads: 2, num_key_value_heads: 1 };
const tinyConfig = writeConfig('tiny.json', { model_type: 'llama', ...tiny });

async function run(...argv: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const written = { stdout: '', stderr: '' };
  const stream = (name: 'stdout' | 'stderr') => ({
    write: (text: string) => {
      written[name] += text;
    },
  });
  const code = await main(argv, { stdout: stream('stdout'), stderr: stream('stderr') });
  return { code, ...written };
}

describe('main', () => {
  test('without a command, and with --help, lists the commands', async () => {
    for (const argv of [[], ['--help'], ['-h'], ['help']]) {
      const { code, stdout, stderr } = await run(...argv);
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
      expect(stdout).toMatch(/^ {2}bench /m);
      expect(stdout).toMatch(/^ {2}info /m);
    }
  });

  test('every command has its --help', async () => {
    for (const name of ['bench', 'verify', 'plan', 'info']) {
      const { code, stdout } = await run(name, '--help');
      expect(code).toBe(0);
      expect(stdout).toMatch(new RegExp(`^node-sdpa ${name} `));
    }
  });

  test('--version', async () => expect((await run('--version')).stdout).toBe(`${VERSION}\n`));

  test.each([
    ['bnech', "node-sdpa: unknown command 'bnech'; did you mean 'bench'?\n"],
    ['constructor', "node-sdpa: unknown command 'constructor'; known are bench, verify, plan, info, build\n"],
  ])('unknown command %s', async (name, stderr) => {
    expect(await run(name)).toEqual({ code: 1, stdout: '', stderr });
  });
});

describe('info', () => {
  test('prints a line for each fact', async () => {
    const { code, stdout } = await run('info');
    expect(code).toBe(0);
    for (const name of ['backend', 'isa', 'features', 'threads', 'version', 'reason'])
      expect(stdout).toMatch(new RegExp(`^${name} +\\S`, 'm'));
  });

  test('--json is JSON', async () => {
    expect(JSON.parse((await run('info', '--json')).stdout)).toMatchObject({ version: VERSION });
  });
});

describe('bench refuses, in one line, writing nothing', () => {
  const broken = writeConfig('broken.json', '{ "hidden_size": 32,\n oops }');
  const lacking = writeConfig('lacking.json', { model_type: 'llama' });
  const strange = writeConfig('strange.json', { ...tiny, layer_types: ['full_attention', 'telepathy'] });
  const linear = writeConfig('linear.json', {
    ...tiny,
    layer_types: ['linear_attention', 'linear_attention'],
    linear_num_value_heads: 2,
    linear_num_key_heads: 2,
    linear_key_head_dim: 8,
    linear_value_head_dim: 8,
  });
  test.each([
    [['--modle', 'x'], /unknown option --modle; did you mean --model\?/],
    [['--model', 'llama3-8c'], /--model: no preset is called 'llama3-8c'; did you mean 'llama3-8b'\?/],
    [['--model', 'llama3-8b', '--config', tinyConfig], /exclude each other/],
    [['--config', join(folder, 'none.json')], /none\.json cannot be read: ENOENT/],
    [['--config', folder], /cannot be read: EISDIR/],
    [['--config', broken], /broken\.json: configJson is not valid JSON/],
    [['--config', lacking], /lacking\.json: .*lacks num_hidden_layers/],
    [['--config', strange], /strange\.json: layer type 'telepathy' is not supported/],
    [['--config', linear], /has linear layers only/],
    [['--context', '512,0'], /--context must be a whole number from 1 to \d+; got '0'/],
    [['--context', '16777216'], /--context 16777216 needs .* GiB/],
    [['--threads', 'many'], /--threads must be a whole number/],
    [['--dtype', 'float64'], /--dtype must be float32, float16, bfloat16 or int8; got 'float64'/],
    [['--precision', 'low'], /--precision must be highest, high or medium; got 'low'/],
    [['--json', join(folder, 'none', 'x.json')], /cannot be written: ENOENT/],
    [['--json', folder], /cannot be written: it is a directory/],
    [['more'], /unexpected argument 'more'/],
  ])('%j', async (argv, message) => {
    const { code, stdout, stderr } = await run('bench', ...argv);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(message);
    expect(stderr).toMatch(/^node-sdpa bench: .*\n$/);
  });
});

describe('bench', () => {
  test('times every phase, prints tables, and writes the same as JSON', async () => {
    const file = join(folder, 'report.json');
    const threads = getNumThreads();
    const argv = ['--config', tinyConfig, '--context', '32', '--threads', '1', '--json', file];
    const { code, stdout, stderr } = await run('bench', ...argv);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(getNumThreads()).toBe(threads);
    for (const text of [
      '2 full (2/1/16)',
      'chunked: prefill by 256 tokens',
      'decode',
      'All 2 attention layers',
    ])
      expect(stdout).toContain(text);

    const report = JSON.parse(readFileSync(file, 'utf8'));
    expect(report).toMatchObject({ page: null, reference: [{ phase: 'prefill' }, { phase: 'decode' }] });
    expect(report.rows.map((row: { phase: string }) => row.phase)).toEqual(['prefill', 'chunked', 'decode']);
    for (const row of report.rows) {
      expect(row.gflopsPerSecond).toBeCloseTo(row.flops / row.milliseconds / 1e6, 6);
      expect(row.context / row.milliseconds).toBeGreaterThan(0);
    }
    const [prefill, , decode] = report.rows;
    expect(decode.gigabytesPerSecond).toBeCloseTo(decode.cachedBytes / decode.milliseconds / 1e6, 6);
    expect(report.totals[0].milliseconds).toBeCloseTo(2 * prefill.milliseconds, 6);
    expect(report.totals[0].tokensPerSecond).toBeCloseTo(32000 / report.totals[0].milliseconds, 6);
  });

  test('--json - prints JSON alone; an encoder is prefilled only', async () => {
    const encoder = writeConfig('encoder.json', { model_type: 'bert', ...tiny });
    const { code, stdout } = await run('bench', '--config', encoder, '--context', '16', '--json', '-');
    expect(code).toBe(0);
    const report = JSON.parse(stdout);
    expect(report.rows).toMatchObject([{ phase: 'prefill', context: 16, fmaCeiling: expect.anything() }]);
    expect(report.notes).toMatchObject([expect.stringMatching(/not causal/)]);
  });

  test.each([
    { dtype: 'bfloat16', precision: 'highest', byTiles: true },
    { dtype: 'float32', precision: 'medium', byTiles: true },
    { dtype: 'float32', precision: 'high', byTiles: false },
    { dtype: 'float16', precision: 'highest', byTiles: false },
  ])('--dtype $dtype --precision $precision: shares of the unit that multiplies it', async (given) => {
    const { dtype, precision, byTiles } = given;
    const file = join(folder, `${dtype}-${precision}.json`);
    const argv = ['--config', tinyConfig, '--context', '300', '--dtype', dtype, '--precision', precision];
    const probes = [vi.spyOn(Ceilings.prototype, 'fma'), vi.spyOn(Ceilings.prototype, 'tile')];
    const { code, stdout } = await run('bench', ...argv, '--json', file);
    expect(code).toBe(0);
    for (const [workload] of vi.mocked(prepare).mock.calls)
      expect(workload).toMatchObject({ dtype, precision });
    const report = JSON.parse(readFileSync(file, 'utf8'));
    const addon = loadAddon() as Addon;
    const unit = byTiles && addon.tileProbe(1, 1) > 0 ? 'tile' : 'FMA';
    expect(probes.map((probe) => probe.mock.calls.length > 0)).toEqual([unit === 'FMA', unit === 'tile']);
    expect(report).toMatchObject({ dtype, precision, productUnit: unit });
    for (const row of report.rows) {
      const { phase, fmaCeiling, fmaShare, tileCeiling, tileShare } = row;
      const is = (name: string): boolean => phase !== 'decode' && name === unit;
      const known = [fmaCeiling, fmaShare, tileCeiling, tileShare].map((x) => x !== null);
      expect(known).toEqual([is('FMA'), is('FMA'), is('tile'), is('tile')]);
    }
    expect(stdout).toContain(unit === 'tile' ? 'of tiles' : 'of FMA');
    expect(stdout).toContain(precision === 'highest' ? `, ${dtype};` : `precision ${precision};`);
  });

  test('a precision of what is not float32 is told to mean nothing', async () => {
    const argv = ['--config', tinyConfig, '--context', '16', '--dtype', 'float16', '--precision', 'high'];
    const { code, stdout } = await run('bench', ...argv);
    expect(code).toBe(0);
    expect(stdout).toContain('precision high is of float32 only: float16 has its own');
  });

  test('runs where only the reference backend serves, without ceilings', async () => {
    process.env.NODE_SDPA_BACKEND = 'reference';
    try {
      const { stdout } = await run('bench', '--config', tinyConfig, '--context', '16', '--json', '-');
      const report = JSON.parse(stdout);
      expect(report).toMatchObject({
        machine: { backend: 'reference' },
        productUnit: null,
        reference: [],
      });
      expect(report.rows).toMatchObject([{ fmaShare: null }, { fmaShare: null }, { readShare: null }]);
    } finally {
      delete process.env.NODE_SDPA_BACKEND;
    }
  });
});
