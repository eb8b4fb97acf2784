import { typedArrayBufferOf, typedArrayLengthOf, typedArrayName, typedArrayOffsetOf } from './dtype.ts';
import { OptionError } from './errors.ts';
import { formatValue } from './tensor-layout.ts';

/** What is read from: a FileHandle of `node:fs/promises`, or what acts like one. */
export interface ReadableFile {
  /**
   * As FileHandle.read: up to `length` bytes from `position` on, or with null from where the file stands; bytesRead 0 at its
   * end.
   */
  read(
    buffer: Uint8Array,
    offset: number,
    length: number,
    position: number | null,
  ): Promise<{ readonly bytesRead: number }>;
  /** As FileHandle.stat. What a header claims is held against it before there is memory for it. */
  stat?(): Promise<{ readonly size: number; isFile?(): boolean }>;
}

/** What is written to: a FileHandle of `node:fs/promises`, or what acts like one. */
export interface WritableFile {
  /** As FileHandle.write, where the file stands. */
  write(
    buffer: Uint8Array,
    offset: number,
    length: number,
    position: null,
  ): Promise<{ readonly bytesWritten: number }>;
}

/** What crosses at a time: large enough that the crossing costs nothing, small enough to stay in a processor's cache. */
export const PIECE_BYTES = 4 * 2 ** 20;

/** That `file` can do that. */
export function checkFile(caller: string, file: unknown, method: 'read' | 'write'): void {
  if (typeof (file as Record<string, unknown> | null | undefined)?.[method] === 'function') return;
  throw new OptionError(
    `${caller}: file must be a FileHandle, as open of node:fs/promises gives it; got ${formatValue(file)}`,
  );
}

/** Writes all of the bytes, in as many writes as that takes. `whole` is what a message says that the file is not yet. */
export async function writeAll(
  caller: string,
  file: WritableFile,
  bytes: Uint8Array,
  whole: string,
): Promise<void> {
  for (let at = 0; at < bytes.length; ) {
    const wanted = bytes.length - at;
    const bytesWritten = (await file.write(bytes, at, wanted, null))?.bytesWritten;
    if (!(Number.isInteger(bytesWritten) && bytesWritten > 0 && bytesWritten <= wanted)) {
      throw new OptionError(
        `${caller}: file.write took ${formatValue(bytesWritten)} of ${wanted} bytes; what is written so far is no whole ${whole}`,
      );
    }
    at += bytesWritten;
  }
}

/**
 * Fills `bytes` in as many reads as that takes, from `position` on or from where the file stands; returns how many there were
 * before the end of the file.
 */
export async function readUpTo(
  caller: string,
  file: Pick<ReadableFile, 'read'>,
  bytes: Uint8Array,
  position: number | null = null,
): Promise<number> {
  let at = 0;
  while (at < bytes.length) {
    const wanted = bytes.length - at;
    const bytesRead = (await file.read(bytes, at, wanted, position === null ? null : position + at))
      ?.bytesRead;
    if (bytesRead === 0) break;
    if (!(Number.isInteger(bytesRead) && bytesRead > 0 && bytesRead <= wanted))
      throw new OptionError(`${caller}: file.read gave ${formatValue(bytesRead)} of ${wanted} bytes`);
    at += bytesRead;
  }
  return at;
}

/** The bytes of a regular file; undefined where they cannot be known. */
export async function sizeOfFile(file: object): Promise<number | undefined> {
  const { stat } = file as ReadableFile;
  const stats = typeof stat === 'function' ? await stat.call(file) : undefined;
  return stats === undefined || stats.isFile?.() === false ? undefined : stats.size;
}

/**
 * The memory of a Uint8Array as a plain one (the slice of a Buffer is another thing), whatever properties were put on it; empty
 * where its buffer was detached.
 *
 * @param whose what gives such bytes, for the message
 */
export function plainBytes(caller: string, given: unknown, whose: string): Uint8Array {
  if (typedArrayName(given) !== 'Uint8Array')
    throw new OptionError(`${caller}: bytes must be a Uint8Array, ${whose}; got ${formatValue(given)}`);
  const bytes = given as Uint8Array;
  const length = typedArrayLengthOf(bytes);
  return length === 0
    ? new Uint8Array(0)
    : new Uint8Array(typedArrayBufferOf(bytes), typedArrayOffsetOf(bytes), length);
}
