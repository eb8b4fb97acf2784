import { ShapeError } from './errors.ts';
import type { Tensor } from './tensor.ts';

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
