import { OptionError, ShapeError } from './errors.ts';
import { MAX_BATCH as MAX_SEQUENCES } from './limits.ts';
import { type AttentionOptions, readIntegers } from './options.ts';
import type { SequenceView } from './problem.ts';
import { formatValue } from './tensor-layout.ts';

/** The batch of a problem, dense or ragged. */
export interface SequenceLayout {
  readonly sequences: readonly SequenceView[];
  /** The longest qLen and kvLen of `sequences`; where there are none, Lq of a dense batch, and 0. */
  readonly qLen: number;
  readonly kvLen: number;
  /** What the last axis of mask and bias broadcasts to: Lk, or the longest of cuSeqlensK. At least kvLen. */
  readonly maskKvLen: number;
  /** Whether the batch is packed (cuSeqlensQ and cuSeqlensK given). */
  readonly ragged: boolean;
}

/** What {@link describeSequences} needs to know of q and k, as rank-4 tensors. */
export interface BatchShape {
  readonly caller: string;
  /** Rank of the caller's tensors. */
  readonly rank: number;
  readonly batch: number;
  readonly qLen: number;
  readonly kvLen: number;
}

type SequenceOptions = Pick<AttentionOptions, 'queryOffset' | 'kvLengths' | 'cuSeqlensQ' | 'cuSeqlensK'>;

/**
 * Where each sequence of the batch begins, how long it is, and the position of its first query: queryOffset, or
 * by default kvLen - qLen of the sequence (bottom-right alignment).
 */
export function describeSequences(shape: BatchShape, options: SequenceOptions): SequenceLayout {
  const { caller, kvLen } = shape;
  const { queryOffset, kvLengths, cuSeqlensQ, cuSeqlensK } = options;
  const hasQ = cuSeqlensQ !== undefined && cuSeqlensQ !== null;
  const hasK = cuSeqlensK !== undefined && cuSeqlensK !== null;
  if (hasQ !== hasK) {
    const missing = hasQ ? 'cuSeqlensK' : 'cuSeqlensQ';
    throw new OptionError(`${caller}: cuSeqlensQ and cuSeqlensK go together; give ${missing} too`);
  }
  if (hasQ && shape.rank !== 3) {
    throw new ShapeError(
      `${caller}: cuSeqlensQ and cuSeqlensK need packed tensors of rank 3, q [numHeads, totalQ, headDim]; ` +
        `q has rank ${shape.rank}`,
    );
  }
  const qEnds = hasQ ? readCuSeqlens(caller, 'cuSeqlensQ', cuSeqlensQ, shape.qLen, -1) : null;
  const kvEnds = qEnds === null ? null : readCuSeqlens(caller, 'cuSeqlensK', cuSeqlensK, kvLen, qEnds.length);
  const count = qEnds === null ? shape.batch : qEnds.length - 1;
  const lengths =
    kvLengths === undefined || kvLengths === null
      ? null
      : readIntegers(caller, 'kvLengths', kvLengths, count);
  const offsets = readOffsets(caller, queryOffset, count);

  const sequences: SequenceView[] = new Array(count);
  let longestQ = qEnds === null ? shape.qLen : 0;
  let longestKv = 0;
  let maskKvLen = qEnds === null ? kvLen : 0;
  for (let b = 0; b < count; b++) {
    const qBegin = qEnds === null ? 0 : qEnds[b];
    const kvBegin = kvEnds === null ? 0 : kvEnds[b];
    const qLen = qEnds === null ? shape.qLen : qEnds[b + 1] - qBegin;
    const kvCapacity = kvEnds === null ? kvLen : kvEnds[b + 1] - kvBegin;
    const length = lengths === null ? kvCapacity : lengths[b];
    if (length < 0 || length > kvCapacity) throw badLength(caller, b, length, kvCapacity);
    sequences[b] = {
      batch: qEnds === null ? b : 0,
      qBegin,
      qLen,
      kvBegin,
      kvLen: length,
      queryOffset: offsets === null ? length - qLen : typeof offsets === 'number' ? offsets : offsets[b],
    };
    if (qLen > longestQ) longestQ = qLen;
    if (length > longestKv) longestKv = length;
    if (kvCapacity > maskKvLen) maskKvLen = kvCapacity;
  }
  Object.freeze(sequences);
  return { sequences, qLen: longestQ, kvLen: longestKv, maskKvLen, ragged: qEnds !== null };
}

function badLength(caller: string, b: number, length: number, kvLen: number): OptionError {
  return new OptionError(
    `${caller}: kvLengths[${b}] must be between 0 and the key length ${kvLen}; got ${length}; ` +
      'it counts the valid keys from the first one on',
  );
}

/** Positions of the first queries: one for all, one a sequence, or null for the default. */
function readOffsets(caller: string, value: unknown, count: number): number | ArrayLike<number> | null {
  if (value === undefined || value === null) return null;
  if (typeof value !== 'number') return readIntegers(caller, 'queryOffset', value, count);
  if ((value | 0) === value) return value;
  throw new OptionError(
    `${caller}: queryOffset must be a 32-bit integer, or one a batch entry; got ${formatValue(value)}`,
  );
}

/** Cumulative lengths: from 0, never decreasing, up to `total`; `length` elements, or any number of them for -1. */
function readCuSeqlens(
  caller: string,
  name: string,
  value: unknown,
  total: number,
  length: number,
): ArrayLike<number> {
  const ends = readIntegers(caller, name, value, -1);
  if (ends.length > MAX_SEQUENCES + 1) {
    throw new OptionError(
      `${caller}: ${name} may describe at most ${MAX_SEQUENCES} sequences; got ${ends.length - 1}; make several calls`,
    );
  }
  const wrong = (what: string): OptionError =>
    new OptionError(
      `${caller}: ${name} must ${what}; got [${Array.from(ends).slice(0, 8).join(', ')}${ends.length > 8 ? ', …' : ''}]`,
    );
  if (length >= 0 && ends.length !== length) {
    throw wrong(`have as many elements as cuSeqlensQ, batch + 1 = ${length}`);
  }
  if (ends.length === 0 || ends[0] !== 0) throw wrong('begin with 0');
  for (let b = 1; b < ends.length; b++) {
    if (ends[b] < ends[b - 1]) throw wrong(`never decrease (element ${b} does)`);
  }
  if (ends[ends.length - 1] !== total) throw wrong(`end with the packed length ${total}`);
  return ends;
}
