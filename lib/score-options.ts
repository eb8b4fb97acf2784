import { isFloatDType, typedArrayLengthOf, typedArrayName } from './dtype.ts';
import { DTypeError, OptionError, ShapeError } from './errors.ts';
import { MAX_HEADS } from './limits.ts';
import type { SequenceLayout } from './sequences.ts';
import { Tensor } from './tensor.ts';
import { copyList, formatShape, formatValue, TensorLayout } from './tensor-layout.ts';
import { asTensor } from './tensor-like.ts';

/** The shape of the scores that mask, bias, alibiSlopes and sinks must fit. */
export interface ScoreShape extends SequenceLayout {
  readonly caller: string;
  readonly numHeads: number;
}

/** `mask` as bool [numSequences, numHeads, qLen, kvLen], stride 0 where broadcast; null where none is given. */
export function readMask(target: ScoreShape, value: unknown): Tensor | null {
  const mask = readBool(target, value);
  return mask === null ? null : broadcast(target, 'mask', mask);
}

/**
 * {@link readMask} of a call on a cache: a mask that ends with [qLen, qLen], where there are more keys, speaks of the newest
 * qLen only. It comes back as [numSequences, numHeads, qLen, qLen].
 */
export function readCacheMask(target: ScoreShape, value: unknown): Tensor | null {
  const mask = readBool(target, value);
  if (mask === null) return null;
  const { qLen, maskKvLen, sequences } = target;
  const isNewest =
    qLen > 1 &&
    maskKvLen !== qLen &&
    mask.rank >= 2 &&
    mask.shape[mask.rank - 1] === qLen &&
    mask.shape[mask.rank - 2] === qLen &&
    sequences.every((sequence) => sequence.kvLen >= sequence.qLen);
  return broadcast(isNewest ? { ...target, kvLen: qLen, maskKvLen: qLen } : target, 'mask', mask);
}

function readBool(target: ScoreShape, value: unknown): Tensor | null {
  if (value === undefined || value === null) return null;
  const mask = asTensor(target.caller, 'mask', value, 'bool');
  if (mask.dtype !== 'bool') {
    const remedy = isFloatDType(mask.dtype)
      ? "a float that is added to the scores is the option 'bias'"
      : "give it the dtype 'bool' (true = attend)";
    throw new DTypeError(`${target.caller}: mask must be bool; got ${mask.dtype}; ${remedy}`);
  }
  return mask;
}

/** `bias`, a float, as {@link readMask}. */
export function readBias(target: ScoreShape, value: unknown): Tensor | null {
  if (value === undefined || value === null) return null;
  const bias = asTensor(target.caller, 'bias', value, 'float32');
  if (!isFloatDType(bias.dtype)) {
    const remedy =
      bias.dtype === 'bool' ? "a bool that hides keys is the option 'mask'" : "convert with .to('float32')";
    throw new DTypeError(
      `${target.caller}: bias must be float32, float16 or bfloat16; got ${bias.dtype}; ${remedy}`,
    );
  }
  return broadcast(target, 'bias', bias);
}

/** x, aligned from the right, as a view [numSequences, numHeads, qLen, kvLen]. */
function broadcast(target: ScoreShape, name: string, x: Tensor): Tensor {
  const { caller, sequences, numHeads, qLen, kvLen, maskKvLen } = target;
  const full = [sequences.length, numHeads, qLen, maskKvLen];
  const missing = 4 - x.rank;
  const strides = [0, 0, 0, 0];
  let fits = missing >= 0;
  for (let axis = Math.max(missing, 0); fits && axis < 4; axis++) {
    const length = x.shape[axis - missing];
    if (length === full[axis] && length !== 1) strides[axis] = x.strides[axis - missing];
    else if (length !== 1) fits = false;
  }
  if (!fits) {
    throw new ShapeError(
      `${caller}: ${name} must broadcast to [batch, numHeads, qLen, kvLen] from the right; ` +
        `${name} ${formatShape(x.shape)}, scores ${formatShape(full)}`,
    );
  }
  if (strides[3] !== 0 && strides[3] !== 1) {
    throw new ShapeError(
      `${caller}: the last axis of ${name} must be contiguous; ${name} ${formatShape(x.shape)} with strides ` +
        `${formatShape(x.strides)}; pass ${name}.contiguous()`,
    );
  }
  full[3] = kvLen;
  return view(x, full, strides);
}

/** `alibiSlopes` [numHeads] or [numSequences, numHeads] as float32 [numSequences, numHeads], stride 0 where broadcast. */
export function readAlibiSlopes(target: ScoreShape, value: unknown): Tensor | null {
  if (value === undefined || value === null) return null;
  const { caller, sequences, numHeads } = target;
  const slopes = readFloats(caller, 'alibiSlopes', value);
  const shape = slopes.shape;
  const perSequence = shape.length === 2 && shape[0] === sequences.length && shape[1] === numHeads;
  if (!perSequence && !(shape.length === 1 && shape[0] === numHeads)) {
    throw new ShapeError(
      `${caller}: alibiSlopes must be [numHeads] or [batch, numHeads]; alibiSlopes ${formatShape(shape)}, ` +
        `scores of ${sequences.length} batch entries and ${numHeads} heads`,
    );
  }
  const strides = [perSequence ? slopes.strides[0] : 0, slopes.strides[shape.length - 1]];
  return view(slopes, [sequences.length, numHeads], strides);
}

/** The memory of x under another, smaller or broadcast, layout, which has been checked. */
function view(x: Tensor, shape: readonly number[], strides: readonly number[]): Tensor {
  const size = shape.reduce((product, length) => product * length, 1);
  return Tensor.ofLayout(
    new TensorLayout(x.data, Object.freeze(shape), Object.freeze(strides), x.offset, x.dtype, size),
  );
}

/** `sinks` as contiguous float32 [numHeads]. */
export function readSinks(target: ScoreShape, value: unknown): Tensor | null {
  if (value === undefined || value === null) return null;
  const { caller, numHeads } = target;
  const sinks = readFloats(caller, 'sinks', value);
  if (sinks.rank === 1 && sinks.shape[0] === numHeads) return sinks.contiguous();
  throw new ShapeError(
    `${caller}: sinks must be [numHeads]; sinks ${formatShape(sinks.shape)}, q of ${numHeads} heads`,
  );
}

/** A FloatVector, or a float tensor of any rank, as float32; a copy only where it must be one. */
function readFloats(caller: string, name: string, value: unknown): Tensor {
  if (typedArrayName(value) === 'Float32Array') {
    return new Tensor(value as Float32Array, typedArrayLengthOf(value as Float32Array));
  }
  if (Array.isArray(value)) {
    const list = copyList(value, MAX_HEADS);
    if (list?.every((item) => typeof item === 'number')) {
      return Tensor.wrap(Float32Array.from(list as number[]), [list.length], 'float32');
    }
    throw new OptionError(`${caller}: ${name} must be a list of numbers, a Float32Array or a float tensor`);
  }
  if (typeof value !== 'object' || value === null) {
    throw new OptionError(
      `${caller}: ${name} must be a Float32Array, a float tensor or a list of numbers; got ${formatValue(value)}`,
    );
  }
  const x = asTensor(caller, name, value);
  if (!isFloatDType(x.dtype)) {
    throw new DTypeError(`${caller}: ${name} must be a float; got ${x.dtype}; convert with .to('float32')`);
  }
  return x.dtype === 'float32' ? x : x.to('float32');
}
