import type { AttentionResult } from './attention.ts';
import { isFloatDType } from './dtype.ts';
import { DTypeError, OptionError, ShapeError } from './errors.ts';
import { Tensor } from './tensor.ts';
import { encoderOf } from './tensor-convert.ts';
import { copyList, formatShape, formatValue } from './tensor-layout.ts';
import { asTensor, type TensorLike } from './tensor-like.ts';

/** One part of {@link mergeAttention}: attention over some of the keys. */
export interface AttentionPart {
  /** [..., Dv] */
  readonly out: TensorLike;
  /** [...], float32 */
  readonly lse: TensorLike;
}

/**
 * Attention over the union of disjoint sets of keys, from the attention over each (Flash-Decoding; FlashAttention-2
 * §3.1): out = Σ exp(lseₚ - lse)·outₚ with lse = log Σ exp(lseₚ). Float64 inside; as exact as float32 lse are: about
 * eps·|lse| relative. A part with the lse -Infinity, which saw no key, is inert, whatever its out holds. With sinks, give
 * them to one part only: each lse that includes them counts them.
 *
 * @param parts at least one { out [..., Dv], lse [...] } of any rank, all of one shape and dtype
 * @returns fresh { out, lse } of that shape and dtype
 * @throws OptionError for anything but a list of parts; ShapeError, DTypeError where they do not agree
 * @example
 * const near = attention(q, k.slice(2, 512), v.slice(2, 512), { returnLse: true });
 * const far = attention(q, k.slice(2, 0, 512), v.slice(2, 0, 512), { returnLse: true });
 * const { out, lse } = mergeAttention([near, far]);
 */
export function mergeAttention(parts: readonly AttentionPart[]): AttentionResult {
  const checked = checkParts(parts);
  const { out: first, lse: firstLse } = checked[0];
  const outs = checked.map((part) => part.out.to('float32').data);
  const lses = checked.map((part) => part.lse.contiguous().data);
  const valueDim = first.shape[first.rank - 1];
  const out = Tensor.empty(first.shape, { dtype: first.dtype });
  const lse = Tensor.empty(firstLse.shape);
  const encode = encoderOf(first.dtype);
  const sums = new Float64Array(valueDim);
  for (let row = 0; row < firstLse.size; row++) {
    let m = -Infinity;
    for (const values of lses) m = Math.max(m, values[row]);
    let l = 0;
    sums.fill(0);
    for (let p = 0; p < outs.length; p++) {
      if (lses[p][row] === -Infinity) continue;
      const weight = Math.exp(lses[p][row] - m);
      l += weight;
      for (let d = 0; d < valueDim; d++) sums[d] += weight * outs[p][row * valueDim + d];
    }
    lse.data[row] = m === -Infinity ? m : m + Math.log(l);
    if (m === -Infinity) continue;
    for (let d = 0; d < valueDim; d++) out.data[row * valueDim + d] = encode(sums[d] / l);
  }
  return { out, lse };
}

/** Parts of a merge at most. */
const MAX_PARTS = 2 ** 20;

function checkParts(parts: unknown): { out: Tensor; lse: Tensor }[] {
  const list = Array.isArray(parts) ? copyList(parts, MAX_PARTS) : null;
  if (list === null || list.length === 0) {
    throw new OptionError(
      `mergeAttention: parts must be a list of at least one { out, lse }; got ${formatValue(parts)}`,
    );
  }
  const tensors = list.map((part, p) => checkPart(part, p));
  const first = tensors[0].out;
  tensors.forEach(({ out }, p) => {
    if (formatShape(out.shape) !== formatShape(first.shape)) {
      throw new ShapeError(
        `mergeAttention: all parts must have one shape; parts[0].out ${formatShape(first.shape)}, ` +
          `parts[${p}].out ${formatShape(out.shape)}`,
      );
    }
    if (out.dtype !== first.dtype) {
      throw new DTypeError(
        `mergeAttention: all parts must have one dtype; parts[0].out ${first.dtype}, parts[${p}].out ${out.dtype}; ` +
          `convert with .to('${first.dtype}')`,
      );
    }
  });
  return tensors;
}

function checkPart(part: unknown, p: number): { out: Tensor; lse: Tensor } {
  if (typeof part !== 'object' || part === null || !('out' in part) || !('lse' in part)) {
    throw new OptionError(
      `mergeAttention: parts[${p}] must be { out, lse }; got ${formatValue(part)}; ` +
        'attention returns it with returnLse: true',
    );
  }
  const out = asTensor('mergeAttention', `parts[${p}].out`, part.out);
  const lse = asTensor('mergeAttention', `parts[${p}].lse`, part.lse);
  if (!isFloatDType(out.dtype) || lse.dtype !== 'float32') {
    throw new DTypeError(
      `mergeAttention: parts[${p}] needs an out of float32, float16 or bfloat16 and an lse of float32; ` +
        `out ${out.dtype}, lse ${lse.dtype}`,
    );
  }
  if (out.rank === 0 || formatShape(lse.shape) !== formatShape(out.shape.slice(0, -1))) {
    throw new ShapeError(
      `mergeAttention: parts[${p}].lse must have the shape of its out without the last axis; ` +
        `out ${formatShape(out.shape)}, lse ${formatShape(lse.shape)}`,
    );
  }
  return { out, lse };
}
