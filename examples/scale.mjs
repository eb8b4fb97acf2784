// Why scores are divided by sqrt(D): without it softmax saturates as heads get wider. One key takes all the weight, and the
// slope of softmax, from which training learns, vanishes.
//
//   node examples/scale.mjs
import { attentionStats, attentionWeights, Tensor } from 'node-sdpa';

const KEYS = 256;
const QUERIES = 64;
const mean = (x) => x.reduce((sum, value) => sum + value, 0) / x.length;

/** What a scale does to the weights of random queries and keys of D numbers. */
function measure(D, scale) {
  const [q, k, v] = [QUERIES, KEYS, KEYS].map((tokens, n) => Tensor.randn([1, tokens, D], { seed: n + 1 }));
  const scores = attentionWeights(q, k, v, { scale, stage: 'scores' }).toFloat32Array();
  const weights = attentionWeights(q, k, v, { scale }).toFloat32Array();
  const { entropy, maxWeight } = attentionStats(q, k, v, { scale });
  return {
    sd: Math.sqrt(mean(scores.map((s) => s * s))),
    largest: mean(maxWeight.toFloat32Array()),
    keys: Math.exp(mean(entropy.toFloat32Array())),
    // d weight / d score = weight · (1 - weight), summed over the keys: 0 where a key has everything.
    slope: weights.reduce((sum, w) => sum + w * (1 - w), 0) / QUERIES,
  };
}

const line = (D, { sd, largest, keys, slope }) =>
  console.log(
    `${String(D).padStart(5)} ${sd.toFixed(1).padStart(12)} ${(100 * largest).toFixed(0).padStart(13)}% ` +
      `${keys.toFixed(0).padStart(16)} ${slope.toFixed(2).padStart(8)}`,
  );
const HEADER = '    D sd of scores largest weight keys in effect    slope';

console.log(`${QUERIES} random queries over ${KEYS} random keys, not scaled:`);
console.log(HEADER);
for (const D of [4, 16, 64, 256, 1024]) line(D, measure(D, 1));

console.log('\ndivided by sqrt(D), as attention does by default:');
console.log(HEADER);
for (const D of [4, 16, 64, 256, 1024]) line(D, measure(D, 1 / Math.sqrt(D)));

// The scale is an inverse temperature: halving it flattens the weights, doubling it sharpens them. Some models set their own.
console.log('\nD = 64, 1/sqrt(D) times a factor:');
console.log(HEADER.replace('    D', 'times'));
for (const factor of [0.25, 0.5, 1, 2, 4]) line(factor, measure(64, factor / 8));
