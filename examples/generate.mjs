// A generate loop: the prompt at once (prefill), then a token at a time (decode), each layer with its cache.
//
// The model has two layers whose weights are set by hand. The first looks at the token before; the second looks for tokens
// that came after one like the present, and says what stood there: an induction head (Olsson et al. 2022). So it continues
// what it has read once.
//
//   node examples/generate.mjs
import { attention, KVCache, rope, Tensor } from 'node-sdpa';

const HEAD_DIM = 128;
const PROMPT = 'the quick brown fox jumps over a lazy dog while seven birds watch : the quick'.split(' ');
const NEW_TOKENS = 12;

// The vocabulary: each word has a random vector. Those of different words are nearly at right angles.
const words = [...new Set(PROMPT)];
const embeddings = Tensor.randn([words.length, HEAD_DIM], { seed: 1 }).toFloat32Array();
const vectorOf = (id) => embeddings.subarray(id * HEAD_DIM, (id + 1) * HEAD_DIM);

/** [1, 1, tokens, HEAD_DIM] */
function embed(ids) {
  const x = Tensor.empty([1, 1, ids.length, HEAD_DIM]);
  ids.forEach((id, t) => {
    x.data.set(vectorOf(id), t * HEAD_DIM);
  });
  return x;
}

/** The same vector for every token: what rope makes of it tells positions apart, and nothing else. */
const positions = (tokens, offset) => rope(Tensor.full([1, 1, tokens, HEAD_DIM], 1), { offset });

/**
 * The model, on tokens whose first stands at `start`. `attend` is attention with whatever came before: a cache's step, or,
 * to compare, attention over everything.
 *
 * @returns the word that follows, for each token
 */
function forward(ids, start, attend) {
  const x = embed(ids);
  // Layer 1: the query of position p is turned like the key of p - 1.
  const previous = attend[0](positions(ids.length, start - 1), positions(ids.length, start), x, { scale: 1 });
  // Layer 2: the query is this word, the key of a position the word before it, the value the word there.
  const hidden = attend[1](x, previous, x, { scale: 1 });
  return Array.from({ length: ids.length }, (_, t) => {
    const h = hidden.toFloat32Array().subarray(t * HEAD_DIM, (t + 1) * HEAD_DIM);
    const logits = words.map((_, id) => vectorOf(id).reduce((sum, e, d) => sum + e * h[d], 0));
    return logits.indexOf(Math.max(...logits));
  });
}

const layers = [1, 2].map(() => new KVCache({ numKvHeads: 1, headDim: HEAD_DIM, maxLength: 4096 }));
const steps = layers.map((cache) => (q, k, v, options) => cache.step(q, k, v, options));

// Prefill: all tokens of the prompt in one call a layer.
const ids = PROMPT.map((word) => words.indexOf(word));
let from = performance.now();
let next = forward(ids, 0, steps).at(-1);
const prefill = performance.now() - from;

// Decode: one token in, one token out. A real loop would sample, and stop at an end token.
const said = [];
from = performance.now();
while (said.length < NEW_TOKENS) {
  said.push(next);
  [next] = forward([next], layers[0].length, steps);
}
const decode = (performance.now() - from) / NEW_TOKENS;
console.log(`${PROMPT.join(' ')} | ${said.map((id) => words[id]).join(' ')}`);
console.log(`prefill of ${ids.length} tokens ${prefill.toFixed(2)} ms, then ${decode.toFixed(2)} ms a token`);

// Without a cache the same words come out, and every token costs as much as the prompt.
const whole = layers.map(() => (q, k, v, options) => attention(q, k, v, { ...options, causal: true }));
const again = forward([...ids, ...said], 0, whole).slice(ids.length - 1, -1);
const isSame = again.every((id, t) => id === said[t]);
console.log(
  `${layers[0].length} tokens cached; without a cache ${isSame ? 'the same words' : 'other words'}`,
);
for (const cache of layers) cache.dispose();
process.exitCode = isSame ? 0 : 1;
