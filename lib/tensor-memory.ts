import { DTYPES } from './dtype.ts';
import { ShapeError } from './errors.ts';
import type { Tensor } from './tensor.ts';
import { elementRange } from './tensor-layout.ts';

/**
 * That the typed array of a tensor still has its elements, after JavaScript went on while a call ran.
 *
 * @throws ShapeError where its buffer was transferred, or has shrunk
 */
export function checkStillThere(caller: string, name: string, tensor: Tensor, elements: number): void {
  if (tensor.data.length === elements) return;
  throw new ShapeError(
    `${caller}: the memory of ${name} was transferred while the call ran: its typed array had ${elements} elements and has ` +
      `${tensor.data.length}; await the call first`,
  );
}

/**
 * Whether the byte ranges that two tensors reach overlap in one buffer. Views whose elements interleave
 * without meeting count as overlapping.
 */
export function sameMemory(a: Tensor, b: Tensor): boolean {
  if (a.size === 0 || b.size === 0 || a.data.buffer !== b.data.buffer) return false;
  const [aFirst, aEnd] = byteRange(a);
  const [bFirst, bEnd] = byteRange(b);
  return aFirst < bEnd && bFirst < aEnd;
}

/** First byte and end of what a tensor of at least one element reaches in its buffer. */
function byteRange(t: Tensor): [number, number] {
  const { first, last } = elementRange(t.shape, t.strides, t.offset);
  const bytes = DTYPES[t.dtype].bytes;
  return [t.data.byteOffset + first * bytes, t.data.byteOffset + (last + 1) * bytes];
}
