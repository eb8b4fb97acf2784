import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { coldBytes } from '../../../lib/cli/ceilings.ts';
import { main } from '../../../lib/cli/main.ts';
import { measure } from '../../../lib/cli/measure.ts';
import { readSize } from '../../../lib/cli/plan.ts';
import { LayerMeter } from '../../../lib/cli/plan-meter.ts';
import { formatBytes, formatDuration, formatFlopCount } from '../../../lib/cli/plan-report.ts';
import type { PlanReport } from '../../../lib/cli/plan-run.ts';
import { predictSeconds } from '../../../lib/cli/plan-times.ts';
import { prepare } from '../../../lib/cli/prepare.ts';
import { cachedBytes, groupLayers, type Phase, type Workload } from '../../../lib/cli/workloads.ts';
import { KVCache } from '../../../lib/kv-cache.ts';
import { type CacheDType, describeModel } from '../../../lib/modules/describe-model.ts';
import { presetConfig } from '../../../lib/modules/presets.ts';
import { loadAddon } from '../../../lib/native/loader.ts';
import { Tensor } from '../../../lib/tensor.ts';
import { quantiseRows } from '../../../lib/tensor-int8.ts';

const folder = mkdtempSync(join(tmpdir(), 'node-sdpa-plan-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

async function run(...argv: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const written = { stdout: '', stderr: '' };
  const stream = (name: 'stdout' | 'stderr') => ({
    write: (text: string) => {
      written[name] += text;
    },
  });
  const code = await main(['plan', ...argv], { stdout: stream('stdout'), stderr: stream('stderr') });
  return { code, ...written };
}

async function planOf(...argv: string[]): Promise<PlanReport> {
  const { code, stdout, stderr } = await run(...argv, '--no-times', '--json', '-');
  expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  return JSON.parse(stdout) as PlanReport;
}

const MIB = 2 ** 20;
const GIB = 2 ** 30;

describe('keys and values', () => {
  test('Llama 3 8B: 32 layers of 8 heads of 128, a fourth of what its query heads would take', async () => {
    const { kv } = await planOf('--model', 'llama3-8b', '--context', '8192', '--dtype', 'bfloat16,float32');
    expect(kv.map((row) => [row.bytesPerToken, row.full, row.sliding, row.linear])).toEqual([
      [131072, GIB, 0, 0],
      [262144, 2 * GIB, 0, 0],
    ]);
    expect(kv[0].withoutGroups).toBe(4 * GIB);
  });

  test('Qwen3.6 27B: 16 full layers, and 48 states that no context makes larger', async () => {
    const { kv } = await planOf('--model', 'qwen3.6-27b', '--context', '1024,32768', '--dtype', 'bfloat16');
    expect(kv.map((row) => row.full)).toEqual([64 * MIB, 2 * GIB]);
    expect(kv.map((row) => row.linear)).toEqual([144 * MIB, 144 * MIB]);
  });

  test('gpt-oss 20B: every second layer stops at its window of 128', async () => {
    const { kv } = await planOf('--model', 'gpt-oss-20b', '--context', '64,128,4096', '--dtype', 'bfloat16');
    const layerToken = 2 * 8 * 64 * 2;
    expect(kv.map((row) => row.sliding)).toEqual([64, 128, 128].map((tokens) => 12 * tokens * layerToken));
    expect(kv.map((row) => row.full)).toEqual([64, 128, 4096].map((tokens) => 12 * tokens * layerToken));
  });

  // What a cache holds is what was planned: its tokens' bytes exactly, its memory but for what pages round up.
  test.each<[string, CacheDType]>(
    ['llama3-8b', 'minimind2', 'gemma3-27b', 'qwen3.6-27b', 'gpt-oss-20b'].flatMap((name) =>
      (['float32', 'bfloat16', 'int8'] as const).map((dtype): [string, CacheDType] => [name, dtype]),
    ),
  )('%s, %s: a real cache takes what was planned', async (name, dtype) => {
    const tokens = 300;
    const report = await planOf('--model', name, '--context', String(tokens), '--dtype', dtype);
    let [held, memory, heads] = [0, 0, 0];
    for (const { count, shape, window } of report.layers) {
      const { numKvHeads, headDim, valueDim } = shape;
      const bounded = window === null || window === Infinity ? {} : { window };
      using cache = new KVCache({ numKvHeads, headDim, valueDim, dtype, ...bounded });
      cache.append(
        Tensor.randn([1, numKvHeads, tokens, headDim]),
        Tensor.randn([1, numKvHeads, tokens, valueDim]),
      );
      const bytesOf = (x: Tensor): number => {
        if (dtype !== 'int8') return x.byteLength;
        const { values, scales } = quantiseRows(x);
        return values.byteLength + scales.byteLength;
      };
      held += count * (bytesOf(cache.keys()) + bytesOf(cache.values()));
      memory += count * cache.byteLength;
      heads += count * numKvHeads;
    }
    const planned = report.kv[0].full + report.kv[0].sliding;
    expect(held).toBe(planned);
    const granule = 64 * 1024;
    expect(memory).toBeGreaterThanOrEqual(planned);
    // A window takes memory in whole pieces.
    const slack = report.kv[0].sliding > 0 ? planned : 0;
    expect(memory).toBeLessThanOrEqual(planned + slack + 2 * 2 * heads * granule);
  });
});

describe('what the figures leave out is said', () => {
  const printed = async (name: string): Promise<string> =>
    (await run('--model', name, '--no-times', '--memory', '24GiB', '--context', '512')).stdout;

  test('an encoder has no cache, and nothing that fits into memory', async () => {
    const text = await printed('bert-base');
    expect(text).toContain('keeps no cache');
    expect(text).not.toMatch(/Keys and values|fits into|int8/);
    expect(text).toMatch(/^ +512 +9\.66 GFLOP .* - +- +-$/m);
  });

  test.each([
    ['gpt-oss-20b', /a KVCache with a window takes and reuses memory in whole pieces/],
    ['deepseek-v3', /a KVCache, which keeps both, takes nearly twice as much/],
    ['qwen3.6-27b', /linear layers count in the memory, not in the operations/],
  ])('%s', async (name, note) => expect(await printed(name)).toMatch(note));

  test('tables fit into 80 columns', async () => {
    const [, ...lines] = (await printed('gemma2-9b'))
      .split('\n\n')
      .filter((part) => part.includes('context'));
    for (const line of lines.join('\n').split('\n')) expect(line.length).toBeLessThanOrEqual(80);
  });
});

describe('operations', () => {
  test('are those of the formula: 4 D for each visible pair and head', async () => {
    const { flops } = await planOf('--model', 'llama3-8b', '--context', '1000');
    expect(flops[0]).toMatchObject({
      prefill: (32 * 32 * 4 * 128 * (1000 * 1001)) / 2,
      decode: 32 * 32 * 4 * 128 * 1000,
      prefillSliding: 0,
    });
    // q and out 4096 x 4096, k and v 4096 x 1024, in each of 32 layers
    expect(flops[0].decodeProjections).toBe(2 * 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024));
  });
});

describe('--memory', () => {
  test('the longest context is the longest that fits', async () => {
    const { fits, kv } = await planOf(
      ...['--model', 'gemma3-27b', '--context', '4096', '--dtype', 'bfloat16', '--memory', '16GiB'],
    );
    const longest = fits[0].longestContext as number;
    const at = async (context: number): Promise<number> =>
      (await planOf('--model', 'gemma3-27b', '--context', String(context), '--dtype', 'bfloat16')).kv[0]
        .total;
    expect(await at(longest)).toBeLessThanOrEqual(16 * GIB);
    expect(await at(longest + 1)).toBeGreaterThan(16 * GIB);
    expect(fits[0].sequences).toEqual([Math.floor((16 * GIB) / kv[0].total)]);
  });

  test('any context, where every layer has a window', async () => {
    const config = join(folder, 'window.json');
    const fields = { hidden_size: 64, num_hidden_layers: 2, num_attention_heads: 2, sliding_window: 16 };
    writeFileSync(config, JSON.stringify({ model_type: 'mistral', ...fields }));
    const report = await planOf('--config', config, '--memory', '1MiB', '--context', '8');
    expect(report.fits.map((fit) => fit.longestContext)).toEqual([null, null]);
    expect((await run('--config', config, '--memory', '1MiB', '--no-times')).stdout).toMatch(/bfloat16 +any/);
  });

  test.each([
    ['24GiB', 24 * GIB],
    ['16 GB', 16e9],
    ['1.5MiB', 1.5 * MIB],
  ])('%s is a size', (text, bytes) => expect(readSize('memory', text)).toBe(bytes));
});

describe.runIf(!(loadAddon() instanceof Error))('times', () => {
  const model = describeModel(presetConfig('minimind2'));
  const [group] = groupLayers(model).groups;
  const at = (phase: Phase, context: number): Workload => ({
    ...{ phase, context, shape: group.shape, causal: true, window: Infinity, dtype: 'float32' },
  });
  const timed = async (workload: Workload): Promise<number> => {
    const prepared = prepare(workload, { coldBytes: workload.phase === 'decode' ? coldBytes() : 0 });
    prepared.run();
    prepared.rewind();
    const { seconds } = await measure(prepared, 1, null, { seconds: 0.2, minSamples: 5 });
    prepared.dispose();
    return seconds;
  };

  // Other tests run beside this one. `node bench/run.mjs plan` holds them to 30% on an idle machine.
  test('are of the size of what is measured', { retry: 3 }, async () => {
    const meter = new LayerMeter(model, group, 'float32', 4096, at);
    await meter.round();
    const { rates } = meter;
    for (const workload of [at('prefill', 1024), at('decode', 2048), at('decode', 16384)]) {
      const ratio = predictSeconds(rates, workload) / (await timed(workload));
      expect(Math.abs(Math.log(ratio)), `${workload.phase} ${workload.context}: ${ratio}`).toBeLessThan(
        Math.log(4),
      );
    }
  });

  test('are printed, with what they rest on', async () => {
    const json = join(folder, 'plan.json');
    const { code, stdout, stderr } = await run('--model', 'minimind2', '--context', '256', '--json', json);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    for (const heading of ['Keys and values', 'Floating-point', 'Predicted times', 'Measured for that'])
      expect(stdout).toContain(heading);
    const report = JSON.parse(readFileSync(json, 'utf8')) as PlanReport;
    expect(report.times.map((row) => [row.dtype, row.phase])).toEqual(
      ['bfloat16', 'int8'].flatMap((dtype) => ['prefill', 'decode'].map((phase) => [dtype, phase])),
    );
    for (const row of report.times) expect(row.milliseconds).toBeGreaterThan(0);
  });
});

describe('a prediction from measured points', () => {
  const [group] = groupLayers(describeModel(presetConfig('minimind2'))).groups;
  const decodeOf = (context: number): Workload => ({
    ...{ phase: 'decode', context, shape: group.shape, causal: true, window: Infinity, dtype: 'float32' },
  });
  const predicted = (seconds: Record<number, number>, context: number): number => {
    const points = Object.entries(seconds).map(([at, seconds]) => ({
      ...{ context: Number(at), amount: cachedBytes(decodeOf(Number(at))), seconds },
    }));
    const phase = { points, ceiling: null, share: null };
    const layer = { dtype: 'float32', layer: 'full', shape: group.shape } as const;
    return predictSeconds({ ...layer, prefill: { ...phase, unit: null }, decode: phase }, decodeOf(context));
  };
  test.each<[string, Record<number, number>, number, number]>([
    ['at a point', { 64: 2, 1024: 5, 8192: 7 }, 1024, 5],
    ['at the last point', { 64: 2, 1024: 5, 8192: 7 }, 8192, 7],
    ['between two', { 64: 2, 1024: 5 }, 544, 3.5],
    ['before the first: a fixed part and one for each token', { 100: 2, 200: 3 }, 50, 1.5],
    ['before the first, never less than its part of that', { 100: 2, 200: 6 }, 50, 1],
    ['before the first, never more than that', { 100: 2, 200: 1 }, 50, 2],
    ['after the last', { 100: 2, 200: 3 }, 300, 4],
    ['after the last, no dearer than its average', { 100: 1, 200: 4 }, 300, 6],
    ['after the last, no cheaper than half of that', { 100: 4, 200: 4 }, 300, 5],
    ['from one point', { 100: 4 }, 25, 1],
  ])('%s', (_, seconds, context, expected) => expect(predicted(seconds, context)).toBeCloseTo(expected, 9));
});

describe('refuses, in one line, writing nothing', () => {
  test.each<[string[], RegExp]>([
    [['--memory', '24'], /--memory must be a size such as 24GiB/],
    [['--memory', '-1GiB'], /--memory must be a size/],
    [['--memory', '0GiB'], /--memory must be a size/],
    [['--dtype', 'int4'], /--dtype must be float32, float16, bfloat16 or int8; got 'int4'/],
    [['--context', '0'], /--context must be a whole number/],
    [['--config', '/nowhere/config.json'], /--config \/nowhere\/config\.json cannot be read/],
    [['--model', 'lama3-8b'], /did you mean 'llama3-8b'/],
    [['--json', folder], /--json .* cannot be written: it is a directory/],
    [['--mdel', 'x'], /did you mean --model/],
  ])('%j', async (argv, message) => {
    const { code, stdout, stderr } = await run(...argv, '--no-times');
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(message);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  });
});

describe('numbers for people', () => {
  test.each([
    [formatBytes(0), '0 B'],
    [formatBytes(1023), '1023 B'],
    [formatBytes(1536), '1.50 KiB'],
    [formatBytes(16 * GIB), '16.0 GiB'],
    [formatDuration(12.5), '12.5 ms'],
    [formatDuration(90_000), '1.50 min'],
    [formatDuration(25_240_509), '7.01 h'],
    [formatFlopCount(1.52e15), '1.52 PFLOP'],
    [formatFlopCount(999), '999 FLOP'],
  ])('%s', (got, want) => expect(got).toBe(want));
});
