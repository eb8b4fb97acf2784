import { ShapeError } from './errors.ts';
import {
  formatShape,
  formatValue,
  isRowMajor,
  sizeOfShape,
  TensorLayout,
  toIntegers,
} from './tensor-layout.ts';

/** The layout over the same memory with other axes. */
function relayout(
  source: TensorLayout,
  shape: number[],
  strides: number[],
  offset = source.offset,
  size = source.size,
): TensorLayout {
  return new TensorLayout(
    source.data,
    Object.freeze(shape),
    Object.freeze(strides),
    offset,
    source.dtype,
    size,
  );
}

/** `axis` counted from the front, 0 to rank - 1; negative counts from the end. */
function normalizeAxis(where: string, axis: unknown, rank: number): number {
  if (Number.isSafeInteger(axis) && (axis as number) >= -rank && (axis as number) < rank) {
    return (axis as number) < 0 ? (axis as number) + rank : (axis as number);
  }
  const range = rank === 0 ? 'it has none' : `from ${-rank} to ${rank - 1}`;
  throw new ShapeError(
    `${where}: axis ${formatValue(axis)} is not an axis of a tensor of rank ${rank} (${range})`,
  );
}

/** Axes a and b exchanged. */
export function transposed(source: TensorLayout, a: number, b: number): TensorLayout {
  const rank = source.shape.length;
  const first = normalizeAxis('transpose', a, rank);
  const second = normalizeAxis('transpose', b, rank);
  // Loops: this is on the decode path, and slice() of a frozen array is 5 times slower.
  const shape = new Array<number>(rank);
  const strides = new Array<number>(rank);
  for (let axis = 0; axis < rank; axis++) {
    const from = axis === first ? second : axis === second ? first : axis;
    shape[axis] = source.shape[from];
    strides[axis] = source.strides[from];
  }
  return relayout(source, shape, strides);
}

/** Axis i of the result is axis `axes[i]` of the source. */
export function permuted(source: TensorLayout, axes: unknown): TensorLayout {
  const rank = source.shape.length;
  const order = toIntegers('permute: axes', axes, -Infinity).map((axis) =>
    normalizeAxis('permute', axis, rank),
  );
  if (order.length !== rank || new Set(order).size !== rank) {
    throw new ShapeError(
      `permute: axes ${formatShape(order)} must name each axis of shape ${formatShape(source.shape)} once`,
    );
  }
  return relayout(
    source,
    order.map((axis) => source.shape[axis]),
    order.map((axis) => source.strides[axis]),
  );
}

/**
 * Elements start to end (exclusive) of one axis. Negative counts from the end; what lies beyond is cut, as
 * Array.slice does.
 */
export function sliced(source: TensorLayout, axis: number, start: number, end?: number): TensorLayout {
  const at = normalizeAxis('slice', axis, source.shape.length);
  const length = source.shape[at];
  const clamp = (name: string, value: unknown): number => {
    if (Number.isSafeInteger(value) || value === Infinity || value === -Infinity) {
      return Math.min(
        Math.max((value as number) < 0 ? (value as number) + length : (value as number), 0),
        length,
      );
    }
    throw new ShapeError(`slice: ${name} must be an integer; got ${formatValue(value)}`);
  };
  const begin = clamp('start', start);
  const shape = source.shape.slice();
  shape[at] = Math.max(clamp('end', end ?? length) - begin, 0);
  const size = sizeOfShape('slice: shape', shape);
  // Without elements an offset has no meaning, and one past the end would look like an error.
  const offset = size === 0 ? source.offset : source.offset + begin * source.strides[at];
  return relayout(source, shape, source.strides.slice(), offset, size);
}

/** A new axis of length 1 before `axis` of the source (-1: after the last). */
export function unsqueezed(source: TensorLayout, axis: number): TensorLayout {
  const rank = source.shape.length;
  const at = normalizeAxis('unsqueeze', axis, rank + 1);
  const shape = source.shape.slice();
  const strides = source.strides.slice();
  strides.splice(at, 0, at < rank ? shape[at] * strides[at] : 1);
  shape.splice(at, 0, 1);
  return relayout(source, shape, strides);
}

/** Without `axis`, which has length 1; without all such axes when none is given. */
export function squeezed(source: TensorLayout, axis?: number): TensorLayout {
  const rank = source.shape.length;
  const at = axis === undefined ? -1 : normalizeAxis('squeeze', axis, rank);
  if (at >= 0 && source.shape[at] !== 1) {
    throw new ShapeError(
      `squeeze: axis ${axis} of shape ${formatShape(source.shape)} has length ${source.shape[at]}; ` +
        'only an axis of length 1 can go',
    );
  }
  const isKept = (_: number, i: number): boolean => (at >= 0 ? i !== at : source.shape[i] !== 1);
  return relayout(source, source.shape.filter(isKept), source.strides.filter(isKept));
}

/** The wanted shape with its one -1, if any, replaced by what is left of `size`. */
function resolveShape(source: TensorLayout, wanted: unknown): number[] {
  const given = toIntegers('reshape: shape', wanted, -1);
  const shape = given.slice();
  const open = shape.indexOf(-1);
  const rest = sizeOfShape(
    'reshape: shape',
    shape.filter((_, axis) => axis !== open),
  );
  if (open >= 0) shape[open] = rest === 0 ? 0 : source.size / rest;
  if (shape.includes(-1) || (open >= 0 && (rest === 0 || !Number.isInteger(shape[open])))) {
    throw new ShapeError(
      `reshape: cannot infer -1 of ${formatShape(given)} from shape ` +
        `${formatShape(source.shape)} (${source.size} elements); one -1 is allowed, and the rest must ` +
        'divide the size',
    );
  }
  if (open < 0 && rest !== source.size) {
    throw new ShapeError(
      `reshape: shape ${formatShape(shape)} holds ${rest} elements, shape ${formatShape(source.shape)} ` +
        `holds ${source.size}; -1 for one length takes what is left`,
    );
  }
  return shape;
}

/** The same elements in row-major order under another shape, where strides can express it. */
export function reshaped(source: TensorLayout, wanted: unknown): TensorLayout {
  const shape = resolveShape(source, wanted);
  const strides = stridesForShape(source, shape);
  if (strides === null) {
    throw new ShapeError(
      `reshape: a view of shape ${formatShape(source.shape)} with strides ${formatShape(source.strides)} ` +
        `cannot become ${formatShape(shape)} without a copy; call .contiguous() first`,
    );
  }
  return relayout(source, shape, strides);
}

/**
 * Strides under which `shape` (of the same size) visits the source's elements in the same order, or null.
 * Groups the source's axes, last first, into runs that are row-major among themselves; each run must be
 * covered by whole axes of `shape`.
 */
function stridesForShape(source: TensorLayout, shape: readonly number[]): number[] | null {
  const strides = new Array<number>(shape.length).fill(1);
  const axes = source.shape.map((_, axis) => axis).filter((axis) => source.shape[axis] !== 1);
  if (source.size === 0 || isRowMajor(source.shape, source.strides)) {
    for (let axis = shape.length - 2; axis >= 0; axis--)
      strides[axis] = strides[axis + 1] * (shape[axis + 1] || 1);
    return strides;
  }
  let target = shape.length - 1;
  let runLength = 1; // elements of the run so far
  let runStride = 1;
  for (let i = axes.length - 1; i >= 0; i--) {
    const axis = axes[i];
    if (runLength === 1) runStride = source.strides[axis];
    runLength *= source.shape[axis];
    if (i > 0 && source.strides[axes[i - 1]] === source.shape[axis] * source.strides[axis]) continue;
    let covered = 1;
    while (target >= 0 && (covered < runLength || shape[target] === 1)) {
      strides[target] = covered * runStride;
      covered *= shape[target];
      target -= 1;
    }
    if (covered !== runLength) return null;
    runLength = 1;
  }
  return strides;
}
