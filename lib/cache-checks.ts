import type { Backend, CacheLayout } from './backend.ts';
import { OptionError } from './errors.ts';
import { readIntegers } from './options.ts';
import type { AttentionProblem } from './problem.ts';
import { copyList, formatList, formatValue } from './tensor-layout.ts';

/** That a cache of `present` tokens, those before keptBegin gone, may be truncated to `length`. */
export function checkTruncation(
  length: unknown,
  present: number,
  keptBegin: number,
  { window }: CacheLayout,
): void {
  if (!Number.isInteger(length) || (length as number) < 0 || (length as number) > present) {
    throw new OptionError(
      `KVCache.truncate: length must be a whole number from 0 to ${present}, the tokens cached; got ${formatValue(length)}`,
    );
  }
  if ((length as number) >= keptBegin) return;
  throw new OptionError(
    `KVCache.truncate: tokens before ${keptBegin} have left the window of ${window}; ` +
      `got length ${length}, truncate to ${keptBegin} or more`,
  );
}

/** `value`, a length for each batch entry; none is longer than that entry is. */
export function readLengths(
  caller: string,
  value: unknown,
  batch: number,
  present: number | Int32Array,
): ArrayLike<number> {
  const lengths = readIntegers(caller, 'length', value, batch);
  for (let b = 0; b < batch; b++) {
    const own = typeof present === 'number' ? present : present[b];
    if (lengths[b] >= 0 && lengths[b] <= own) continue;
    throw new OptionError(
      `${caller}: length[${b}] must be from 0 to ${own}, the tokens of that batch entry; got ${lengths[b]}`,
    );
  }
  return lengths;
}

/** A copy of `indices`, each of 0 to newest - 1, at most once. */
export function readKept(indices: ArrayLike<number>, newest: number): readonly number[] {
  const kept = copyList(indices, newest);
  const isIndex = (index: unknown): boolean =>
    Number.isInteger(index) && (index as number) >= 0 && (index as number) < newest;
  if (kept?.every(isIndex) && new Set(kept).size === kept.length) return kept as number[];
  throw new OptionError(
    `KVCache.keep: indices must be a list of whole numbers from 0 to ${newest - 1}, of the ${newest} tokens that the ` +
      `last append left, each at most once; got ${kept === null ? formatValue(indices) : formatList(kept)}`,
  );
}

/** That a call asks for no other backend than that of its caches. */
export function checkBackend(caller: string, problem: AttentionProblem, { name }: Backend): void {
  if (problem.backend === 'auto' || problem.backend === name) return;
  throw new OptionError(
    `${caller}: this cache belongs to the ${name} backend, not '${problem.backend}'; ` +
      'choose the backend when the cache is made',
  );
}
