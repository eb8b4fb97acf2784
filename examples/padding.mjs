// Sequences of different lengths in one batch: four ways to declare padding, and what happens if it is forgotten.
//
//   node examples/padding.mjs
import { attention, KVCache, Tensor } from 'node-sdpa';

const LENGTHS = [3, 7, 5];
const [BATCH, LONGEST, NUM_HEADS, HEAD_DIM] = [LENGTHS.length, Math.max(...LENGTHS), 2, 16];

// Padded on the right to the longest. What the padding holds must not matter: here it is NaN, the worst case.
const [q, k, v] = [1, 2, 3].map((seed) => Tensor.randn([BATCH, NUM_HEADS, LONGEST, HEAD_DIM], { seed }));
const rowsOf = (x, b) => x.slice(0, b, b + 1).slice(2, 0, LENGTHS[b]); // [1, heads, length, dim]: without padding
const padded = [k, v].map((x) => {
  const copy = x.clone();
  LENGTHS.forEach((length, b) => {
    for (let h = 0; h < NUM_HEADS; h++) {
      const row = (b * NUM_HEADS + h) * LONGEST;
      copy.data.fill(Number.NaN, (row + length) * HEAD_DIM, (row + LONGEST) * HEAD_DIM);
    }
  });
  return copy;
});

// The expected result: each sequence by itself.
const alone = LENGTHS.map((_, b) => attention(...[q, k, v].map((x) => rowsOf(x, b))));

/** The largest difference from it, over the rows that are not padding. */
function differs(resultOf) {
  let worst = 0;
  alone.forEach((want, b) => {
    const got = resultOf(b).toFloat32Array();
    want.toFloat32Array().forEach((x, i) => {
      worst = Math.max(worst, Number.isNaN(got[i]) ? Infinity : Math.abs(x - got[i]));
    });
  });
  return worst < 1e-6 ? 'the same as alone' : `off by ${worst.toPrecision(2)}`;
}

// 1. Lengths: keys beyond them do not exist. The first choice, since what is beyond them is not even read.
const byLengths = attention(q, ...padded, { kvLengths: LENGTHS });
console.log(
  'kvLengths: ',
  differs((b) => rowsOf(byLengths, b)),
);

// 2. A mask, true = attend: a tokenizer's attention_mask as it is. It also serves padding on the left.
const attentionMask = LENGTHS.map((length) => Array.from({ length: LONGEST }, (_, j) => j < length));
const mask = Tensor.from(attentionMask).reshape(BATCH, 1, 1, LONGEST);
const byMask = attention(q, ...padded, { mask });
console.log(
  'mask:      ',
  differs((b) => rowsOf(byMask, b)),
);

// 3. No padding at all: the sequences one after the other, [heads, all tokens, dim], and where each begins.
const begins = [0];
for (const length of LENGTHS) begins.push(begins.at(-1) + length);
const pack = (x) => {
  const packed = Tensor.empty([NUM_HEADS, begins.at(-1), HEAD_DIM]);
  LENGTHS.forEach((length, b) => {
    const rows = rowsOf(x, b).toFloat32Array(); // [heads, length, dim]
    for (let h = 0; h < NUM_HEADS; h++) {
      const own = rows.subarray(h * length * HEAD_DIM, (h + 1) * length * HEAD_DIM);
      packed.data.set(own, (h * begins.at(-1) + begins[b]) * HEAD_DIM);
    }
  });
  return packed;
};
const ragged = attention(pack(q), pack(k), pack(v), { cuSeqlensQ: begins, cuSeqlensK: begins });
console.log(
  'ragged:    ',
  differs((b) => ragged.slice(1, begins[b], begins[b + 1])),
);

// 4. A cache whose entries take different numbers of tokens.
const cache = new KVCache({ numKvHeads: NUM_HEADS, headDim: HEAD_DIM, batch: BATCH });
cache.append(...padded, { lengths: LENGTHS });
const fromCache = cache.attend(q, { causal: false });
console.log(
  'KVCache:   ',
  differs((b) => rowsOf(fromCache, b)),
  `(${[...cache.lengths].join(', ')} tokens)`,
);
cache.dispose();

// 5. Forgotten: the padding takes part. Zeros look harmless, but they take weight all the same.
const zeros = padded.map((x) => {
  const copy = x.clone();
  copy.data.forEach((value, i) => {
    if (Number.isNaN(value)) copy.data[i] = 0;
  });
  return copy;
});
console.log(
  'forgotten: ',
  differs((b) => rowsOf(attention(q, ...zeros), b)),
);
const pairs = LENGTHS.reduce((sum, length) => sum + length * length, 0);
console.log(`pairs computed: ${BATCH * LONGEST ** 2} padded, ${pairs} ragged`);
