// Cross-attention: the queries come from one sequence, keys and values from another. A decoder that writes English looks at
// German words: not causal, the lengths differ, and the keys are computed once for all steps.
//
//   node examples/cross-attention.mjs
import { attentionStats, attentionWeights, KVCache, Tensor } from 'node-sdpa';

const GERMAN = ['ich', 'habe', 'den', 'alten', 'Film', 'gestern', 'gesehen'];
const ENGLISH = ['I', 'saw', 'the', 'old', 'movie', 'yesterday'];
/** What a trained model knows: which German words an English one comes from. */
const MEANS = { I: [0], saw: [1, 6], the: [2], old: [3], movie: [4], yesterday: [5] };
const HEAD_DIM = 64;

// A German word's key is a random vector; an English word's query is the sum of those that it comes from.
const keys = Tensor.randn([1, 1, GERMAN.length, HEAD_DIM], { seed: 5 });
const values = Tensor.randn([1, 1, GERMAN.length, HEAD_DIM], { seed: 6 });
const queries = Tensor.zeros([1, 1, ENGLISH.length, HEAD_DIM]);
ENGLISH.forEach((word, i) => {
  for (const j of MEANS[word]) {
    for (let d = 0; d < HEAD_DIM; d++) queries.data[i * HEAD_DIM + d] += keys.at(0, 0, j, d) / 2;
  }
});

const [[rows]] = attentionWeights(queries, keys, values).toArray();
console.log(''.padEnd(10) + GERMAN.map((word) => word.padStart(8)).join(''));
rows.forEach((row, i) => {
  console.log(ENGLISH[i].padEnd(10) + row.map((w) => (w < 0.005 ? '.' : w.toFixed(2)).padStart(8)).join(''));
});

// Where each word looks most, without the matrix, as one would do it for long sequences.
const { argmax, entropy } = attentionStats(queries, keys, values);
ENGLISH.forEach((word, i) => {
  const spread = Math.exp(entropy.at(0, 0, i)).toFixed(1);
  console.log(`${word} <- ${GERMAN[argmax.at(0, 0, i)]} (as if spread over ${spread} words)`);
});

// While decoding: the source is cached once, and each step attends to all of it. A cache is causal by default.
const source = new KVCache({ numKvHeads: 1, headDim: HEAD_DIM });
source.append(keys, values);
let worst = 0;
ENGLISH.forEach((_, i) => {
  const out = source.attend(queries.slice(2, i, i + 1), { causal: false }).toFloat32Array();
  rows[i].forEach((w, j) => {
    for (let d = 0; d < HEAD_DIM; d++) out[d] -= w * values.at(0, 0, j, d);
  });
  worst = Math.max(worst, ...out.map(Math.abs));
});
console.log(
  `${source.length} words cached; steps differ from weights times values by ${worst.toExponential(1)}`,
);
source.dispose();
process.exitCode = worst < 1e-5 ? 0 : 1;
