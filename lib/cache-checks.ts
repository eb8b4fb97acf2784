import type { CacheLayout } from './backend.ts';
import { OptionError } from './errors.ts';

/** That a cache of `present` tokens, those before keptBegin gone, may be truncated to `length`. */
export function checkTruncation(
  length: unknown,
  present: number,
  keptBegin: number,
  { window }: CacheLayout,
): void {
  if (!Number.isInteger(length) || (length as number) < 0 || (length as number) > present) {
    throw new OptionError(
      `KVCache.truncate: length must be a whole number from 0 to ${present}, the tokens cached; got ${String(length)}`,
    );
  }
  if ((length as number) >= keptBegin) return;
  throw new OptionError(
    `KVCache.truncate: tokens before ${keptBegin} have left the window of ${window}; ` +
      `got length ${length}, truncate to ${keptBegin} or more`,
  );
}

/** A copy of `indices`, each of 0 to newest - 1, at most once. */
export function readKept(indices: ArrayLike<number>, newest: number): readonly number[] {
  const kept = Array.from(indices);
  const isIndex = (index: number): boolean => Number.isInteger(index) && index >= 0 && index < newest;
  if (kept.every(isIndex) && new Set(kept).size === kept.length) return kept;
  throw new OptionError(
    `KVCache.keep: indices must be whole numbers from 0 to ${newest - 1}, of the ${newest} tokens that the ` +
      `last append left, each at most once; got [${kept.slice(0, 8).join(', ')}${kept.length > 8 ? ', …' : ''}]`,
  );
}
