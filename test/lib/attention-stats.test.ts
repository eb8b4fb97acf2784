import { beforeAll, describe, expect, test } from 'vitest';
import { referenceAttention } from '../../lib/attention.ts';
import {
  type AttentionStats,
  type AttentionStatsOptions,
  type AttentionStatsWithMass,
  attentionStats,
} from '../../lib/attention-stats.ts';
import { OptionError, ShapeError } from '../../lib/errors.ts';
import { Tensor } from '../../lib/tensor.ts';
import { backendsUnderTest } from '../backends.ts';
import { randomBias, randomMask } from '../cases.ts';
import { longestFloat64Array } from '../memory.ts';

const q = Tensor.randn([2, 6, 5, 8], { seed: 1 });
const k = Tensor.randn([2, 3, 300, 8], { seed: 2 });
const v = Tensor.randn([2, 3, 300, 8], { seed: 3 });

/** q, k, v of one head in which the score of key j is scores[j], the same for every query. */
function ofScores(scores: readonly number[], queries = 1): [Tensor, Tensor, Tensor] {
  const keys = new Tensor(Float32Array.from(scores), [1, scores.length, 1]);
  return [Tensor.full([1, queries, 1], 1), keys, keys];
}

/** `some` is what stands at these heads and rows of `all`, to the last few bits. */
function expectSelected(some: Tensor, all: Tensor, heads: readonly number[], rows: readonly number[]): void {
  const rank3 = all.rank === 2 ? [all.unsqueeze(0), some.unsqueeze(0)] : [all, some];
  expect(rank3[1].shape).toEqual([rank3[0].shape[0], heads.length, rows.length]);
  for (let b = 0; b < rank3[0].shape[0]; b++) {
    for (const [n, h] of heads.entries()) {
      for (const [m, i] of rows.entries()) {
        expect(rank3[1].at(b, n, m), `[${b}, ${n}, ${m}]`).toBeCloseTo(rank3[0].at(b, h, i), 5);
      }
    }
  }
}

describe.each(backendsUnderTest())('$name', ({ backend, select }) => {
  beforeAll(select);

  const stats = (x: readonly [Tensor, Tensor, Tensor], options?: AttentionStatsOptions): AttentionStats =>
    attentionStats(...x, { ...options, backend });

  test.each([1, 2, 15, 16, 17, 255, 256, 257, 1025])('%i equal weights', (length) => {
    const { entropy, maxWeight, argmax, lse } = stats(ofScores(new Array(length).fill(0.5)), { scale: 1 });
    expect(entropy.at(0, 0)).toBeCloseTo(Math.log(length), 6);
    expect(maxWeight.at(0, 0)).toBe(Math.fround(1 / length));
    expect(lse.at(0, 0)).toBeCloseTo(0.5 + Math.log(length), 6);
    expect(argmax.at(0, 0), 'the first of all').toBe(0);
  });

  test('one weight of 1 and a million of almost nothing', () => {
    const { entropy, maxWeight } = stats(ofScores([40, ...new Array(70_000).fill(0)]), { scale: 1 });
    const rest = 70_000 * Math.exp(-40);
    expect(entropy.at(0, 0)).toBeCloseTo(rest + rest * 40, 9);
    expect(maxWeight.at(0, 0)).toBe(1);
  });

  test('long sums lose no digits', () => {
    const length = 300_000;
    const { entropy, lse } = stats(ofScores(new Array(length).fill(1000)), { scale: 1 });
    expect(Math.abs(entropy.at(0, 0) - Math.log(length))).toBeLessThan(2e-6);
    expect(Math.abs(lse.at(0, 0) - 1000 - Math.log(length))).toBeLessThan(6e-5);
  });

  test('argmax is the first of equal scores, in one block or in several', () => {
    const scores = new Array(700).fill(0);
    for (const j of [3, 4, 40, 300, 600, 699]) scores[j] = 2;
    const hiding = (...keys: number[]): AttentionStatsOptions => ({
      scale: 1,
      mask: new Tensor(
        Uint8Array.from(scores, (_, j) => Number(!keys.includes(j))),
        [700],
        { dtype: 'bool' },
      ),
    });
    for (const [hidden, first] of [
      [[], 3],
      [[3], 4],
      [[3, 4], 40],
      [[3, 4, 40], 300],
      [[3, 4, 40, 300], 600],
      [[3, 4, 40, 300, 600], 699],
    ] as const) {
      expect(stats(ofScores(scores), hiding(...hidden)).argmax.at(0, 0)).toBe(first);
    }
  });

  test('argmax of any key, and of keys that causality shows one after the other', () => {
    const growing = Array.from({ length: 260 }, (_, j) => j / 50);
    const { argmax, maxWeight } = stats(ofScores(growing, 260), { scale: 1, causal: true });
    expect(Array.from(argmax.data)).toEqual(Array.from({ length: 260 }, (_, i) => i));
    expect(maxWeight.at(0, 0)).toBe(1);
  });

  test('a row that sees no key', () => {
    const options = { causal: true, queryOffset: -1, massWindow: {} };
    const { entropy, maxWeight, argmax, lse, windowMass } = stats(
      ofScores([1, 2], 2),
      options,
    ) as AttentionStatsWithMass;
    expect([entropy, maxWeight, argmax, lse, windowMass].map((x) => x.at(0, 0))).toEqual([
      0,
      0,
      -1,
      -Infinity,
      0,
    ]);
    const sink = stats(ofScores([1, 2], 2), { ...options, sinks: [3] }) as AttentionStatsWithMass;
    expect(
      [sink.entropy, sink.maxWeight, sink.argmax, sink.lse, sink.windowMass].map((x) => x.at(0, 0)),
    ).toEqual([0, 0, -1, 3, 0]);
    expect(stats(ofScores([])).argmax.at(0, 0)).toBe(-1);
  });

  test('a sink is one more weight, and never the largest', () => {
    const three = stats(ofScores([0, 0, 5, 5]), { scale: 1 });
    const options = { scale: 1, sinks: [5], massWindow: {} };
    const two = stats(ofScores([0, 0, 5]), options) as AttentionStatsWithMass;
    expect(two.entropy.at(0, 0)).toBeCloseTo(three.entropy.at(0, 0), 6);
    expect(two.lse.at(0, 0)).toBeCloseTo(three.lse.at(0, 0), 6);
    expect(two.maxWeight.at(0, 0)).toBeCloseTo(three.maxWeight.at(0, 0), 6);
    expect(two.argmax.at(0, 0)).toBe(2);
    expect(two.windowMass.at(0, 0)).toBeCloseTo(1 - three.maxWeight.at(0, 0), 6);
    const drowned = stats(ofScores([-30, -20]), { scale: 1, sinks: [10] });
    expect(drowned.argmax.at(0, 0)).toBe(1);
    expect(drowned.maxWeight.at(0, 0)).toBeCloseTo(Math.exp(-30), 15);
  });

  test('masked NaN shows nowhere, visible NaN in its own rows', () => {
    const scores = Array.from({ length: 300 }, (_, j) => (j === 280 ? NaN : j / 300));
    const causal = { scale: 1, causal: true, massWindow: { left: 3 } };
    const { entropy, maxWeight, argmax, lse, windowMass } = stats(
      ofScores(scores, 300),
      causal,
    ) as AttentionStatsWithMass;
    for (const x of [entropy, maxWeight, lse, windowMass]) {
      const values = Array.from(x.data);
      expect(values.slice(0, 280).every(Number.isFinite)).toBe(true);
      expect(values.slice(280).every(Number.isNaN)).toBe(true);
    }
    expect(argmax.at(0, 279)).toBe(279);
    expect(argmax.at(0, 280)).toBe(-1);
    const bias = new Tensor(
      Float32Array.from(scores, (s) => (Number.isNaN(s) ? -Infinity : 0)),
      [300],
    );
    expect(stats(ofScores(scores), { scale: 1, bias }).argmax.at(0, 0)).toBe(299);
  });

  test('windowMass: a window with open sides is all, a wider one has more, sinkTokens count', () => {
    const massOf = (massWindow: AttentionStatsOptions['massWindow'], options = {}): Tensor =>
      (stats([q, k, v], { causal: true, ...options, massWindow }) as AttentionStatsWithMass).windowMass;
    const [near, far] = [massOf({ left: 10 }), massOf({ left: 290 })];
    for (let b = 0; b < 2; b++) {
      for (let h = 0; h < 6; h++) {
        for (let i = 0; i < 5; i++) {
          expect(massOf({}).at(b, h, i)).toBeCloseTo(1, 6);
          expect(massOf({ right: 0, sinkTokens: 7 }).at(b, h, i)).toBeCloseTo(1, 6);
          expect(far.at(b, h, i)).toBeGreaterThan(near.at(b, h, i));
        }
      }
    }
    const equal = ofScores(new Array(600).fill(0), 600);
    const { windowMass } = stats(equal, {
      massWindow: { left: 4, right: 2, sinkTokens: 3 },
    }) as AttentionStatsWithMass;
    // Around 1 the window holds keys 0 to 3; around 300 seven keys, and the first 3; around 599 five, and the first 3.
    expect(windowMass.at(0, 1)).toBeCloseTo(4 / 600, 7);
    expect(windowMass.at(0, 300)).toBeCloseTo(10 / 600, 7);
    expect(windowMass.at(0, 599)).toBeCloseTo(8 / 600, 7);
  });

  test('lse is that of attention, and windowMass comes with massWindow only', () => {
    const options = { causal: true, softcap: 3, sinks: [0, 1, 2, 3, 4, 5] };
    const { lse } = referenceAttention(q, k, v, { ...options, returnLse: true });
    const result = stats([q, k, v], options);
    expect(Object.keys(result)).toEqual(['entropy', 'maxWeight', 'argmax', 'lse']);
    expectSelected(result.lse, lse, [0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4]);
  });

  const everyOption: AttentionStatsOptions = {
    causal: true,
    kvLengths: [290, 300],
    mask: randomMask([2, 6, 5, 300], 7),
    bias: randomBias([6, 1, 300], 8),
    alibiSlopes: Tensor.randn([2, 6], { seed: 9 }),
    sinks: [1, -1, 0, 2, 3, -3],
    massWindow: { left: 40, sinkTokens: 2 },
  };
  const selections: [string, number[] | undefined, number[] | undefined][] = [
    ['rows', undefined, [4, 0, 1, 1]],
    ['heads of several groups', [5, 0, 1, 2, 3], undefined],
    ['one of each', [4], [3]],
    ['all, turned round', [5, 4, 3, 2, 1, 0], [4, 3, 2, 1, 0]],
    ['nothing', [], [1]],
  ];
  test.each(selections)('selects %s', (_, heads, queries) => {
    const all = stats([q, k, v], everyOption) as AttentionStatsWithMass;
    const some = stats([q, k, v], { ...everyOption, heads, queries }) as AttentionStatsWithMass;
    for (const name of ['entropy', 'maxWeight', 'argmax', 'lse', 'windowMass'] as const)
      expectSelected(some[name], all[name], heads ?? [0, 1, 2, 3, 4, 5], queries ?? [0, 1, 2, 3, 4]);
  });

  test('selects packed rows of a ragged batch; rank 3 gives rank 2', () => {
    const packed = Tensor.randn([4, 40, 8], { seed: 11 });
    const keys = Tensor.randn([2, 50, 8], { seed: 12 });
    const options = { causal: true, cuSeqlensQ: [0, 7, 7, 40], cuSeqlensK: [0, 9, 12, 50] };
    const all = stats([packed, keys, keys], options);
    expect(all.entropy.shape).toEqual([4, 40]);
    const queries = [39, 6, 7, 8, 0];
    const some = stats([packed, keys, keys], { ...options, queries, heads: [3, 1] });
    for (const name of ['entropy', 'maxWeight', 'argmax', 'lse'] as const)
      expectSelected(some[name], all[name], [3, 1], queries);
  });

  test('v is not read', () => {
    const [plain, spoilt] = [v, Tensor.full(v.shape, NaN)].map((values) => stats([q, k, values]));
    expect(spoilt.entropy.data).toEqual(plain.entropy.data);
    expect(stats([q, k, Tensor.empty([2, 3, 300, 0])]).lse.data).toEqual(plain.lse.data);
  });
});

test('the reference holds a few rows of scores and one block of keys, not a matrix', () => {
  const length = 6000;
  const x = Tensor.randn([1, 1, length, 2], { seed: 5 });
  const longest = longestFloat64Array(() =>
    attentionStats(x.slice(2, 0, 300), x, x, { backend: 'reference', window: { left: 20 } }),
  );
  expect(longest).toBeLessThanOrEqual(2 ** 18);
});

test.each([
  [
    'a number as massWindow',
    { massWindow: 128 },
    /massWindow must be \{ left\?, right\?, sinkTokens\? \}; got 128/,
  ],
  ['a misspelt side', { massWindow: { lef: 1 } }, /unknown name 'lef' in massWindow; did you mean 'left'/],
  ['a negative side', { massWindow: { left: -1 } }, /massWindow.left must be a whole number/],
  ['a query beyond', { queries: [5] }, /queries must be indices from 0 to 4; element 0 is 5/],
  ['a head beyond', { heads: [0, 6] }, /heads must be indices from 0 to 5; element 1 is 6/],
  ['out', { out: q }, /attentionStats: option 'out' does not apply here/],
  ['a stage', { stage: 'scores' }, /attentionStats: option 'stage' does not apply here/],
])('refuses %s', (_, options, message) => {
  expect(() => attentionStats(q, k, v, options as object)).toThrow(OptionError);
  expect(() => attentionStats(q, k, v, options as object)).toThrow(message);
});

test('memory that has gone is an error', () => {
  const gone = Tensor.randn([2, 3, 300, 8], { seed: 2 });
  structuredClone(gone.data.buffer, { transfer: [gone.data.buffer as ArrayBuffer] });
  expect(() => attentionStats(q, gone, v)).toThrow(ShapeError);
});
