import { PIECE_BYTES } from '../byte-file.ts';
import { bytesPerElement } from '../dtype.ts';
import type { Tensor } from '../tensor.ts';
import { checkExtent } from '../tensor-layout.ts';

/**
 * The bytes of a tensor in row-major order, as this machine stores them, in pieces of a few MiB: views where the elements stand
 * in that order, else copies.
 */
export function* piecesOf(where: string, tensor: Tensor): Generator<Uint8Array> {
  const { size, byteLength, shape } = tensor;
  if (size === 0) return;
  if (tensor.isContiguous) {
    const { data, offset, dtype } = tensor;
    const first = offset * bytesPerElement(dtype);
    for (let at = 0; at < byteLength; at += PIECE_BYTES) {
      checkExtent(where, tensor); // the buffer may have been detached since the last piece
      yield new Uint8Array(data.buffer, data.byteOffset + first + at, Math.min(PIECE_BYTES, byteLength - at));
    }
    return;
  }
  if (byteLength <= PIECE_BYTES) {
    yield* piecesOf(where, tensor.contiguous());
    return;
  }
  const rows = Math.max(1, Math.floor(PIECE_BYTES / (byteLength / shape[0])));
  for (let row = 0; row < shape[0]; row += rows) {
    const part = tensor.slice(0, row, row + rows);
    yield* piecesOf(where, part.shape[0] === 1 ? part.squeeze(0) : part);
  }
}
