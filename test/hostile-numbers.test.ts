import { beforeAll, describe, expect, test } from 'vitest';
import { type AttentionResult, attention } from '../lib/attention.ts';
import { attentionStats } from '../lib/attention-stats.ts';
import { attentionWeights } from '../lib/attention-weights.ts';
import { OptionError } from '../lib/errors.ts';
import { KVCache } from '../lib/kv-cache.ts';
import { mergeAttention } from '../lib/merge-attention.ts';
import { rope } from '../lib/modules/rope.ts';
import type { AttentionOptions } from '../lib/options.ts';
import { Tensor } from '../lib/tensor.ts';
import { backendsUnderTest } from './backends.ts';
import { type Answer, answerOf, firstDifference } from './hostile-answers.ts';
import { DTYPES, nameOf, pairwiseRows, problemOf, type Row } from './hostile-numbers.ts';
import { denseOf, PATHS, type Problem } from './hostile-paths.ts';

/** HOSTILE_ROWS more lines of the table, drawn at random. */
const ROWS = pairwiseRows(Number(process.env.HOSTILE_ROWS ?? 0));

/** An int8 cache refuses what is not finite, of k and v. */
const refusedByCache = ({ path, kind, place }: Row): boolean =>
  PATHS[path].cacheDType === 'int8' &&
  /^(NaN|.Infinity)$/.test(kind) &&
  /^(k|v|q and k|k and v)$/.test(place);

const answers = new Map<Row, { problem: Problem; answer: Answer }>();
function answerTo(row: Row): { problem: Problem; answer: Answer } {
  let found = answers.get(row);
  if (found === undefined) {
    const problem = problemOf(row);
    found = { problem, answer: answerOf(row, denseOf(PATHS[row.path], problem)) };
    answers.set(row, found);
  }
  return found;
}

const random = (length: number, seed: number, dtype: Tensor['dtype'] = 'float32'): Tensor =>
  Tensor.randn([1, 1, length, 16], { seed, dtype });
const fill = (x: Tensor, row: number, value: number): Tensor => {
  x.data.fill(value, row * x.shape[3], (row + 1) * x.shape[3]);
  return x;
};
const isAll = (x: Tensor, value: number): boolean =>
  [...x.toFloat32Array()].every((y) => Object.is(y, value));

describe.each(backendsUnderTest())('$name', ({ name, backend, select }) => {
  beforeAll(select);

  const run = (q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions = {}): AttentionResult =>
    attention(q, k, v, { ...options, backend, returnLse: true }) as AttentionResult;

  test.each(Object.keys(PATHS))('%s: NaN, infinities and values as the oracle has them', (path) => {
    const wrong = ROWS.filter((row) => row.path === path).flatMap((row) => {
      if (refusedByCache(row)) {
        expect(() => PATHS[path].run(backend, problemOf(row)), nameOf(row)).toThrow(OptionError);
        return [];
      }
      const { problem, answer } = answerTo(row);
      const difference = firstDifference(answer, PATHS[path].run(backend, problem));
      return difference === undefined ? [] : [`${nameOf(row)}: ${difference}`];
    });
    expect(wrong).toEqual([]);
  });

  test.each(DTYPES)('causality holds for NaN at every position, %s %s', (dtype, precision) => {
    const length = backend === 'native' ? 130 : 40;
    const [q, k, v] = [random(length, 1, dtype), random(length, 2, dtype), random(length, 3, dtype)];
    const nan = Tensor.full([1], NaN, { dtype }).data[0];
    for (let key = 0; key < length; key++) {
      const [badK, badV] = [fill(k.clone(), key, nan), fill(v.clone(), key, nan)];
      const { out, lse } = run(q, badK, badV, { causal: true, precision });
      const values = out.toFloat32Array();
      for (let i = 0; i < length; i++) {
        const isNaNRow =
          values.subarray(16 * i, 16 * i + 16).every(Number.isNaN) && Number.isNaN(lse.data[i]);
        const isFiniteRow =
          values.subarray(16 * i, 16 * i + 16).every(Number.isFinite) && Number.isFinite(lse.data[i]);
        if (i >= key ? isNaNRow : isFiniteRow) continue;
        expect.fail(
          `row ${i} with NaN in key ${key}: ${values.subarray(16 * i, 16 * i + 4)}, lse ${lse.data[i]}`,
        );
      }
    }
  });

  test.each([1, 3, 40])('%i queries: no key, no score, and a NaN are three things', (qLen) => {
    const [q, k, v] = [random(qLen, 1), random(70, 2), random(70, 3)];
    const empty = run(q, k, v, { mask: Tensor.zeros([1], { dtype: 'bool' }) });
    const low = run(q, k, v, { bias: Tensor.full([1], -Infinity) });
    for (const { out, lse } of [empty, low]) {
      expect(isAll(out, 0)).toBe(true);
      expect(isAll(lse, -Infinity)).toBe(true);
    }
    const bad = run(q, k, v, { bias: Tensor.full([1], NaN) });
    expect([isAll(bad.out, NaN), isAll(bad.lse, NaN)]).toEqual([true, true]);
    const high = run(q, k, v, { bias: Tensor.full([1], Infinity) });
    expect([isAll(high.out, NaN), isAll(high.lse, NaN)]).toEqual([true, true]);
    // Scores of -Infinity by a product: as if those keys were masked.
    const down = fill(Tensor.zeros([1, 1, 70, 16]), 5, -Infinity);
    const ones = Tensor.full([1, 1, qLen, 16], 1);
    const { out } = run(ones, down, fill(v.clone(), 5, NaN));
    expect([...out.toFloat32Array()].every(Number.isFinite)).toBe(true);
  });

  test.each([1, 3, 40])('%i queries: a score beyond float32 is infinite', (qLen) => {
    const q = Tensor.full([1, 1, qLen, 16], 1e20);
    const k = fill(Tensor.zeros([1, 1, 70, 16]), 33, 1e20);
    const v = random(70, 3);
    expect(isAll(run(q, k, v).out, NaN)).toBe(true);
    const below = run(q, fill(k.clone(), 33, -1e20), v);
    expect([...below.out.toFloat32Array()].every(Number.isFinite)).toBe(true);
    expect(below.lse.data[0]).toBeCloseTo(Math.log(69), 5);
    // ±cap is what is left of it after a cap.
    expect(run(q, k, v, { softcap: 5 }).lse.data[0]).toBeCloseTo(Math.log(69 + Math.exp(5)), 4);
  });

  test.each([1, 3, 40])('%i queries: huge scores of both signs pick one key', (qLen) => {
    const q = Tensor.full([1, 1, qLen, 16], 1);
    const k = Tensor.zeros([1, 1, 70, 16]);
    for (let j = 0; j < 70; j++) fill(k, j, j % 2 === 0 ? 1e36 : -1e36);
    fill(k, 41, 3e36);
    const v = random(70, 3);
    const { out } = run(q, k, v, { scale: 1 });
    for (let i = 0; i < qLen; i++)
      expect([...out.data.subarray(16 * i, 16 * i + 16)]).toEqual([...v.data.subarray(16 * 41, 16 * 42)]);
  });

  test.each([1, 3, 40])(
    '%i queries: subnormal values are not flushed, and JavaScript keeps its own',
    (qLen) => {
      for (const dtype of ['float32', 'bfloat16'] as const) {
        const tiny = dtype === 'float32' ? 2 ** -140 : 2 ** -130;
        const v = Tensor.full([1, 1, 70, 16], tiny, { dtype });
        const { out } = run(random(qLen, 1, dtype), random(70, 2, dtype), v);
        for (const x of out.toFloat32Array()) expect(Math.abs(x / tiny - 1)).toBeLessThan(0.01);
      }
      const [smallest, zero] = [Number.MIN_VALUE, Number(`0.${0}`)];
      expect(smallest * (1 + zero)).toBe(5e-324);
      expect(Math.fround(2 ** -149 * (1 + zero))).toBe(2 ** -149);
      expect(2 ** -1030 + smallest).toBeGreaterThan(2 ** -1030);
    },
  );

  test('scale 0 is the mean, and of infinite scores NaN', () => {
    const [q, k, v] = [random(20, 1), random(50, 2), random(50, 3)];
    expect(run(q, k, v, { scale: 0 }).lse.data[7]).toBeCloseTo(Math.log(50), 5);
    expect(isAll(run(q, fill(k.clone(), 9, Infinity), v, { scale: 0 }).out, NaN)).toBe(true);
  });

  test.each([
    ['scale', 1e39],
    ['scale', -1e300],
    ['softcap', 1e39],
    ['softcap', 1e-39],
    ['softcap', Number.MIN_VALUE],
  ])('%s %d, which float32 cannot hold, is refused', (option, value) => {
    const call = () => run(random(2, 1), random(2, 2), random(2, 3), { [option]: value });
    expect(call).toThrow(new RegExp(`${option} must .*float32`));
    expect(call).toThrow(OptionError);
  });

  test.each([
    ['softcap', 2 ** -126],
    ['softcap', 1e38],
    ['scale', 3e38],
    ['scale', -3e38],
    ['scale', 1e-45],
    ['scale', 5e-324],
  ])('%s %d is computed with', (option, value) => {
    const tiny = new Tensor(
      random(20, 1).data.map((x) => (value > 1e38 || value < -1e38 ? x * 1e-38 : x)),
      [1, 1, 20, 16],
    );
    const [k, v] = [random(70, 2), random(70, 3)];
    for (const q of [tiny, tiny.slice(2, 0, 1)]) {
      const want = attention(q, k, v, { [option]: value, backend: 'reference' }) as Tensor;
      const { out } = run(q, k, v, { [option]: value });
      for (const [i, x] of out.toFloat32Array().entries())
        expect(Math.abs(x - want.data[i])).toBeLessThan(1e-5);
    }
  });

  test.each(['q', 'k', 'bias', 'sinks', 'alibiSlopes'] as const)(
    'weights and statistics with a hostile %s',
    (place) => {
      for (const value of [NaN, Infinity, -Infinity, 1e38, -1e38]) {
        for (const options of [{}, { causal: true, window: { left: 20 } }]) {
          const [q, k, v] = [random(33, 1), random(70, 2), random(70, 3)];
          if (place === 'q') q.data[5 * 16 + 3] = value;
          if (place === 'k') k.data[41 * 16 + 3] = value;
          const extra: AttentionOptions = {};
          if (place === 'bias')
            Object.assign(extra, {
              bias: new Tensor(
                Float32Array.from({ length: 70 }, (_, j) => (j === 41 ? value : 0)),
                [70],
              ),
            });
          if (place === 'sinks' || place === 'alibiSlopes') Object.assign(extra, { [place]: [value] });
          const [got, want] = [backend, 'reference' as const].map((which) => {
            const given = { ...options, ...extra, backend: which };
            const { entropy, maxWeight, argmax, lse } = attentionStats(q, k, v, given);
            return { entropy, maxWeight, argmax, lse, weights: attentionWeights(q, k, v, given) };
          });
          for (const [key, tensor] of Object.entries(want)) {
            const at = `${key} with ${value}, ${JSON.stringify(options)}`;
            const [a, b] = [got[key as keyof typeof got].toFloat32Array(), tensor.toFloat32Array()];
            b.forEach((x, i) => {
              if (Object.is(a[i], x) || a[i] === x) return;
              expect(Math.abs(a[i] - x), `${at} [${i}]: got ${a[i]}, want ${x}`).toBeLessThanOrEqual(
                1e-5 * Math.max(1, Math.abs(x)),
              );
            });
          }
        }
      }
    },
  );

  test('a cache keeps what it is given: NaN payloads, infinities, subnormals, -0', () => {
    for (const dtype of ['float32', 'float16', 'bfloat16'] as const) {
      const values = [NaN, Infinity, -Infinity, -0, 2 ** -149, -(2 ** -24), 65504, 1];
      const k = new Tensor(
        Float32Array.from({ length: 64 }, (_, n) => values[n % 8]),
        [1, 1, 4, 16],
      ).to(dtype);
      using cache = new KVCache({ numKvHeads: 1, headDim: 16, dtype, backend }).append(k, k);
      expect(cache.keys().data).toEqual(k.data);
      expect(Object.is(cache.values().toFloat32Array()[3], -0), name).toBe(true);
    }
  });
});

describe('around attention', () => {
  test('mergeAttention: lse of -Infinity is inert, of Infinity or NaN is NaN, huge ones do not overflow', () => {
    const part = (out: number, lse: number) => ({
      out: Tensor.full([1, 2, 4], out),
      lse: Tensor.full([1, 2], lse),
    });
    const merge = (...parts: [number, number][]) => {
      const { out, lse } = mergeAttention(parts.map(([out, lse]) => part(out, lse)));
      return [out.data[0], lse.data[0]];
    };
    expect(merge([1, 0], [NaN, -Infinity])).toEqual([1, 0]);
    expect(merge([1, -Infinity], [NaN, -Infinity])).toEqual([0, -Infinity]);
    expect(merge([1, 0], [2, Infinity])).toEqual([NaN, NaN]);
    expect(merge([1, 0], [2, NaN])).toEqual([NaN, NaN]);
    expect(merge([1, 3e38], [3, 3e38])[0]).toBe(2);
    expect(merge([1, -3e38], [3, -3e38])[0]).toBe(2);
    expect(merge([1, -3e38], [3, 3e38])).toEqual([3, Math.fround(3e38)]);
    expect(merge([3e38, 0], [3e38, 0])[0]).toBeCloseTo(Math.fround(3e38), -32);
    expect(merge([NaN, 0], [1, 200])[0]).toBeNaN();
  });

  test('rope: what is not finite stays in its pair of channels', () => {
    for (const value of [NaN, Infinity, -Infinity, 3e38, 2 ** -149]) {
      for (const interleaved of [false, true]) {
        const x = Tensor.full([1, 1, 3, 8], 1);
        x.data[8 + 2] = value;
        const { data } = rope(x, { offset: 1, interleaved });
        const clean = rope(Tensor.full([1, 1, 3, 8], 1), { offset: 1, interleaved }).data;
        const pair = interleaved ? [2, 3] : [2, 6];
        for (let n = 0; n < 24; n++) {
          if (n >= 8 && n < 16 && pair.includes(n - 8)) {
            if (!Number.isFinite(value)) expect(Number.isFinite(data[n])).toBe(false);
          } else expect(data[n]).toBe(clean[n]);
        }
      }
    }
  });
});
