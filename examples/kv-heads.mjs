// How many key/value heads? Multi-head attention (MHA) has one per query head, grouped-query attention (GQA) one per group,
// multi-query attention (MQA) one for all. The cache shrinks with their number, and so does the time of a decode step, which
// reads all of it.
//
//   node examples/kv-heads.mjs
import { describeModel, KVCache, kvCacheBytes, presetConfig, Tensor } from 'node-sdpa';

const [NUM_HEADS, HEAD_DIM, TOKENS, STEPS] = [32, 128, 2048, 8];
const CHUNK = 64;
const mebibytes = (bytes) => (bytes / 2 ** 20).toFixed(1);

console.log(
  `one layer, ${NUM_HEADS} query heads of ${HEAD_DIM}, ${TOKENS} tokens; a head takes memory in steps of 64 KiB`,
);
console.log('kv heads   dtype     MiB cached  of MHA float32  ms per decode step, at best');
let most = 0;
for (const numKvHeads of [32, 8, 1]) {
  const random = (tokens, heads, seed) => Tensor.randn([1, heads, tokens, HEAD_DIM], { seed });
  const [k, v] = [1, 2].map((seed) => random(CHUNK, numKvHeads, seed));
  for (const dtype of ['float32', 'bfloat16', 'int8']) {
    const cache = new KVCache({ numKvHeads, headDim: HEAD_DIM, dtype });
    for (let i = 0; i < TOKENS / CHUNK; i++) cache.append(k, v);
    const bytes = cache.byteLength;
    most = Math.max(most, bytes);
    const name = { 32: 'MHA', 8: 'GQA', 1: 'MQA' }[numKvHeads];
    // Steps of one token: each reads the whole cache.
    const step = [random(1, NUM_HEADS, 3), random(1, numKvHeads, 4), random(1, numKvHeads, 5)];
    const out = cache.step(...step);
    let ms = Infinity;
    for (let i = 0; i < STEPS; i++) {
      const from = performance.now();
      cache.step(...step, { out });
      ms = Math.min(ms, performance.now() - from);
    }
    console.log(
      `${name} ${String(numKvHeads).padStart(5)}  ${dtype.padEnd(9)} ${mebibytes(bytes).padStart(10)} ` +
        `${`${((100 * bytes) / most).toFixed(1)}%`.padStart(15)} ${ms.toFixed(2).padStart(26)}`,
    );
    cache.dispose();
  }
}

// For whole models: config.json says how many heads there are.
console.log('\nwhole models at 32768 tokens, bfloat16, as they are and as they would be with MHA:');
for (const name of ['minimind2', 'llama3-8b', 'llama3-70b', 'qwen3-30b-a3b', 'gemma3-27b']) {
  const model = describeModel(presetConfig(name));
  const own = kvCacheBytes(model, 32768, 'bfloat16');
  const multiHead = {
    ...model,
    layers: model.layers.map((layer) => ({ ...layer, numKvHeads: layer.numHeads })),
  };
  const times = kvCacheBytes(multiHead, 32768, 'bfloat16') / own;
  console.log(
    `${name.padEnd(14)} ${String(model.groupSize).padStart(2)} to 1: ${mebibytes(own).padStart(8)} MiB, with MHA ${times} times that`,
  );
}
