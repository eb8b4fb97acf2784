// A conversation that outlives its process: two layers of caches are written to one file, read again, and go on to the same
// output as if nothing had happened.
//
//   node examples/save-session.mjs [FILE]
import { open, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { KVCache, Tensor } from 'node-sdpa';

const path = process.argv[2] ?? join(tmpdir(), `session-${process.pid}.kv`);
const NUM_LAYERS = 2;
const LAYOUT = { numKvHeads: 8, headDim: 128, dtype: 'bfloat16' };

/** Stands for the model: q, k and v of so many tokens. */
const project = (tokens, seed) => [
  Tensor.randn([1, 32, tokens, 128], { seed, dtype: 'bfloat16' }),
  Tensor.randn([1, 8, tokens, 128], { seed: seed + 1, dtype: 'bfloat16' }),
  Tensor.randn([1, 8, tokens, 128], { seed: seed + 2, dtype: 'bfloat16' }),
];
const step = (layers, tokens, seed) =>
  layers.map((cache, n) => cache.step(...project(tokens, seed + 10 * n)));

const layers = Array.from({ length: NUM_LAYERS }, () => new KVCache(LAYOUT));
step(layers, 1024, 1); // the prompt

// Each cache is written behind the one before. It could go on meanwhile: what is written is the cache at the call.
const target = await open(path, 'w');
for (const cache of layers) await cache.saveTo(target);
await target.close();
console.log(`${layers[0].length} tokens of ${NUM_LAYERS} layers in ${(await stat(path)).size} bytes`);

const source = await open(path);
const restored = [];
for (let n = 0; n < NUM_LAYERS; n++) restored.push(await KVCache.loadFrom(source));
await source.close();

const [before, after] = [layers, restored].map((caches) => step(caches, 1, 100));
const isSame = before.every((out, n) =>
  Buffer.from(out.data.buffer).equals(Buffer.from(after[n].data.buffer)),
);
console.log(isSame ? 'the next token comes out the same, in every bit' : 'the next token differs');

// A small cache needs no file: save() returns the bytes, and load() refuses any that are not those.
const bytes = restored[0].truncate(16).save();
bytes[200] ^= 1;
try {
  KVCache.load(bytes);
} catch (error) {
  console.log(`${error.code}: ${error.message}`);
}

for (const cache of [...layers, ...restored]) cache.dispose();
if (process.argv[2] === undefined) await rm(path);
process.exitCode = isSame ? 0 : 1;
