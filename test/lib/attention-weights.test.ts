import { describe, expect, test } from 'vitest';
import { referenceAttention } from '../../lib/attention.ts';
import { attentionWeights } from '../../lib/attention-weights.ts';
import { OptionError } from '../../lib/errors.ts';
import { cut } from '../../lib/problem-slice.ts';
import { Tensor } from '../../lib/tensor.ts';
import { randomMask } from '../cases.ts';
import { longestFloat64Array } from '../memory.ts';

const q = Tensor.randn([2, 4, 5, 8], { seed: 1 });
const k = Tensor.randn([2, 2, 7, 8], { seed: 2 });
const v = Tensor.randn([2, 2, 7, 8], { seed: 3 });
const bias = Tensor.randn([4, 5, 7], { seed: 4 });

const at = (index: number): { begin: number; end: number } => ({ begin: index, end: index + 1 });

/** scale × q·k of one element. */
function score(b: number, h: number, i: number, j: number): number {
  let sum = 0;
  for (let d = 0; d < 8; d++) sum += q.at(b, h, i, d) * k.at(b, Math.floor(h / 2), j, d);
  return sum / Math.sqrt(8);
}

describe('attentionWeights', () => {
  test('rows sum to 1, and times v give attention', () => {
    const options = { causal: true, softcap: 3, bias };
    const weights = attentionWeights(q, k, v, options);
    const out = referenceAttention(q, k, v, options);
    expect(weights.shape).toEqual([2, 4, 5, 7]);
    for (const [b, h, i, d] of [
      [0, 0, 0, 0],
      [1, 3, 4, 7],
      [1, 2, 2, 3],
    ]) {
      let sum = 0;
      let product = 0;
      for (let j = 0; j < 7; j++) {
        sum += weights.at(b, h, i, j);
        product += weights.at(b, h, i, j) * v.at(b, Math.floor(h / 2), j, d);
      }
      expect(sum).toBeCloseTo(1, 6);
      expect(product).toBeCloseTo(out.at(b, h, i, d), 5);
    }
    expect(weights.at(0, 0, 0, 3)).toBe(0);
  });

  test('the stages, in the order of the contract', () => {
    const options = { causal: true, softcap: 1.5, bias, alibiSlopes: [1, 2, 3, 4] };
    const scores = attentionWeights(q, k, v, { ...options, stage: 'scores' });
    const capped = attentionWeights(q, k, v, { ...options, stage: 'capped' });
    const biased = attentionWeights(q, k, v, { ...options, stage: 'biased' });
    const [b, h, i, j] = [1, 3, 2, 1];
    const raw = score(b, h, i, j);
    const cap = 1.5 * Math.tanh(raw / 1.5);
    expect(scores.at(b, h, i, j)).toBeCloseTo(raw, 5);
    expect(capped.at(b, h, i, j)).toBeCloseTo(cap, 5);
    expect(biased.at(b, h, i, j)).toBeCloseTo(cap - 4 * Math.abs(2 + i - j) + bias.at(h, i, j), 4);
    // Masked keys have scores all the same, until they are masked.
    expect(scores.at(0, 0, 0, 6)).toBeCloseTo(score(0, 0, 0, 6), 5);
    expect(capped.at(0, 0, 0, 6)).not.toBe(-Infinity);
    expect(biased.at(0, 0, 0, 6)).toBe(-Infinity);
  });

  test('with sinks the rest is the sink’s; empty rows are 0', () => {
    const weights = attentionWeights(q, k, v, { causal: true, queryOffset: -2, sinks: [0, 1, 2, 3] });
    expect(
      weights
        .slice(2, 0, 2)
        .toFloat32Array()
        .every((w) => w === 0),
    ).toBe(true);
    const lastRow = weights.slice(2, 4).slice(1, 3).slice(0, 0, 1).toFloat32Array();
    expect(lastRow.reduce((sum, w) => sum + w, 0)).toBeLessThan(1);
  });

  test('queries and heads select, in their order', () => {
    const all = attentionWeights(q, k, v);
    const some = attentionWeights(q, k, v, { queries: [4, 0], heads: Int32Array.of(3, 1) });
    expect(some.shape).toEqual([2, 2, 2, 7]);
    expect(some.at(1, 0, 0, 5)).toBe(all.at(1, 3, 4, 5));
    expect(some.at(0, 1, 1, 2)).toBe(all.at(0, 1, 0, 2));
    expect(attentionWeights(q, k, v, { queries: [] }).shape).toEqual([2, 4, 0, 7]);
  });

  test.each(['scores', 'capped', 'biased', 'weights'] as const)(
    'selects from stage %s with every option',
    (stage) => {
      const options = {
        stage,
        causal: true,
        kvLengths: [6, 7],
        softcap: 3,
        bias,
        mask: randomMask([2, 4, 5, 7], 6),
        alibiSlopes: Tensor.randn([2, 4], { seed: 7 }),
        sinks: [1, 2, 3, 4],
      };
      const all = attentionWeights(q, k, v, options);
      const [heads, queries] = [
        [2, 3, 1],
        [3, 4, 0, 0],
      ];
      const some = attentionWeights(q, k, v, { ...options, heads, queries });
      for (let b = 0; b < 2; b++) {
        for (const [n, h] of heads.entries()) {
          for (const [m, i] of queries.entries()) {
            const row = (x: Tensor, head: number, query: number): Float32Array =>
              cut(x, [at(b), at(head), at(query)]).toFloat32Array();
            expect(row(some, n, m)).toEqual(row(all, h, i));
          }
        }
      }
    },
  );

  test('a few rows of a long context take the memory of those rows', () => {
    const [long, head] = [100_000, Tensor.zeros([1, 8, 100_000, 2])];
    const options = { causal: true, heads: [5], queries: [long - 1, 7] };
    let weights: Tensor | undefined;
    const longest = longestFloat64Array(() => {
      weights = attentionWeights(head, head, head, options);
    });
    expect(weights!.shape).toEqual([1, 1, 2, long]);
    expect(weights!.at(0, 0, 1, 7)).toBeCloseTo(1 / 8, 7);
    expect(longest).toBeLessThanOrEqual(2 ** 18);
  });

  test('rank 3 gives rank 3; keys beyond kvLengths are 0, and -Infinity among scores', () => {
    const one = (x: Tensor): Tensor => x.slice(0, 1).squeeze(0);
    const options = { kvLengths: [4] };
    const weights = attentionWeights(one(q), one(k), one(v), options);
    expect(weights.shape).toEqual([4, 5, 7]);
    expect(weights.at(2, 3, 4)).toBe(0);
    expect(weights.at(2, 3, 3)).toBeGreaterThan(0);
    expect(attentionWeights(one(q), one(k), one(v), { ...options, stage: 'scores' }).at(2, 3, 4)).toBe(
      -Infinity,
    );
  });

  test('ragged batches are padded to the longest', () => {
    const packed = Tensor.randn([2, 6, 8], { seed: 9 });
    const cuSeqlens = [0, 2, 6];
    const weights = attentionWeights(packed, packed, packed, {
      cuSeqlensQ: cuSeqlens,
      cuSeqlensK: cuSeqlens,
    });
    expect(weights.shape).toEqual([2, 2, 4, 4]);
    const second = packed.slice(1, 2, 6);
    const alone = attentionWeights(second, second, second);
    expect(weights.slice(0, 1).squeeze(0).toFloat32Array()).toEqual(alone.toFloat32Array());
    expect(
      weights
        .slice(0, 0, 1)
        .slice(2, 2)
        .toFloat32Array()
        .every((w) => w === 0),
    ).toBe(true);
    expect(
      attentionWeights(packed, packed, packed, { cuSeqlensQ: [0, 6], cuSeqlensK: [0, 6] }).shape,
    ).toEqual([1, 2, 6, 6]);
  });

  test.each([
    ['an unknown stage', { stage: 'logits' }, /stage must be one of/],
    ['a negative index', { queries: [-1] }, /queries must be indices from 0 to 4; element 0 is -1/],
    ['an index beyond', { heads: [4] }, /heads must be indices from 0 to 3/],
    ['out', { out: q }, /'out' does not apply here/],
    ['a misspelt option', { query: [1] }, /attentionWeights: .*'query'/],
  ])('refuses %s', (_, options, message) => {
    expect(() => attentionWeights(q, k, v, options as object)).toThrow(OptionError);
    expect(() => attentionWeights(q, k, v, options as object)).toThrow(message);
  });
});
