import { PIECE_BYTES, type ReadableFile, readUpTo } from '../byte-file.ts';
import type { DType, TensorData } from '../dtype.ts';
import { OptionError } from '../errors.ts';
import { allocate } from '../tensor-layout.ts';
import { decodeElements, type Stored, storedBytes, swapInPlace } from './stored-elements.ts';

/**
 * `size` elements of a file, from `position` on or from where it stands, as elements of `dtype`. They are read into their place;
 * where they must be converted a piece of a few MiB at a time is.
 *
 * @throws OptionError where the file ends before them
 */
export async function readElements(
  caller: string,
  file: ReadableFile,
  position: number | null,
  stored: Stored,
  size: number,
  dtype: DType,
): Promise<TensorData> {
  const each = storedBytes(stored.type);
  const data = allocate(caller, dtype, size);
  const isConverted = stored.type !== dtype;
  const target = isConverted ? null : new Uint8Array(data.buffer);
  const buffer = target ?? new Uint8Array(Math.min(PIECE_BYTES, size * each));
  const most = PIECE_BYTES / each;
  for (let at = 0; at < size; at += most) {
    const count = Math.min(most, size - at);
    const begin = at * each;
    const piece = target ? target.subarray(begin, begin + count * each) : buffer.subarray(0, count * each);
    const present = await readUpTo(caller, file, piece, position === null ? null : position + begin);
    if (present < piece.length) {
      throw new OptionError(
        `${caller}: the file is truncated: ${begin + present} of ${size * each} bytes of elements are there; copy it again`,
      );
    }
    if (target === null) data.set(decodeElements(caller, piece, stored, dtype), at);
    else if (stored.isSwapped) swapInPlace(piece, each);
  }
  return data;
}
