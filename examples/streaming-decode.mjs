// A stream without end in constant memory: the cache keeps a window of the newest tokens, and the first few, on which models
// rest what attention they have to spare (attention sinks; Xiao et al. 2023).
//
//   node examples/streaming-decode.mjs
import { KVCache, referenceAttention, Tensor } from 'node-sdpa';

const WINDOW = 512;
const SINK_TOKENS = 4;
const TOKENS = 20_000;
const [NUM_HEADS, NUM_KV_HEADS, HEAD_DIM] = [8, 2, 64];

const layout = { numKvHeads: NUM_KV_HEADS, headDim: HEAD_DIM };
const cache = new KVCache({ ...layout, window: WINDOW, sinkTokens: SINK_TOKENS });

// Stands for the model: 64 different tokens, over and over.
const tokens = Array.from({ length: 64 }, (_, i) =>
  [NUM_HEADS, NUM_KV_HEADS, NUM_KV_HEADS].map((heads, side) =>
    Tensor.randn([1, heads, 1, HEAD_DIM], { seed: 1 + 3 * i + side }),
  ),
);

const out = Tensor.empty([1, NUM_HEADS, 1, HEAD_DIM]);
let from = performance.now();
for (let i = 0; i < TOKENS; i++) {
  const [q, k, v] = tokens[(i * 37) % tokens.length];
  cache.step(q, k, v, { out });
  if ((i + 1) % 4000 !== 0) continue;
  const micro = ((performance.now() - from) * 1000) / 4000;
  console.log(
    `token ${cache.length}: ${(cache.byteLength / 2 ** 20).toFixed(2)} MiB, ${micro.toFixed(1)} us a token`,
  );
  from = performance.now();
}

// What the last token saw: the first SINK_TOKENS tokens and the newest WINDOW of them. The kept tokens by themselves say so.
const kept = cache.keys().shape[2];
const [q] = tokens[((TOKENS - 1) * 37) % tokens.length];
const want = referenceAttention(q, cache.keys(), cache.values());
const worst = want.data.reduce((max, x, i) => Math.max(max, Math.abs(x - out.data[i])), 0);
console.log(
  `${kept} of ${cache.length} tokens kept; attention over them differs by ${worst.toExponential(1)}`,
);
cache.dispose();
process.exitCode = worst < 1e-5 && kept === WINDOW + SINK_TOKENS ? 0 : 1;
