// Speculative decoding with a tree of drafts: a draft model guesses several continuations, one step of attention looks at all
// of them, and the branch that the model itself would have taken is kept.
//
//   node examples/speculative-decoding.mjs
import { KVCache, Tensor } from 'node-sdpa';

const [NUM_HEADS, NUM_KV_HEADS, HEAD_DIM] = [8, 2, 64];
const VOCABULARY = 50;

// A model of one layer whose weights are random: each token has its q, k and v, and the next token is the one whose
// embedding agrees best with what attention gives.
const table = (width, seed) => Tensor.randn([VOCABULARY, width], { seed }).toFloat32Array();
const [queries, keys, values] = [1, 2, 3].map((seed) =>
  table((seed === 1 ? NUM_HEADS : NUM_KV_HEADS) * HEAD_DIM, seed),
);
const embeddings = table(NUM_HEADS * HEAD_DIM, 4);

/** Rows of a table for these tokens, [1, heads, tokens, HEAD_DIM]. */
function rows(of, heads, tokens) {
  const width = heads * HEAD_DIM;
  const data = new Float32Array(tokens.length * width);
  tokens.forEach((token, t) => {
    data.set(of.subarray(token * width, (token + 1) * width), t * width);
  });
  return new Tensor(data, [1, tokens.length, heads, HEAD_DIM]).transpose(1, 2);
}
const project = (tokens) => [
  rows(queries, NUM_HEADS, tokens),
  rows(keys, NUM_KV_HEADS, tokens),
  rows(values, NUM_KV_HEADS, tokens),
];

/** The token that follows, for each row of out [1, NUM_HEADS, T, HEAD_DIM]. */
function choose(out) {
  const width = NUM_HEADS * HEAD_DIM;
  const hidden = out.transpose(1, 2).contiguous().toFloat32Array();
  return Array.from({ length: out.shape[2] }, (_, t) => {
    const score = (token) => {
      let sum = 0;
      for (let d = 0; d < width; d++) sum += hidden[t * width + d] * embeddings[token * width + d];
      return sum;
    };
    const scores = Array.from({ length: VOCABULARY }, (_, token) => score(token));
    return scores.indexOf(Math.max(...scores));
  });
}

// What plain decoding says, a token at a time. The draft model is played by this list, mixed with errors.
const PROMPT = [7, 3, 11, 42, 19, 5];
const LENGTH = 24;
const plain = new KVCache({ numKvHeads: NUM_KV_HEADS, headDim: HEAD_DIM });
const truth = [choose(plain.step(...project(PROMPT))).at(-1)];
while (truth.length < LENGTH + 8) truth.push(choose(plain.step(...project([truth.at(-1)])))[0]);

/**
 * The token that is known to come next, then two guesses of three tokens each: one goes wrong at its second or its third
 * token, the other at its first, but every third time it is right.
 *
 *   0 ─ 1 ─ 2 ─ 3
 *    └─ 4 ─ 5 ─ 6
 */
function draft(position) {
  const [next, a, b, c] = truth.slice(position, position + 4);
  const wrong = (token) => (token + 1) % VOCABULARY;
  const first = position % 2 === 0 ? [a, wrong(b), c] : [a, b, wrong(c)];
  const second = position % 3 === 0 ? [a, b, c] : [wrong(a), b, c];
  return { tokens: [next, ...first, ...second], parents: [-1, 0, 1, 2, 0, 4, 5] };
}

/** [T, T]: a token of the tree sees itself and what it follows. All that is cached before, it sees anyway. */
function maskOf(parents) {
  const mask = Tensor.zeros([parents.length, parents.length], { dtype: 'bool' });
  parents.forEach((_, i) => {
    for (let j = i; j >= 0; j = parents[j]) mask.data[i * parents.length + j] = 1;
  });
  return mask;
}

const cache = new KVCache({ numKvHeads: NUM_KV_HEADS, headDim: HEAD_DIM });
const said = [choose(cache.step(...project(PROMPT))).at(-1)];
let steps = 0;
while (said.length < LENGTH) {
  const { tokens, parents } = draft(said.length - 1);
  const following = choose(cache.step(...project(tokens), { mask: maskOf(parents) }));
  steps++;
  // A draft is accepted where the model, after all before it, says the same. The longest accepted branch is kept.
  const branches = [];
  tokens.forEach((token, i) => {
    const before = i === 0 ? [] : branches[parents[i]];
    branches[i] = i === 0 || (before && token === following[parents[i]]) ? [...before, i] : null;
  });
  const accepted = branches
    .filter(Boolean)
    .reduce((best, branch) => (branch.length > best.length ? branch : best));
  cache.keep(accepted); // the other branches leave the cache
  said.push(...accepted.map((i) => following[i]));
  console.log(`step ${steps}: accepted ${accepted.length - 1} of 6 drafts; ${cache.length} tokens cached`);
}
const isSame = said.every((token, i) => token === truth[i]);
console.log(`${said.length} tokens in ${steps} steps instead of ${said.length}`);
console.log(isSame ? 'the same tokens as plain decoding' : 'the tokens differ');
for (const each of [cache, plain]) each.dispose();
process.exitCode = isSame ? 0 : 1;
