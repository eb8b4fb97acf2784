import { bytesPerElement } from '../dtype.ts';
import type { Tensor } from '../tensor.ts';
import { int8RowBytes, int8ScaleOffset } from '../tensor-int8.ts';

/** Which tokens of its cache a tensor [batch, heads, capacity, dim] holds: [0, sinkEnd) and [keptBegin, length). */
export interface KeptTokens {
  readonly sinkEnd: number;
  readonly keptBegin: number;
  readonly length: number;
}

/**
 * Copies rows of [batch, heads, kept tokens], from `first` on, out of the tensors: as many as `bytes` holds.
 *
 * @param parts what a row is made of: its numbers, and of int8 its scale
 */
export function copyRowsOut(
  parts: readonly Tensor[],
  kept: KeptTokens,
  first: number,
  bytes: Uint8Array,
): void {
  forEachRow(parts, kept, first, bytes.length, (memory, at, row, length) => {
    bytes.set(memory.subarray(at, at + length), row);
  });
}

/** The other way round. */
export function copyRowsIn(
  parts: readonly Tensor[],
  kept: KeptTokens,
  first: number,
  bytes: Uint8Array,
): void {
  forEachRow(parts, kept, first, bytes.length, (memory, at, row, length) => {
    memory.set(bytes.subarray(row, row + length), at);
  });
}

const bytesOf = ({ data }: Tensor): Uint8Array =>
  new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

/** visit(bytes of a part, where its row begins there, where in the rows of the file, bytes) */
function forEachRow(
  parts: readonly Tensor[],
  { sinkEnd, keptBegin, length }: KeptTokens,
  first: number,
  bytes: number,
  visit: (memory: Uint8Array, at: number, row: number, length: number) => void,
): void {
  const [numbers, scales] = parts;
  const dim = numbers.shape[3];
  const numberBytes = dim * bytesPerElement(numbers.dtype);
  const rowBytes = scales === undefined ? numberBytes : int8RowBytes(dim);
  const memories = parts.map(bytesOf);
  const kept = sinkEnd + length - keptBegin;
  for (let n = 0; n * rowBytes < bytes; n++) {
    const head = Math.floor((first + n) / kept);
    const row = (first + n) % kept;
    const token = row < sinkEnd ? row : row - sinkEnd + keptBegin;
    const index = head * numbers.shape[2] + token;
    visit(memories[0], index * numberBytes, n * rowBytes, numberBytes);
    if (scales !== undefined) visit(memories[1], index * 4, n * rowBytes + int8ScaleOffset(dim), 4);
  }
}
