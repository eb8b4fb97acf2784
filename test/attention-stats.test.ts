import { beforeAll, describe, expect, test } from 'vitest';
import { type AttentionStatsWithMass, attentionStats } from '../lib/attention-stats.ts';
import { attentionWeights } from '../lib/attention-weights.ts';
import { describeAttention } from '../lib/describe-attention.ts';
import { isWithin, summarizeErrors, type Tolerance, toleranceFrom } from '../lib/error-summary.ts';
import type { AttentionOptions, AttentionWindow } from '../lib/options.ts';
import { naiveArithmetic } from '../lib/reference/arithmetic.ts';
import { writeStats } from '../lib/reference/stats.ts';
import { Tensor } from '../lib/tensor.ts';
import { backendsUnderTest } from './backends.ts';
import { build, CASES, type Case, type Inputs } from './cases.ts';
import { denseStats } from './dense.ts';

const MASS_WINDOW: AttentionWindow = { left: 5, right: 2 };
const NUMBERS = ['entropy', 'maxWeight', 'lse', 'windowMass'] as const;

interface StatsYardstick {
  readonly want: AttentionStatsWithMass;
  readonly tolerances: Readonly<Record<(typeof NUMBERS)[number], Tolerance>>;
}

const withoutOut = ({ out: _, ...options }: AttentionOptions): AttentionOptions => options;

function statsOf(inputs: Inputs, backend: 'native' | 'reference', threads?: number): AttentionStatsWithMass {
  const options = { threads, ...withoutOut(inputs.options), massWindow: MASS_WINDOW, backend };
  return attentionStats(inputs.q, inputs.k, inputs.v, options) as AttentionStatsWithMass;
}

const yardsticks = new Map<string, StatsYardstick>();

/** The oracle's answer, and twice the error of a naive float32 evaluation plus the floor, for all backends. */
function yardstickOf(testCase: Case): StatsYardstick {
  const known = yardsticks.get(testCase.name);
  if (known !== undefined) return known;
  const inputs = build(testCase);
  const want = statsOf(inputs, 'reference');
  const naive = naiveStats(inputs, want.lse.shape);
  const magnitudes = {
    // A logarithm near 0 comes of numbers near 1.
    entropy: (x: number) => Math.max(1, x),
    lse: (x: number) => Math.max(1, Math.abs(x)),
    maxWeight: (x: number) => x,
    // Where an ISA has no gradual underflow, a weight below 2^-126 counts as 0.
    windowMass: (x: number) => x + testCase.shape.kvLen * 2 ** -105,
  };
  const toleranceOf = (name: (typeof NUMBERS)[number]): Tolerance => {
    const errors = summarizeErrors(naive[name], want[name], 'float32');
    const magnitude = Tensor.from(want[name].toFloat32Array().map(magnitudes[name]));
    return toleranceFrom(errors, want[name], magnitude, 'float32');
  };
  const tolerances = Object.fromEntries(NUMBERS.map((name) => [name, toleranceOf(name)]));
  const yardstick = { want, tolerances: tolerances as StatsYardstick['tolerances'] };
  yardsticks.set(testCase.name, yardstick);
  return yardstick;
}

function naiveStats({ q, k, v, options }: Inputs, shape: readonly number[]): AttentionStatsWithMass {
  const problem = describeAttention('test', q, k, v, withoutOut(options));
  const make = (): Tensor => Tensor.empty(shape);
  const stats = { entropy: make(), maxWeight: make(), argmax: make(), lse: make(), windowMass: make() };
  const ranked = (x: Tensor): Tensor => (shape.length === 3 ? x : x.unsqueeze(0));
  const results = Object.fromEntries(Object.entries(stats).map(([name, x]) => [name, ranked(x)]));
  const window = { windowLeft: MASS_WINDOW.left!, windowRight: MASS_WINDOW.right!, sinkTokens: 0 };
  writeStats(problem, results as unknown as AttentionStatsWithMass, window, naiveArithmetic('float32'));
  return stats;
}

/** The weights [Lk] of one row of the result, by its index in [B, Hq, Lq] or [Hq, totalQ]. */
function weightsOfRow({ q, k, v, options }: Inputs, index: number): Float32Array {
  const [numHeads, rows] = q.shape.slice(-3, -1);
  const [b, head, row] = [
    Math.floor(index / rows / numHeads),
    Math.floor(index / rows) % numHeads,
    index % rows,
  ];
  const ends = options.cuSeqlensQ as Int32Array | undefined;
  const sequence = ends === undefined ? b : ends.findLastIndex((end) => end <= row);
  const selected = { ...withoutOut(options), heads: [head], queries: [row - (ends?.[sequence] ?? 0)] };
  return attentionWeights(q, k, v, selected)
    .slice(0, sequence, sequence + 1)
    .toFloat32Array();
}

/** The same keys; but of two weights that float32 scores cannot tell apart either may count as the larger. */
function expectArgmax(got: Tensor, { want, tolerances }: StatsYardstick, inputs: Inputs): void {
  expect(got.dtype).toBe('int32');
  got.data.forEach((key, index) => {
    if (key === want.argmax.data[index]) return;
    expect(key, `argmax ${index}`).toBeGreaterThanOrEqual(0);
    const weight = weightsOfRow(inputs, index)[key];
    const maxWeight = want.maxWeight.data[index];
    expect(maxWeight - weight, `argmax ${index}: ${key}`).toBeLessThanOrEqual(tolerances.maxWeight.maxAbs);
  });
}

describe.each(backendsUnderTest())('$name agrees with the oracle', ({ name, backend, select }) => {
  beforeAll(select);

  // The oracle itself is held against the contract below.
  test.each(backend === 'reference' ? [] : CASES)('$name', (testCase: Case) => {
    const inputs = build(testCase);
    const got = statsOf(inputs, backend);
    const yardstick = yardstickOf(testCase);
    for (const number of NUMBERS) {
      const errors = summarizeErrors(got[number], yardstick.want[number], 'float32');
      const tolerance = yardstick.tolerances[number];
      expect(isWithin(errors, tolerance), `${name} ${number}: ${JSON.stringify({ errors, tolerance })}`).toBe(
        true,
      );
    }
    expectArgmax(got.argmax, yardstick, inputs);
  });

  test('gives the same bits whatever the number of threads', () => {
    for (const caseName of [
      'kvLen 513 causal',
      'decode 5 of 4097',
      'ragged: sinkTokens',
      'square 257 causal',
    ]) {
      const inputs = build(CASES.find((testCase) => testCase.name === caseName)!);
      const one = statsOf(inputs, backend, 1);
      for (const threads of [2, 3, 7]) {
        const many = statsOf(inputs, backend, threads);
        for (const number of [...NUMBERS, 'argmax'] as const)
          expect(many[number].data).toEqual(one[number].data);
      }
    }
  });
});

describe('the oracle agrees with the contract, written out a second time', () => {
  const work = ({ shape }: Case): number =>
    shape.batch * shape.numHeads * shape.qLen * shape.kvLen * shape.headDim;
  const small = CASES.filter((testCase) => testCase.dtype === undefined && work(testCase) < 700_000);

  test.each(small)('$name', (testCase: Case) => {
    const inputs = build(testCase);
    const want = denseStats(inputs);
    const got = statsOf(inputs, 'reference');
    for (const number of NUMBERS) {
      // Both are float64 rounded once; an entropy near 0 is a difference of numbers near 1.
      const errors = summarizeErrors(got[number], want[number], 'float32');
      const isSame = errors.maxAbs < 1e-13 || errors.maxUlp <= 1 || errors.relativeFrobenius < 2e-9;
      expect(isSame, `${number}: ${JSON.stringify(errors)}`).toBe(true);
    }
    expect(Array.from(got.argmax.data)).toEqual(Array.from(want.argmax.data));
  });
});
