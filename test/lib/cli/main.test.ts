import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { main } from '../../../lib/cli/main.ts';
import { getNumThreads } from '../../../lib/index.ts';
import { VERSION } from '../../../lib/version.ts';

const folder = mkdtempSync(join(tmpdir(), 'node-sdpa-cli-'));
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
    for (const name of ['bench', 'info']) {
      const { code, stdout } = await run(name, '--help');
      expect(code).toBe(0);
      expect(stdout).toMatch(new RegExp(`^node-sdpa ${name} `));
    }
  });

  test('--version', async () => expect((await run('--version')).stdout).toBe(`${VERSION}\n`));

  test.each([
    ['bnech', "node-sdpa: unknown command 'bnech'; did you mean 'bench'?\n"],
    ['constructor', "node-sdpa: unknown command 'constructor'; known are bench, info\n"],
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
    [['--dtype', 'float64'], /--dtype must be float32, float16 or bfloat16; got 'float64'/],
    [['--dtype', 'int8'], /--dtype must be float32, float16 or bfloat16; got 'int8'/],
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
    for (const text of ['2 full (2/1/16)', 'prefill by 256', 'decode', 'All 2 attention layers'])
      expect(stdout).toContain(text);

    const report = JSON.parse(readFileSync(file, 'utf8'));
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

  test('runs where only the reference backend serves, without ceilings', async () => {
    process.env.NODE_SDPA_BACKEND = 'reference';
    try {
      const { stdout } = await run('bench', '--config', tinyConfig, '--context', '16', '--json', '-');
      const report = JSON.parse(stdout);
      expect(report).toMatchObject({ machine: { backend: 'reference' }, reference: [] });
      expect(report.rows).toMatchObject([{ fmaShare: null }, { fmaShare: null }, { readShare: null }]);
    } finally {
      delete process.env.NODE_SDPA_BACKEND;
    }
  });
});
