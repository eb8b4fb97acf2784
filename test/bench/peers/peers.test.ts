import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { describe, expect, test } from 'vitest';

const root = resolve(import.meta.dirname, '../../..');
const { writeDocument } = await import(pathToFileURL(resolve(root, 'bench/peers/document.mjs')).href);

function run(...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, ['bench/peers.mjs', ...args], {
    cwd: root,
    encoding: 'utf8',
    // Enough for a line; what measures all the same is stopped.
    timeout: 20_000,
  });
  return { status, stdout, stderr };
}

describe('the command line, which measures nothing here', () => {
  test('--help tells every option', () => {
    const { status, stdout, stderr } = run('--help');
    expect([status, stderr]).toEqual([0, '']);
    for (const option of ['--quick', '--long', '--python FILE', '--json FILE', '--from FILE'])
      expect(stdout).toContain(option);
  });

  test.each([
    [['--quik'], 'unknown option --quik; did you mean --quick?'],
    [['fast'], "unexpected argument 'fast'"],
    [['--json'], '--json needs a value'],
    [['--json', 'no/such/folder/x.json'], '--json no/such/folder/x.json cannot be written: '],
    [['--quick', '--long'], '--quick and --long exclude each other'],
    [['--from', 'x.json', '--long'], '--long says how to measure; --from measures nothing'],
    [['--from', 'x.json', '--python', 'python3'], '--python says how to measure; --from measures nothing'],
    [['--python', 'no-such-python'], '--python no-such-python: '],
    [['--from', 'no-such.json'], '--from no-such.json cannot be read: '],
    [['--from', 'package.json'], '--from package.json holds no report'],
  ])('%j is one clear line', (args, message) => {
    const { status, stdout, stderr } = run(...args);
    expect([status, stdout]).toEqual([1, '']);
    expect(stderr).toContain(`bench:peers: ${message}`);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  });
});

const workload = {
  phase: 'decode',
  shape: { numHeads: 32, numKvHeads: 8, headDim: 128, valueDim: 128 },
  context: 8192,
  dtype: 'float32',
  threads: 2,
};
const row = {
  system: 'node-sdpa KVCache.step',
  route: 'out given',
  spins: null,
  seconds: 0.0025,
  ratio: 1,
  rounds: 7,
  backToBack: { seconds: 0.0024, marginOfError: 0.01 },
  error: 2.14e-7,
  gflopsPerSecond: null,
  gigabytesPerSecond: 26.8,
  copiedBytes: { operator: 0, binding: 0 },
};
const report = {
  isLong: false,
  versions: { nodeSdpa: '0.1.0', runtime: '1.30.0', pytorch: null, node: '20.19.0' },
  machine: { cpu: 'a CPU', isa: 'avx512', features: [], cores: 2, memoryGiB: 8, platform: 'linux-x64' },
  comparisons: [
    {
      workload,
      isMain: true,
      rows: [row, { ...row, system: 'Attention', seconds: 0.05, ratio: 20.4, backToBack: null }],
      tried: [
        { family: 'Attention', route: 'one', spins: false, seconds: 0.05 },
        { family: 'Attention', route: 'other', failure: 'no kernel for a | b' },
      ],
    },
  ],
  sideEffects: [
    {
      phase: 'decode',
      context: 8192,
      system: 'Attention',
      copiedBytes: { operator: 2 ** 26, binding: 0 },
      growthMiB: null,
      longestWaitMs: 51.3,
    },
  ],
  defaultPages: [],
};

test('the document: tables whose rows have as many cells as their heads', () => {
  const text: string = writeDocument(report);
  const tables = text.split('\n\n').filter((block) => block.startsWith('|'));
  expect(tables).toHaveLength(3);
  for (const table of tables) {
    const widths = table
      .trimEnd()
      .split('\n')
      .map((line) => line.split(/(?<!\\)\|/).length);
    expect(new Set(widths).size).toBe(1);
  }
  expect(text).toContain('| 8192 | 2 | Attention | 50.0 | 20.4x | 26.8 | - | - | 2.1e-7 |');
  expect(text).toContain('| 64 | 0 | - | 51.3 |');
  expect(text).toContain('no kernel for a \\| b');
});

test.skipIf(!existsSync(resolve(root, 'docs/PEERS.md')))(
  'every local link of docs/PEERS.md leads somewhere',
  () => {
    const text = readFileSync(resolve(root, 'docs/PEERS.md'), 'utf8');
    for (const [, link] of text.matchAll(/\]\((?!https?:)([^)#]+)\)/g))
      expect(existsSync(resolve(root, 'docs', link)), link).toBe(true);
  },
);
