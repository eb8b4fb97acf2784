import { DTypeError, OptionError, ShapeError } from './errors.ts';
import type { AttentionProblem } from './problem.ts';
import { lastAxisContiguous, type Tensor } from './tensor.ts';
import { formatShape } from './tensor-layout.ts';
import { sameMemory } from './tensor-memory.ts';

const INPUTS = ['q', 'k', 'v', 'mask', 'bias', 'alibiSlopes', 'sinks'] as const;

/**
 * Checks the caller's `out` against the problem it is to hold the result of: shape and dtype, a layout in which
 * every element has a place of its own, and memory that no input reads.
 */
export function checkOut(caller: string, out: Tensor, problem: AttentionProblem): void {
  const { outShape, q } = problem;
  if (!isSameShape(out.shape, outShape)) {
    throw new ShapeError(
      `${caller}: out must have the shape of the result; out ${formatShape(out.shape)}, result ${formatShape(outShape)}`,
    );
  }
  if (out.dtype !== q.dtype) {
    throw new DTypeError(`${caller}: out must have the dtype of q; out ${out.dtype}, q ${q.dtype}`);
  }
  if (out.size === 0) return;
  const layout = (): string => `out ${formatShape(out.shape)} with strides ${formatShape(out.strides)}`;
  if (!lastAxisContiguous(out)) {
    throw new ShapeError(
      `${caller}: the last axis of out must be contiguous; ${layout()}; pass a tensor whose is`,
    );
  }
  if (!placesAreDistinct(out)) {
    throw new ShapeError(
      `${caller}: elements of out must not share memory; ${layout()}; pass a tensor of its own`,
    );
  }
  for (const name of INPUTS) {
    const input = problem[name];
    if (input !== null && sameMemory(out, input)) {
      throw new OptionError(
        `${caller}: out overlaps the memory of ${name}, which is still being read; pass another out`,
      );
    }
  }
}

function isSameShape(a: readonly number[], b: readonly number[]): boolean {
  if (a.length !== b.length) return false;
  for (let axis = 0; axis < a.length; axis++) if (a[axis] !== b[axis]) return false;
  return true;
}

/** Whether each axis steps beyond all that the finer axes reach. Sufficient, and met by every view of a plain tensor. */
function placesAreDistinct(x: Tensor): boolean {
  if (x.isContiguous) return true;
  const axes = x.shape
    .map((length, axis) => ({ length, stride: Math.abs(x.strides[axis]) }))
    .filter(({ length }) => length > 1)
    .sort((a, b) => a.stride - b.stride);
  let reach = 0;
  for (const { length, stride } of axes) {
    if (stride <= reach) return false;
    reach += (length - 1) * stride;
  }
  return true;
}
