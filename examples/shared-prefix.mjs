// Many conversations over one system prompt: each forks the prompt's cache, and one call advances them all. The prompt is in
// memory once, and is read once a step.
//
//   node examples/shared-prefix.mjs
import { KVCache, memoryInfo, Tensor } from 'node-sdpa';

const PROMPT = 2048;
const CONVERSATIONS = 16;
const STEPS = 8;
const [NUM_HEADS, NUM_KV_HEADS, HEAD_DIM] = [8, 8, 64];
const mebibytes = (bytes) => `${(bytes / 2 ** 20).toFixed(1)} MiB`;

let seed = 0;
/** Stands for the model: q, k and v of `tokens` tokens of n conversations. */
const project = (n, tokens) =>
  [NUM_HEADS, NUM_KV_HEADS, NUM_KV_HEADS].map((heads) =>
    Tensor.randn([n, heads, tokens, HEAD_DIM], { seed: ++seed }),
  );

const prompt = new KVCache({ numKvHeads: NUM_KV_HEADS, headDim: HEAD_DIM });
prompt.step(...project(1, PROMPT));
console.log(`a prompt of ${PROMPT} tokens: ${mebibytes(memoryInfo().bytes)}`);

// Each continues in its own way: the first question has 3 tokens, the next 8, and so on.
const caches = Array.from({ length: CONVERSATIONS }, (_, n) => {
  const cache = prompt.fork();
  cache.step(...project(1, 3 + 5 * n));
  return cache;
});
console.log(
  `${CONVERSATIONS} conversations of ${caches[0].length} to ${caches.at(-1).length} tokens: ${mebibytes(memoryInfo().bytes)}`,
);

// A step of all of them, and of one after the other, from the same point.
const twins = caches.map((cache) => cache.fork());
let [together, separate, worst] = [0, 0, 0];
for (let i = 0; i < STEPS; i++) {
  const [q, k, v] = project(CONVERSATIONS, 1);
  let from = performance.now();
  const out = KVCache.stepAll(caches, q, k, v); // [16, 8, 1, 64]
  together += performance.now() - from;
  from = performance.now();
  const outs = twins.map((cache, n) => cache.step(...[q, k, v].map((x) => x.slice(0, n, n + 1))));
  separate += performance.now() - from;
  outs.forEach((own, n) => {
    const rows = out.slice(0, n, n + 1).toFloat32Array();
    own.toFloat32Array().forEach((x, j) => {
      worst = Math.max(worst, Math.abs(x - rows[j]));
    });
  });
}
console.log(
  `a step of all: ${(together / STEPS).toFixed(2)} ms; one after the other: ${(separate / STEPS).toFixed(2)} ms`,
);
console.log(`largest difference between the two: ${worst.toExponential(1)}`);

// Conversations end in any order; what nobody uses any more is given back.
for (const cache of [prompt, ...twins, ...caches]) cache.dispose();
console.log(`all disposed: ${memoryInfo().bytes} bytes`);
process.exitCode = worst < 1e-5 && memoryInfo().bytes === 0 ? 0 : 1;
