import { execFile } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';
import { promisify } from 'node:util';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { checkedScript, readApi } from './api-examples.ts';

const root = resolve(import.meta.dirname, '..');
const run = promisify(execFile);
const { names, examples } = readApi();

/** Methods that speak for themselves, or whose example stands with another form of the same. */
const WITHOUT_EXAMPLE = [
  'KVCache.attendAsync',
  'KVCache.dispose',
  'KVCache.loadFrom',
  'KVCache.values',
  'Tensor.clone',
  'Tensor.empty',
  'Tensor.squeeze',
  'Tensor.toFloat32Array',
  'Tensor.toString',
  'Tensor.unsqueeze',
];

// What an example finds: q, k and v of a prompt; for a cache, which holds 100 tokens, those of one more.
const PRELUDE = `
import { deepStrictEqual } from 'node:assert';
import { open, readFile, writeFile } from 'node:fs/promises';
import * as sdpa from 'node-sdpa';
const { ${names.filter((name) => !name.includes('.')).join(', ')} } = sdpa;
const random = (heads, tokens, seed) => Tensor.randn([1, heads, tokens, 64], { seed });
const prompt = [random(8, 32, 1), random(2, 1024, 2), random(2, 1024, 3)];
const one = [random(8, 1, 4), random(2, 1, 5), random(2, 1, 6)];
const [promptK, promptV] = [random(2, 100, 7), random(2, 100, 8)];
const projected = Tensor.randn([1, 32, 8, 64], { seed: 9 }); // [B, L, H, D]
const tree = { k: random(2, 4, 10), v: random(2, 4, 11) };
const [q2, k2, v2] = [8, 2, 2].map((heads) => Tensor.randn([2, heads, 1, 64]));

await writeFile('config.json', JSON.stringify(presetConfig('llama3-8b')));
for (const [name, tensor] of [['q', prompt[0]], ['k', prompt[1].to('bfloat16')]]) {
  await writeFile(name + '.npy', writeNpy(tensor));
}
const embeddings = Tensor.randn([8, 16]);
const bytes = writeSafetensors({ q: prompt[0], k: prompt[1], v: prompt[2], embeddings });
await writeFile('attention.safetensors', bytes);
const filled = () => new KVCache({ numKvHeads: 2, headDim: 64 }).append(promptK, promptV);
await writeFile('session.kv', filled().save());

function mustBe(value, promised) {
  const isTensor = value instanceof Tensor;
  const plain = ArrayBuffer.isView(value) ? [...value] : value;
  deepStrictEqual(isTensor ? [...value.shape] : plain, promised);
}
async function mustThrow(call, name) {
  const error = await call().then(() => null, (thrown) => thrown);
  if (!(error instanceof sdpa[name])) throw new Error('no ' + name + ' but ' + error);
}
const failures = {};
async function example(name, script) {
  const cache = filled();
  const source = await open('attention.safetensors');
  const weights = await openSafetensors(source);
  const [q, k, v] = name.startsWith('KVCache') ? one : prompt;
  try {
    await script(q, k, v, cache, weights);
  } catch (error) {
    failures[name] = String(error.stack);
  }
  cache.dispose();
  await source.close();
}
`;

let folder: string;
beforeAll(() => {
  mkdirSync(join(root, '.cache'), { recursive: true });
  folder = mkdtempSync(join(root, '.cache', 'api-'));
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

/** Runs examples in a process of their own; what went wrong, by whose example it was. */
async function runAll(list: typeof examples): Promise<Record<string, string>> {
  const calls = list.map(({ name, code }) => {
    const needsFile = /\bfile\b/.test(code) && !/\bconst file\b/.test(code);
    const opened = needsFile ? "const file = await open('written.bin', 'w');\n" : '';
    const closed = needsFile ? '\nawait file.close();' : '';
    const script = `${opened}${checkedScript(code)}${closed}`;
    return `await example('${name}', async (q, k, v, cache, weights) => { {\n${script}\n} });`;
  });
  const path = join(folder, 'examples.mjs');
  writeFileSync(path, `${PRELUDE}\n${calls.join('\n')}\nconsole.log('\\n' + JSON.stringify(failures));\n`);
  const { stdout } = await run(process.execPath, [path], { cwd: folder });
  return JSON.parse(stdout.trim().split('\n').at(-1) as string);
}

describe('the examples of the API', () => {
  test('every exported function and class has one, and every method that needs it', () => {
    const withExample = new Set(examples.map(({ name }) => name));
    expect(names.length).toBeGreaterThan(60);
    expect(names.filter((name) => !withExample.has(name)).sort()).toEqual(WITHOUT_EXAMPLE);
  });

  test('all of them run and keep what their comments promise', async () => {
    expect(await runAll(examples)).toEqual({});
  }, 60_000);

  test('a broken promise is found', async () => {
    const broken = [
      { name: 'shape', code: 'const out = attention(q, k, v); // [1, 8, 32, 65]' },
      { name: 'value', code: 'getNumThreads() > 0; // false' },
      { name: 'error', code: 'attention(q, k, v); // throws ShapeError' },
      { name: 'name', code: 'noSuchFunction(q);' },
    ];
    expect(Object.keys(await runAll(broken))).toEqual(['shape', 'value', 'error', 'name']);
  });
});
