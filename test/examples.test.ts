import { execFile } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';

const folder = fileURLToPath(new URL('../examples/', import.meta.url));
const root = fileURLToPath(new URL('..', import.meta.url));
const run = promisify(execFile);

// What an example shows, by its name: lines that it must print.
const TELLING: Record<string, readonly RegExp[]> = {
  'cross-attention.mjs': [
    /^saw +0\.01 +0\.35 .* 0\.59$/m,
    /^movie <- Film /m,
    /^saw <- gesehen /m,
    /^7 words cached/m,
  ],
  'generate.mjs': [
    /\| brown fox jumps over a lazy dog while seven birds watch :$/m,
    /^28 tokens cached; without a cache the same words$/m,
  ],
  'kv-heads.mjs': [
    /^MHA +32 +float32 +\d+\.\d +100\.0% /m,
    /^GQA +8 +float32 +\d+\.\d +25\.\d% /m,
    /^MQA +1 +int8 +\d+\.\d +[01]\.\d% /m,
    /^llama3-8b +4 to 1: +4096\.0 MiB, with MHA 4 times that$/m,
  ],
  'padding.mjs': [
    /^kvLengths: +the same as alone$/m,
    /^mask: +the same as alone$/m,
    /^ragged: +the same as alone$/m,
    /^KVCache: +the same as alone \(3, 7, 5 tokens\)$/m,
    /^forgotten: +off by 1\.0$/m,
    /^pairs computed: 147 padded, 83 ragged$/m,
  ],
  'permutation.mjs': [
    /^keys and values shuffled together +no change$/m,
    /^keys shuffled without their values +changes by 1\.91$/m,
    /^rope, then keys shuffled: they keep their positions +no change$/m,
    /^all positions later by 1000: only distances count +no change$/m,
    /^ALiBi: keys and values shuffled +changes by 1\.87$/m,
  ],
  'scale.mjs': [
    /^ +1024 +31\.8 +93% +1 +0\.09$/m, // not scaled: one key takes nearly everything
    /^ +1024 +1\.0 +4% +158 +0\.99$/m, // scaled: as with a head of 4
  ],
  'sliding-window.mjs': [/^layer 1: .* 0 to 3$/m, /^layer 4: .* 0 to 12$/m, /^65536 tokens: .* 3\.1% /m],
};

// Each is a program that a reader copies: it imports the package by its name, ends well, and prints something.
describe('examples', () => {
  const names = readdirSync(folder).filter((name) => name.endsWith('.mjs'));

  test.each(names)(
    '%s',
    async (name) => {
      const { stdout, stderr } = await run(process.execPath, [`${folder}${name}`], { cwd: root });
      expect(stdout.trim().split('\n').length).toBeGreaterThan(2);
      expect(stderr).toBe('');
      for (const line of TELLING[name] ?? []) expect(stdout).toMatch(line);
    },
    60_000,
  );

  test('the index names each of them', () => {
    const index = readFileSync(`${folder}README.md`, 'utf8');
    for (const name of names) expect(index).toContain(`[${name}](${name})`);
    for (const name of Object.keys(TELLING)) expect(names).toContain(name);
  });
});
