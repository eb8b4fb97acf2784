import { bytesPerElement } from '../dtype.ts';
import type { Tensor } from '../tensor.ts';

/** Which tokens of its cache a tensor [batch, heads, capacity, dim] holds: [0, sinkEnd) and [keptBegin, length). */
export interface KeptTokens {
  readonly sinkEnd: number;
  readonly keptBegin: number;
  readonly length: number;
}

/** Copies rows of [batch, heads, kept tokens], from `first` on, out of the tensor: as many as `bytes` holds. */
export function copyRowsOut(x: Tensor, kept: KeptTokens, first: number, bytes: Uint8Array): void {
  const memory = bytesOf(x);
  forEachRow(x, kept, first, bytes.length, (at, row, length) => {
    bytes.set(memory.subarray(at, at + length), row);
  });
}

/** The other way round. */
export function copyRowsIn(x: Tensor, kept: KeptTokens, first: number, bytes: Uint8Array): void {
  const memory = bytesOf(x);
  forEachRow(x, kept, first, bytes.length, (at, row, length) => {
    memory.set(bytes.subarray(row, row + length), at);
  });
}

const bytesOf = ({ data }: Tensor): Uint8Array =>
  new Uint8Array(data.buffer, data.byteOffset, data.byteLength);

/** visit(byte of the row in x, byte of the row in the file's rows, bytes) */
function forEachRow(
  x: Tensor,
  { sinkEnd, keptBegin, length }: KeptTokens,
  first: number,
  bytes: number,
  visit: (at: number, row: number, length: number) => void,
): void {
  const rowBytes = x.shape[3] * bytesPerElement(x.dtype);
  const kept = sinkEnd + length - keptBegin;
  for (let n = 0; n * rowBytes < bytes; n++) {
    const head = Math.floor((first + n) / kept);
    const row = (first + n) % kept;
    const token = row < sinkEnd ? row : row - sinkEnd + keptBegin;
    visit((head * x.shape[2] + token) * rowBytes, n * rowBytes, rowBytes);
  }
}
