import { type ReadableFile, sizeOfFile } from '../byte-file.ts';
import { checkDType, type DType } from '../dtype.ts';
import { CapacityError, OptionError } from '../errors.ts';

/** How a file of another library is read. */
export interface ReadOptions {
  /**
   * The dtype of the result: elements stored otherwise become the nearest values, as in `Tensor.from`. Default: the one of the
   * file. It must be given for types that no Tensor holds (float64, int64 and other integers), and for bfloat16 in .npy files,
   * where it is stored as two bytes without a name.
   */
  readonly dtype?: DType | null;
}

/** The dtype that the options ask for, if any. */
export function readAsked(caller: string, { dtype }: ReadOptions): DType | undefined {
  return dtype === undefined || dtype === null ? undefined : checkDType(`${caller}: options`, dtype);
}

/** @throws OptionError where a file is shorter than its header claims, so that no memory is taken for a lie */
export async function checkSize(caller: string, file: ReadableFile, needed: number): Promise<void> {
  const size = await sizeOfFile(file);
  if (size === undefined || size >= needed) return;
  throw new OptionError(
    `${caller}: the file is truncated: ${size} of ${needed} bytes are there; copy it again`,
  );
}

/** Memory for a whole file. */
export function allocateFile(caller: string, bytes: number, streaming: string): Uint8Array {
  try {
    return new Uint8Array(bytes);
  } catch (cause) {
    throw new CapacityError(
      `${caller}: no memory for the ${bytes} bytes of the file in one piece; write it with ${streaming}`,
      { cause },
    );
  }
}
