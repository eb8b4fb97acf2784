// A sliding window: each token sees only the newest WINDOW tokens. Each further layer reaches further back; the work per token
// and the cache stop growing.
//
//   node examples/sliding-window.mjs
import { attention, attentionWeights, KVCache, Tensor } from 'node-sdpa';

const WINDOW = 4; // config.json's sliding_window: the token itself and three before it
const options = { causal: true, window: { left: WINDOW - 1 } };
const [TOKENS, HEAD_DIM] = [14, 16];

const q = Tensor.randn([1, TOKENS, HEAD_DIM], { seed: 1 });
const k = Tensor.randn([1, TOKENS, HEAD_DIM], { seed: 2 });
const v = Tensor.randn([1, TOKENS, HEAD_DIM], { seed: 3 });

console.log(`rows: queries, columns: keys, #: visible; window ${WINDOW}:`);
for (const row of attentionWeights(q, k, v, options).toArray()[0])
  console.log(row.map((w) => (w > 0 ? '#' : '.')).join(' '));

// How far does the first token reach? Change it, and see which outputs of each layer change with it.
function layersOf(x, layers) {
  const outs = [];
  for (let i = 0; i < layers; i++) {
    const previous = outs.at(-1) ?? x;
    outs.push(attention(previous, previous, previous, options));
  }
  return outs;
}
const changed = v.clone();
changed.data.fill(1, 0, HEAD_DIM);
const [before, after] = [v, changed].map((x) => layersOf(x, 4));
before.forEach((out, n) => {
  const reached = Array.from({ length: TOKENS }, (_, t) => t).filter((t) =>
    Array.from({ length: HEAD_DIM }, (_, d) => d).some((d) => out.at(0, t, d) !== after[n].at(0, t, d)),
  );
  console.log(`layer ${n + 1}: the first token reaches tokens 0 to ${reached.at(-1)}`);
});

// What it saves: pairs of a query and a key that are computed.
for (const length of [1024, 8192, 65536]) {
  const full = (length * (length + 1)) / 2;
  const windowed = 1024 * length - (1024 * 1023) / 2;
  console.log(
    `${length} tokens: a window of 1024 leaves ${((100 * windowed) / full).toFixed(1)}% of the causal pairs`,
  );
}

// And in a cache: one keeps all, the other its window.
const layout = { numKvHeads: 2, headDim: 64 };
const caches = [new KVCache(layout), new KVCache({ ...layout, window: 1024 })];
const block = Tensor.randn([1, 2, 512, 64], { seed: 4 });
for (let i = 0; i < 64; i++) for (const cache of caches) cache.append(block, block);
const [full, windowed] = caches.map((cache) => `${(cache.byteLength / 2 ** 20).toFixed(1)} MiB`);
console.log(`${caches[0].length} tokens cached: ${full}; with a window of 1024: ${windowed}`);
for (const cache of caches) cache.dispose();
