import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
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

// docs/PEERS.md is written by a program; what README.md takes from it must be what stands there.
describe('the measurements of README.md', () => {
  const peers = readFileSync(join(root, 'docs', 'PEERS.md'), 'utf8');
  const rows = [...text.matchAll(/^\| (prefill|decode) \| (\d+) \| (\w+) \| (.*) \|$/gm)];

  test('there are some', () => expect(rows.length).toBeGreaterThan(4));

  test.each(rows.map(([, phase, length, dtype, times]) => ({ phase, length, dtype, times })))(
    '$phase, $length, $dtype',
    ({ phase, length, dtype, times }) => {
      const title = phase === 'prefill' ? '## Prefill, causal' : '## Decode, one token';
      const section = peers.slice(peers.indexOf(`${title}, 32/8/128, ${dtype}`)).split('\n## ')[0];
      const ours = 'node-sdpa KVCache.step';
      const byHand = phase === 'prefill' ? '' : ', cache kept by hand';
      const systems = [ours, 'GroupQueryAttention', `Attention${byHand}`, `PyTorch SDPA${byHand}`];
      const measured = systems.map(
        (system) => section.split(`| ${length} | 2 | ${system} | `)[1]?.split(' ')[0] ?? '-',
      );
      expect(times.split(' | ')).toEqual(measured);
    },
  );

  test('those of docs/PERFORMANCE.md: a step at 8192 keys, and what small pages cost', () => {
    const guide = readFileSync(join(root, 'docs', 'PERFORMANCE.md'), 'utf8').replace(/\n */g, ' ');
    const msOf = (heading: string, system: string) => {
      const section = peers.slice(peers.indexOf(`## ${heading}`)).split('\n## ')[0];
      const row = section
        .split('\n')
        .find((line) => /\| 8192 \| 2 \|/.test(line) && line.includes(`| ${system} |`));
      return row?.split(`| ${system} | `)[1].split(' ')[0];
    };
    const [decode, small] = [
      'Decode, one token, 32/8/128, float32',
      'In the pages that Node gets by default, float32',
    ];
    const step = msOf(decode, 'node-sdpa KVCache.step');
    const grouped = msOf(decode, 'GroupQueryAttention');
    const byHand = msOf(decode, 'GroupQueryAttention, cache kept by hand');
    const inSmallPages = msOf(small, 'GroupQueryAttention');
    expect(guide).toContain(
      `\`KVCache.step\` takes ${step} ms; \`GroupQueryAttention\` ${grouped} ms, or ${byHand} ms with a cache kept by hand`,
    );
    expect(guide).toContain(
      `took ${inSmallPages} ms per step with small pages and ${grouped} ms with huge ones`,
    );
  });
});
