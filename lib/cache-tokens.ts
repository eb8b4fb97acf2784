import type { CacheLayout } from './backend.ts';
import { type DType, isFloatDType } from './dtype.ts';
import { CapacityError, DTypeError, ShapeError } from './errors.ts';
import { lastAxisContiguous, type Tensor } from './tensor.ts';
import { formatShape } from './tensor-layout.ts';
import { asTensor, type TensorLike } from './tensor-like.ts';

/** Keys and values to append to a KVCache: rank 4, in the dtype of the cache. */
export interface Tokens {
  readonly k: Tensor;
  readonly v: Tensor;
  readonly count: number;
  /** Whether they came in that dtype. */
  readonly areStored: boolean;
}

/**
 * k and v of an append to a cache that holds `length` tokens, checked.
 *
 * @throws ShapeError, DTypeError; CapacityError beyond maxLength
 */
export function readTokens(
  caller: string,
  layout: CacheLayout,
  length: number,
  kLike: TensorLike,
  vLike: TensorLike,
): Tokens {
  const k = asTensor(caller, 'k', kLike);
  const v = asTensor(caller, 'v', vLike);
  const { batch, numKvHeads, headDim, valueDim, dtype, maxLength } = layout;
  const count = k.shape[k.rank - 2];
  if (!fits(k, layout, headDim) || !fits(v, layout, valueDim) || count !== v.shape[v.rank - 2]) {
    throw new ShapeError(
      `${caller}: k must be [${batch}, ${numKvHeads}, T, ${headDim}] and v [${batch}, ${numKvHeads}, T, ${valueDim}]; ` +
        `k ${formatShape(k.shape)}, v ${formatShape(v.shape)}`,
    );
  }
  checkRows(caller, 'k', k);
  checkRows(caller, 'v', v);
  if (length + count > maxLength) {
    throw new CapacityError(
      `${caller}: ${count} more tokens beside the ${length} that are cached exceed maxLength ${maxLength}; ` +
        'truncate the cache or make one with a larger maxLength; nothing was appended',
    );
  }
  const areStored = k.dtype === dtype && v.dtype === dtype;
  return { k: stored(k, dtype), v: stored(v, dtype), count, areStored };
}

/** Whether x is [batch, numKvHeads, any, dim], or that without a batch of 1. */
function fits(x: Tensor, { batch, numKvHeads }: CacheLayout, dim: number): boolean {
  const axis = x.rank - 4;
  const batchFits = x.rank === 3 ? batch === 1 : x.rank === 4 && x.shape[0] === batch;
  return batchFits && x.shape[axis + 1] === numKvHeads && x.shape[axis + 3] === dim;
}

function checkRows(caller: string, name: string, x: Tensor): void {
  if (!isFloatDType(x.dtype)) {
    throw new DTypeError(
      `${caller}: ${name} must be float32, float16 or bfloat16; got ${x.dtype}; convert with .to('float32')`,
    );
  }
  if (!lastAxisContiguous(x)) {
    throw new ShapeError(
      `${caller}: the last axis of ${name} must be contiguous; ${name} ${formatShape(x.shape)} with strides ` +
        `${formatShape(x.strides)}; pass ${name}.contiguous()`,
    );
  }
}

function stored(x: Tensor, dtype: DType): Tensor {
  const converted = x.dtype === dtype ? x : x.to(dtype);
  return converted.rank === 4 ? converted : converted.unsqueeze(0);
}
