import { ShapeError } from './errors.ts';

// What only an empty tensor, or a view whose elements share memory, can claim to have: a call makes a list of its sequences,
// and the addon one of its tasks, and no list may be so long that the process runs out of memory.

/** Batch entries, or sequences of a packed batch. */
export const MAX_BATCH = 2 ** 20;

/** Query heads of all batch entries together. */
export const MAX_HEADS = 2 ** 24;

/** Queries, or keys, of a sequence: positions are 32-bit integers. */
const MAX_LENGTH = 2 ** 31 - 1;

/** Query rows of all heads, and blocks of 1024 keys of all KV heads: each task of the addon takes some of them. */
const MAX_ROWS = 2 ** 33;
const MAX_KEY_BLOCKS = 2 ** 24;
const KEY_BLOCK = 1024;

/** The sizes of a problem. */
export interface ProblemSizes {
  readonly batch: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly qLen: number;
  readonly kvLen: number;
}

/**
 * @param shapes the tensors that say so, for the message
 * @throws ShapeError
 */
export function checkLimits(
  caller: string,
  { batch, numHeads, numKvHeads, qLen, kvLen }: ProblemSizes,
  shapes: () => string,
): void {
  const check = (what: string, count: number, most: number): void => {
    if (count <= most) return;
    throw new ShapeError(
      `${caller}: a call can have at most ${most} ${what}; ${shapes()}; make several calls`,
    );
  };
  check('batch entries', batch, MAX_BATCH);
  check('heads, those of all batch entries', batch * numHeads, MAX_HEADS);
  check('queries a sequence', qLen, MAX_LENGTH);
  check('keys a sequence', kvLen, MAX_LENGTH);
  check('query rows, those of all heads', batch * numHeads * qLen, MAX_ROWS);
  const blocks = batch * numKvHeads * Math.ceil(kvLen / KEY_BLOCK);
  check(`blocks of ${KEY_BLOCK} keys, those of all heads`, blocks, MAX_KEY_BLOCKS);
}
