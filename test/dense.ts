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
export function denseAttention({ q, k, v, options }: Inputs): AttentionResult {
  const ragged = options.cuSeqlensQ as Int32Array | undefined;
  if (ragged === undefined) {
    const parts = Array.from({ length: q.shape[0] }, (_, b) =>
      entry(
        options,
        b,
        (q.toArray() as Nested)[b],
        (k.toArray() as Nested)[b],
        (v.toArray() as Nested)[b],
        v.shape[3],
      ),
    );
    const outShape = [...q.shape.slice(0, 3), v.shape[3]];
    return {
      out: new Tensor(Float32Array.from((parts.map((part) => part.out) as Nested).flat(3)), outShape),
      lse: new Tensor(
        Float32Array.from((parts.map((part) => part.lse) as Nested).flat(2)),
        q.shape.slice(0, 3),
      ),
    };
  }
  const cuK = options.cuSeqlensK as Int32Array;
  const cut = (x: Tensor, ends: Int32Array, b: number): Nested => x.slice(1, ends[b], ends[b + 1]).toArray();
  const out: Nested = Array.from({ length: q.shape[0] }, () => []);
  const lse: Nested = Array.from({ length: q.shape[0] }, () => []);
  for (let b = 0; b + 1 < ragged.length; b++) {
    const part = entry(options, b, cut(q, ragged, b), cut(k, cuK, b), cut(v, cuK, b), v.shape[2]);
    for (const [h, rows] of part.out.entries()) out[h].push(...rows);
    for (const [h, rows] of part.lse.entries()) lse[h].push(...rows);
  }
  return {
    out: new Tensor(Float32Array.from(out.flat(2)), [q.shape[0], q.shape[1], v.shape[2]]),
    lse: new Tensor(Float32Array.from(lse.flat(1)), [q.shape[0], q.shape[1]]),
  };
}

/** One batch entry; q [Hq][Lq][D], k and v [Hkv][Lk][...]. */
function entry(
  options: Nested,
  b: number,
  q: Nested,
  k: Nested,
  v: Nested,
  valueDim: number,
): { out: Nested; lse: Nested } {
  const [numHeads, kvLen] = [q.length, options.kvLengths?.[b] ?? k[0].length];
  const offset = options.queryOffset?.[b] ?? options.queryOffset ?? kvLen - q[0].length;
  const { left = Infinity, right = Infinity, sinkTokens = 0 } = options.window ?? {};
  const out: Nested = [];
  const lse: Nested = [];
  for (let h = 0; h < numHeads; h++) {
    const kv = Math.floor(h / (numHeads / k.length));
    const slope = slopeOf(options.alibiSlopes, b, h);
    const rows = q[h].map((query: number[], i: number) => {
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
      return softmaxOf(scores, options.sinks?.[h] ?? -Infinity);
    });
    lse.push(rows.map((row: Nested) => row.lse));
    out.push(
      rows.map((row: Nested) =>
        Array.from({ length: valueDim }, (_, d) =>
          row.weights.reduce(
            (sum: number, w: number, j: number) =>
              row.scores[j] === -Infinity ? sum : sum + w * v[kv][j][d],
            0,
          ),
        ),
      ),
    );
  }
  return { out, lse };
}

function softmaxOf(scores: number[], sink: number): Nested {
  const m = Math.max(sink, ...scores);
  if (m === -Infinity) return { scores, weights: scores.map(() => 0), lse: m };
  const l = scores.reduce((sum, s) => sum + (s === -Infinity ? 0 : Math.exp(s - m)), Math.exp(sink - m));
  return { scores, weights: scores.map((s) => Math.exp(s - m) / l), lse: m + Math.log(l) };
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
