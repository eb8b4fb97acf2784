// A sliding window: each token sees the newest WINDOW tokens only. What one layer does not reach, the next one does; work and
// cache stop growing.
//
//   node examples/sliding-window.mjs
import { attention, attentionWeights, KVCache, Tensor } from 'node-sdpa';

const WINDOW = 4; // config.json's sliding_window: the token itself and three before it
const options = { causal: true, window: { left: WINDOW - 1 } };
const [TOKENS, HEAD_DIM] = [14, 16];

const q = Tensor.randn([1, TOKENS, HEAD_DIM], { seed: 1 });
const k = Tensor.randn([1, TOKENS, HEAD_DIM], { seed: 2 });
const v = Tensor.randn([1, TOKENS, HEAD_DIM], { seed: 3 });

console.log(`who sees whom, window ${WINDOW}:`);
for (const row of attentionWeights(q, k, v, options).toArray()[0])
  console.log(row.map((w) => (w > 0 ? '#' : '.')).join(' '));

// How far does the first token reach? Change it, and see which outputs of each layer change.
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

// What it saves. Pairs of a query and a key that are looked at:
for (const length of [1024, 8192, 65536]) {
  const full = (length * (length + 1)) / 2;
  const windowed = 1024 * length - (1024 * 1023) / 2;
  console.log(
    `${length} tokens: window 1024 looks at ${((100 * windowed) / full).toFixed(1)}% of the causal pairs`,
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
