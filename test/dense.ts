import type { AttentionResult } from '../lib/attention.ts';
import { Tensor } from '../lib/tensor.ts';
import type { Inputs } from './cases.ts';

/** Numbers of any nesting. */
// biome-ignore lint/suspicious/noExplicitAny: a type for it would say less than it costs.
type Nested = any;

/**
 * Attention once more, from the words of the contract and from nothing of lib/: the whole score matrix, every condition
 * as it is written there. For float32 inputs of rank 4 or, ragged, of rank 3. It checks the oracle and the validator both.
 */
export function denseAttention(inputs: Inputs): AttentionResult {
  const { q, v, options } = inputs;
  const rows = rowsOf(inputs);
  const valueDim = v.shape.at(-1)!;
  const shape = q.shape.slice(0, -1);
  const outOf = ({ scores, weights, values }: Nested): number[] =>
    Array.from({ length: valueDim }, (_, d) =>
      weights.reduce(
        (sum: number, w: number, j: number) => (scores[j] === -Infinity ? sum : sum + w * values[j][d]),
        0,
      ),
    );
  return {
    out: tensorOf(rows, options, [...shape, valueDim], outOf),
    lse: tensorOf(rows, options, shape, ({ lse }) => lse),
  };
}

/** The statistics of the weights likewise, [B, Hq, Lq] each; `windowMass` is that of keys j with p - 5 <= j <= p + 2. */
export function denseStats(
  inputs: Inputs,
): Record<'entropy' | 'maxWeight' | 'argmax' | 'lse' | 'windowMass', Tensor> {
  const { q, options } = inputs;
  const rows = rowsOf(inputs);
  const statOf = (read: (row: Nested) => Nested): Tensor =>
    tensorOf(rows, options, q.shape.slice(0, -1), read);
  const sum = (numbers: number[]): number => numbers.reduce((a, b) => a + b, 0);
  const top = ({ scores }: Nested): number => (scores.includes(NaN) ? NaN : Math.max(-Infinity, ...scores));
  return {
    entropy: statOf(({ weights, sinkWeight }) =>
      sum([...weights, sinkWeight].map((w) => (w === 0 ? 0 : -w * Math.log(w)))),
    ),
    maxWeight: statOf(({ weights }) => (weights.includes(NaN) ? NaN : Math.max(0, ...weights))),
    argmax: statOf((row) =>
      row.weights.includes(NaN) || top(row) === -Infinity ? -1 : row.scores.indexOf(top(row)),
    ),
    lse: statOf(({ lse }) => lse),
    windowMass: statOf(({ weights, position }) =>
      sum(
        weights.filter((w: number, j: number) => Number.isNaN(w) || (position - 5 <= j && j <= position + 2)),
      ),
    ),
  };
}

/** `read` of each row as a tensor [B, Hq, Lq, ...], or [Hq, totalQ, ...] of a ragged batch. */
function tensorOf(
  rows: Nested,
  options: Nested,
  shape: readonly number[],
  read: (row: Nested) => Nested,
): Tensor {
  const byHead =
    options.cuSeqlensQ === undefined ? rows.flat() : transposed(rows).map((parts: Nested) => parts.flat());
  return new Tensor(Float32Array.from(byHead.flat().flatMap(read)), shape);
}

function transposed(rows: Nested): Nested {
  return (rows[0] ?? []).map((_: Nested, h: number) => rows.map((heads: Nested) => heads[h]));
}

/** The rows of every batch entry or sequence, [b][Hq][qLen]. */
function rowsOf({ q, k, v, options }: Inputs): Nested {
  const ragged = options.cuSeqlensQ as Int32Array | undefined;
  if (ragged === undefined) {
    const [qs, ks, vs] = [q, k, v].map((x) => x.toArray() as Nested);
    return qs.map((_: Nested, b: number) => entry(options, b, qs[b], ks[b], vs[b]));
  }
  const cuK = options.cuSeqlensK as Int32Array;
  const cut = (x: Tensor, ends: Int32Array, b: number): Nested => x.slice(1, ends[b], ends[b + 1]).toArray();
  return Array.from({ length: ragged.length - 1 }, (_, b) =>
    entry(options, b, cut(q, ragged, b), cut(k, cuK, b), cut(v, cuK, b)),
  );
}

/** One batch entry; q [Hq][Lq][D], k and v [Hkv][Lk][...]. */
function entry(options: Nested, b: number, q: Nested, k: Nested, v: Nested): Nested {
  const [numHeads, kvLen] = [q.length, options.kvLengths?.[b] ?? k[0].length];
  const offset = options.queryOffset?.[b] ?? options.queryOffset ?? kvLen - q[0].length;
  const { left = Infinity, right = Infinity, sinkTokens = 0 } = options.window ?? {};
  return q.map((queries: Nested, h: number) => {
    const kv = Math.floor(h / (numHeads / k.length));
    const slope = slopeOf(options.alibiSlopes, b, h);
    return queries.map((query: number[], i: number) => {
      const p = offset + i;
      const scores = k[kv].map((key: number[], j: number) => {
        const inWindow = (p - left <= j && j <= p + right) || (j < sinkTokens && j <= p + right);
        const visible =
          j < kvLen && inWindow && (!options.causal || j <= p) && (at(options.mask, [b, h, i, j]) ?? true);
        const bias = at(options.bias, [b, h, i, j]) ?? 0;
        if (!visible || bias === -Infinity) return -Infinity;
        let score =
          query.reduce((sum, x, d) => sum + x * key[d], 0) * (options.scale ?? 1 / Math.sqrt(query.length));
        if (options.softcap) score = options.softcap * Math.tanh(score / options.softcap);
        return score - slope * Math.abs(p - j) + bias;
      });
      return { ...softmaxOf(scores, options.sinks?.[h] ?? -Infinity), values: v[kv], position: p };
    });
  });
}

function softmaxOf(scores: number[], sink: number): Nested {
  const m = Math.max(sink, ...scores);
  if (m === -Infinity) return { scores, weights: scores.map(() => 0), sinkWeight: 0, lse: m };
  const l = scores.reduce((sum, s) => sum + (s === -Infinity ? 0 : Math.exp(s - m)), Math.exp(sink - m));
  const weights = scores.map((s) => Math.exp(s - m) / l);
  return { scores, weights, sinkWeight: Math.exp(sink - m) / l, lse: m + Math.log(l) };
}

/** The element of a tensor that broadcasts from the right; undefined where there is no tensor. */
function at(x: Tensor | undefined, index: number[]): Nested {
  if (x === undefined) return undefined;
  return x.at(...index.slice(4 - x.rank).map((n, axis) => (x.shape[axis] === 1 ? 0 : n))) as Nested;
}

function slopeOf(slopes: Nested, b: number, h: number): number {
  if (slopes === undefined) return 0;
  return slopes instanceof Tensor ? slopes.at(b, h) : slopes[h];
}
