import { copyInt32Array, typedArrayName } from '../dtype.ts';
import { OptionError, ShapeError } from '../errors.ts';
import type { IntegerVector } from '../options.ts';
import { copyList, formatShape, formatValue } from '../tensor-layout.ts';
import { asTensor } from '../tensor-like.ts';

/**
 * The position of each token: `length` of them where the batch shares them, else batch × length in row-major
 * order. From `positions` (an Int32Array, a list, an int32 tensor [L], [1, L] or [B, L]) or from `offset`.
 */
export function readPositions(
  caller: string,
  options: { readonly positions?: IntegerVector | null; readonly offset?: number | null },
  batch: number,
  length: number,
): ArrayLike<number> {
  const { positions, offset } = options;
  if (positions === undefined || positions === null) {
    const first = offset ?? 0;
    if (!Number.isSafeInteger(first)) {
      throw new OptionError(`${caller}: offset must be an integer; got ${formatValue(first)}`);
    }
    return Array.from({ length }, (_, i) => first + i);
  }
  if (offset !== undefined && offset !== null) {
    throw new OptionError(`${caller}: positions and offset exclude each other; give one of them`);
  }
  const { list, shape } = listPositions(caller, positions, batch * length);
  const isShared = list.length === length && (shape.length === 1 || shape[0] === 1);
  const isWhole = list.length === batch * length && (shape.length === 1 || shape[0] === batch);
  if (shape.length <= 2 && (isShared || isWhole)) return list;
  throw new ShapeError(
    `${caller}: positions must be [L] = [${length}] or [B, L] = [${batch}, ${length}], one for each token of x; ` +
      `got ${formatShape(shape)}`,
  );
}

function listPositions(
  caller: string,
  value: unknown,
  most: number,
): { list: ArrayLike<number>; shape: readonly number[] } {
  const kind = `${caller}: positions must be an Int32Array, an int32 tensor or a list of integers`;
  if (typedArrayName(value) === 'Int32Array') {
    const list = copyInt32Array(value as Int32Array);
    return { list, shape: [list.length] };
  }
  if (Array.isArray(value)) {
    const list = copyList(value, most);
    if (list === null) throw new ShapeError(`${kind}, at most ${most} of them: as many as x has tokens`);
    const wrong = list.findIndex((item) => !Number.isSafeInteger(item));
    if (wrong < 0) return { list: list as number[], shape: [list.length] };
    throw new OptionError(`${kind}; element ${wrong} is ${formatValue(list[wrong])}`);
  }
  if (typeof value !== 'object' || value === null || typedArrayName(value) !== undefined) {
    throw new OptionError(`${kind}; got ${formatValue(value)}`);
  }
  const tensor = asTensor(caller, 'positions', value);
  if (tensor.dtype !== 'int32')
    throw new OptionError(`${kind}; got ${tensor.dtype} ${formatShape(tensor.shape)}`);
  return { list: tensor.contiguous().data as Int32Array, shape: tensor.shape };
}
