import type { CacheLayout } from './backend.ts';
import { type DType, isFloatDType } from './dtype.ts';
import { CapacityError, DTypeError, OptionError, ShapeError } from './errors.ts';
import { readIntegers } from './options.ts';
import { lastAxisContiguous, type Tensor } from './tensor.ts';
import { sourceDType } from './tensor-int8.ts';
import { formatShape } from './tensor-layout.ts';
import { asTensor, type TensorLike } from './tensor-like.ts';

/** Keys and values to append to a KVCache: rank 4, in the dtype of the cache; float32 for one of int8. */
export interface Tokens {
  readonly k: Tensor;
  readonly v: Tensor;
  readonly count: number;
  /** Whether they came in that dtype. */
  readonly areStored: boolean;
  /** How many of them each batch entry takes, from the first one on; null where all take all of what was given. */
  readonly counts: readonly number[] | null;
  /** The longest entry once they are there. */
  readonly length: number;
  /** Every entry then; null where all are as long. */
  readonly lengths: Int32Array | null;
}

/** What an append knows of the cache. */
export interface Before {
  readonly layout: CacheLayout;
  /** Tokens of the longest entry. */
  readonly length: number;
  /** Of every entry; null where all are as long. */
  readonly lengths: Int32Array | null;
}

/**
 * k and v of an append to a cache, checked.
 *
 * @param counts the option `lengths`: how many tokens each batch entry takes
 * @throws ShapeError, DTypeError, OptionError; CapacityError beyond maxLength
 */
export function readTokens(
  caller: string,
  before: Before,
  kLike: TensorLike,
  vLike: TensorLike,
  countsOption: unknown = null,
): Tokens {
  const { layout } = before;
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
  const counts = readCounts(caller, countsOption, batch, count);
  const { length, lengths } = lengthsAfter(before, counts, count);
  if (length > maxLength) {
    throw new CapacityError(
      `${caller}: ${count} more tokens beside the ${before.length} that are cached exceed maxLength ${maxLength}; ` +
        'truncate the cache or make one with a larger maxLength; nothing was appended',
    );
  }
  const source = sourceDType(dtype);
  const areStored = k.dtype === source && v.dtype === source;
  const tokens = { areStored, counts, length, lengths };
  if (counts === null || lengths !== null)
    return { ...tokens, k: stored(k, source), v: stored(v, source), count };
  const taken = (x: Tensor): Tensor => x.slice(2, 0, counts[0]);
  return { ...tokens, k: taken(stored(k, source)), v: taken(stored(v, source)), count: counts[0] };
}

/** How many of `count` tokens each batch entry takes; null where all take all of them. */
function readCounts(caller: string, option: unknown, batch: number, count: number): readonly number[] | null {
  if (option === undefined || option === null) return null;
  const counts = Array.from(readIntegers(caller, 'lengths', option, batch));
  const wrong = counts.findIndex((own) => own < 0 || own > count);
  if (wrong >= 0) {
    throw new OptionError(
      `${caller}: lengths[${wrong}] must be from 0 to ${count}, the tokens given; got ${counts[wrong]}; it counts those ` +
        'that the batch entry takes, from the first one on',
    );
  }
  return counts.every((own) => own === count) ? null : counts;
}

function lengthsAfter(
  { layout, length, lengths }: Before,
  counts: readonly number[] | null,
  count: number,
): Pick<Tokens, 'length' | 'lengths'> {
  if (lengths === null && counts === null) return { length: length + count, lengths: null };
  const after = Int32Array.from(
    { length: layout.batch },
    (_, b) => (lengths?.[b] ?? length) + (counts?.[b] ?? count),
  );
  const longest = after.reduce((most, own) => Math.max(most, own), 0);
  // A cache whose entries once differed goes on as such.
  const isEven = lengths === null && after.every((own) => own === longest);
  return { length: longest, lengths: isEven ? null : after };
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
