import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { type AttentionResult, attention } from '../lib/attention.ts';
import { judge } from '../lib/compare-attention.ts';
import { mergeAttention } from '../lib/merge-attention.ts';
import type { AttentionOptions } from '../lib/options.ts';
import { Tensor } from '../lib/tensor.ts';
import { backendsUnderTest } from './backends.ts';
import { build, type Case, type Inputs, randomBias, randomMask, type Shape } from './cases.ts';
import { expectWithin, yardstickOfInputs } from './tolerance.ts';

const { beyondRounding } = await import(
  pathToFileURL(resolve(import.meta.dirname, '../scripts/fuzz/bound.mjs')).href
);

// Random problems over all options. The draws are the same at every run, so that a red test stays red;
// FAST_CHECK_SEED and FAST_CHECK_RUNS look further.
const RUNS = {
  seed: Number(process.env.FAST_CHECK_SEED ?? 20260101),
  numRuns: Number(process.env.FAST_CHECK_RUNS ?? 150),
};

const length = (max: number): fc.Arbitrary<number> =>
  fc.oneof(fc.integer({ min: 0, max }), fc.integer({ min: 1, max: 9 }));
const dim = fc.oneof(fc.integer({ min: 1, max: 40 }), fc.constantFrom(16, 32, 64, 65));

const dense: fc.Arbitrary<Shape> = fc
  .record({
    batch: fc.integer({ min: 1, max: 3 }),
    numKvHeads: fc.integer({ min: 1, max: 3 }),
    group: fc.integer({ min: 1, max: 5 }),
    qLen: length(40),
    kvLen: length(150),
    headDim: dim,
    valueDim: dim,
  })
  .map(({ group, ...sizes }) => ({ ...sizes, numHeads: group * sizes.numKvHeads }));

const ragged: fc.Arbitrary<Shape> = fc
  .tuple(dense, fc.array(fc.tuple(length(30), length(60)), { maxLength: 5 }))
  .map(([shape, lengths]) => ({
    ...shape,
    lengths,
    batch: lengths.length,
    qLen: Math.max(0, ...lengths.map(([qLen]) => qLen)),
    kvLen: Math.max(0, ...lengths.map(([, kvLen]) => kvLen)),
  }));

/** The broadcast shapes that mask and bias may have: any axis 1, leading ones left out. */
const broadcasts = fc.record({
  ones: fc.array(fc.boolean(), { minLength: 4, maxLength: 4 }),
  rank: fc.integer({ min: 0, max: 4 }),
});
type Broadcast = typeof broadcasts extends fc.Arbitrary<infer T> ? T : never;
function broadcastShape({ ones, rank }: Broadcast, { batch, numHeads, qLen, kvLen }: Shape): number[] {
  return [batch, numHeads, qLen, kvLen].map((size, axis) => (ones[axis] ? 1 : size)).slice(4 - rank);
}

/** What is drawn of the options; lengths and offsets are fractions, to be scaled by the shape. */
const draws = fc.record(
  {
    scale: fc.double({ min: -1, max: 1, noNaN: true }),
    causal: fc.boolean(),
    offset: fc.integer({ min: -30, max: 100 }),
    offsets: fc.array(fc.integer({ min: -30, max: 100 }), { minLength: 5, maxLength: 5 }),
    window: fc.record({ left: fc.nat(40), right: fc.nat(40), sinkTokens: fc.nat(5) }, { requiredKeys: [] }),
    kvShares: fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 5, maxLength: 5 }),
    mask: broadcasts,
    bias: broadcasts,
    biasDType: fc.constantFrom('float32' as const, 'float16' as const, 'bfloat16' as const),
    alibi: fc.boolean(),
    softcap: fc.double({ min: 0.5, max: 30, noNaN: true }),
    sinks: fc.boolean(),
    threads: fc.integer({ min: 1, max: 4 }),
  },
  { requiredKeys: [] },
);
type Draws = typeof draws extends fc.Arbitrary<infer T> ? T : never;

function optionsOf(drawn: Draws, shape: Shape, seed: number): AttentionOptions {
  const { batch, numHeads, kvLen, lengths } = shape;
  const { offset, offsets, kvShares, mask, bias, biasDType, alibi, sinks, ...plain } = drawn;
  const perEntry = (at: (b: number) => number): Int32Array =>
    Int32Array.from({ length: batch }, (_, b) => at(b));
  const capacity = (b: number): number => (lengths === undefined ? kvLen : lengths[b][1]);
  return {
    ...plain,
    queryOffset: offsets ? perEntry((b) => offsets[b]) : offset,
    kvLengths: kvShares && perEntry((b) => Math.round(kvShares[b] * capacity(b))),
    mask: mask && randomMask(broadcastShape(mask, shape), seed),
    bias: bias && randomBias(broadcastShape(bias, shape), seed + 1, biasDType),
    alibiSlopes: alibi ? Tensor.randn([batch, numHeads], { seed: seed + 2 }) : undefined,
    sinks: sinks ? Tensor.randn([numHeads], { seed: seed + 3 }) : undefined,
  };
}

const cases: fc.Arbitrary<Case> = fc
  .record({
    shape: fc.oneof({ weight: 3, arbitrary: dense }, { weight: 1, arbitrary: ragged }),
    drawn: draws,
    layout: fc.constantFrom('BHLD' as const, 'BLHD' as const, 'BLHD and out' as const),
    seed: fc.nat(1_000_000),
  })
  .map(({ shape, drawn, layout, seed }) => ({
    name: JSON.stringify({ shape, drawn }),
    why: 'drawn at random',
    shape,
    seed,
    layout: shape.lengths === undefined ? layout : 'BHLD',
    options: (of, optionSeed) => optionsOf(drawn, of, optionSeed),
  }));

describe.each(backendsUnderTest())('$name', ({ backend, select }) => {
  beforeAll(select);

  const run = ({ q, k, v, options }: Inputs, more: AttentionOptions = {}): AttentionResult =>
    attention(q, k, v, { ...options, ...more, backend, returnLse: true }) as AttentionResult;

  test('agrees with the oracle', () => {
    fc.assert(
      fc.property(cases, (drawn) => {
        const inputs = build(drawn);
        const { q, k, v, options } = inputs;
        const got = run(inputs);
        const report = judge(yardstickOfInputs(inputs), got, 'expected');
        // Of a few numbers the error of the naive evaluation is luck: then what rounding can do at most decides.
        if (!report.pass) expect(beyondRounding(q, k, v, options, got), `${report}`).toBeNull();
      }),
      RUNS,
    );
  });

  test('splitting the keys anywhere and merging changes nothing beyond rounding', () => {
    fc.assert(
      fc.property(
        dense,
        fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { maxLength: 4 }),
        (shape, shares) => {
          const inputs = build({ name: '', why: '', shape, seed: 7 });
          const { q, k, v } = inputs;
          const cuts = [
            0,
            ...shares.map((share) => Math.round(share * shape.kvLen)).sort((a, b) => a - b),
            shape.kvLen,
          ];
          const parts = cuts.slice(1).map((end, n) => {
            const [kPart, vPart] = [k, v].map((x) => x.slice(2, cuts[n], end));
            return run({ q, k: kPart, v: vPart, options: {} });
          });
          expectWithin(mergeAttention(parts), yardstickOfInputs(inputs));
        },
      ),
      RUNS,
    );
  });

  test('adding a number to every score moves the lse by it, and nothing else', () => {
    fc.assert(
      fc.property(dense, fc.integer({ min: -8, max: 8 }), (shape, shift) => {
        const inputs = build({ name: '', why: '', shape, seed: 8 });
        const moved = run(inputs, { bias: Tensor.full([1], shift) });
        const back = moved.lse.toFloat32Array().map((x) => x - shift);
        const bias = { ...inputs, options: { bias: Tensor.full([1], shift) } };
        // The tolerance of the moved problem, whose numbers are larger, holds for both.
        const yardstick = { ...yardstickOfInputs(bias), want: yardstickOfInputs(inputs).want };
        expectWithin({ out: moved.out, lse: Tensor.wrap(back, moved.lse.shape, 'float32') }, yardstick);
      }),
      { ...RUNS, numRuns: RUNS.numRuns / 3 },
    );
  });

  test('the order of the keys does not matter', () => {
    fc.assert(
      fc.property(dense, (shape) => {
        const inputs = build({ name: '', why: '', shape, seed: 9 });
        // Reversed by a negative stride: no copy, and a layout of its own to read.
        const reversed = (x: Tensor): Tensor => {
          if (x.size === 0) return x;
          const [batch, heads, rows, width] = x.shape;
          const strides = [heads * rows * width, rows * width, -width, 1];
          return new Tensor(x.data, [batch, heads, rows, width], { strides, offset: (rows - 1) * width });
        };
        const got = run({ ...inputs, k: reversed(inputs.k), v: reversed(inputs.v) });
        expectWithin(got, yardstickOfInputs(inputs));
      }),
      { ...RUNS, numRuns: RUNS.numRuns / 3 },
    );
  });

  test('threads and batch neighbours change no bit', () => {
    fc.assert(
      fc.property(cases, fc.integer({ min: 1, max: 5 }), (drawn, threads) => {
        const inputs = build({ ...drawn, layout: 'BHLD' });
        const want = run(inputs, { threads: 1 });
        const got = run(inputs, { threads });
        expect(got.out.data).toEqual(want.out.data);
        expect(got.lse.data).toEqual(want.lse.data);
      }),
      { ...RUNS, numRuns: RUNS.numRuns / 3 },
    );
  });

  test('what stands behind the keys that exist is never read', () => {
    fc.assert(
      fc.property(dense, fc.double({ min: 0, max: 1, noNaN: true }), (shape, share) => {
        const { q, k, v } = build({ name: '', why: '', shape, seed: 10 });
        const end = Math.round(share * shape.kvLen);
        const kvLengths = new Int32Array(shape.batch).fill(end);
        const want = run({ q, k, v, options: { kvLengths } });
        for (const x of [k, v]) x.slice(2, end).size > 0 && spoilFrom(x, end);
        const got = run({ q, k, v, options: { kvLengths } });
        expect(got.out.data).toEqual(want.out.data);
        expect(got.lse.data).toEqual(want.lse.data);
      }),
      { ...RUNS, numRuns: RUNS.numRuns / 3 },
    );
  });
});

/** NaN in all rows of x from `begin` on. */
function spoilFrom(x: Tensor, begin: number): void {
  const [batch, heads, rows, width] = x.shape;
  for (let n = 0; n < batch * heads; n++)
    x.data.fill(NaN, (n * rows + begin) * width, (n + 1) * rows * width);
}
