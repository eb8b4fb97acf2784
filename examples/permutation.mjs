// Attention has no notion of order: its keys are a set. What reordering tokens changes, and what makes order count.
//
//   node examples/permutation.mjs
import { alibiSlopes, attention, rope, Tensor } from 'node-sdpa';

const [NUM_HEADS, TOKENS, HEAD_DIM] = [4, 32, 64];
const [q, k, v] = [1, 2, 3].map((seed) => Tensor.randn([1, NUM_HEADS, TOKENS, HEAD_DIM], { seed }));

// A fixed shuffle: token t comes from place order[t].
const order = Array.from({ length: TOKENS }, (_, t) => (t * 13 + 5) % TOKENS);
const shuffle = (x) => {
  const shuffled = Tensor.empty(x.shape);
  for (let h = 0; h < NUM_HEADS; h++) {
    order.forEach((source, t) => {
      const row = (h * TOKENS + source) * HEAD_DIM;
      shuffled.data.set(x.data.subarray(row, row + HEAD_DIM), (h * TOKENS + t) * HEAD_DIM);
    });
  }
  return shuffled;
};
const largest = (a, b) => a.data.reduce((worst, x, i) => Math.max(worst, Math.abs(x - b.data[i])), 0);
const report = (what, a, b) => {
  const worst = largest(a, b);
  console.log(`${what.padEnd(62)} ${worst < 1e-5 ? 'no change' : `changes by ${worst.toFixed(2)}`}`);
};

const plain = attention(q, k, v);
report('keys and values shuffled together', attention(q, shuffle(k), shuffle(v)), plain);
report('queries shuffled: outputs shuffled in the same way', attention(shuffle(q), k, v), shuffle(plain));
report(
  'all three shuffled: outputs shuffled in the same way',
  attention(...[q, k, v].map(shuffle)),
  shuffle(plain),
);
report('keys shuffled without their values', attention(q, shuffle(k), v), plain);

// A causal mask knows what comes before what. Without positions that is the only order a decoder has.
const causal = { causal: true };
report(
  'causal: keys and values shuffled',
  attention(q, shuffle(k), shuffle(v), causal),
  attention(q, k, v, causal),
);

// Positions: rotary embedding rotates q and k by their position; ALiBi penalizes distance.
const turned = (x) => rope(x);
const rotary = attention(turned(q), turned(k), v);
report(
  'rope, then keys shuffled: they keep their positions',
  attention(turned(q), shuffle(turned(k)), shuffle(v)),
  rotary,
);
report(
  'keys shuffled, then rope: they have new positions',
  attention(turned(q), turned(shuffle(k)), shuffle(v)),
  rotary,
);
report(
  'all positions later by 1000: only distances count',
  attention(rope(q, { offset: 1000 }), rope(k, { offset: 1000 }), v),
  rotary,
);
const slopes = { alibiSlopes: alibiSlopes(NUM_HEADS) };
report(
  'ALiBi: keys and values shuffled',
  attention(q, shuffle(k), shuffle(v), slopes),
  attention(q, k, v, slopes),
);
