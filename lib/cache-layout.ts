import type { BackendChoice, CacheLayout, CacheStorage } from './backend.ts';
import { checkDType, type DType, isFloatDType } from './dtype.ts';
import { DTypeError, OptionError } from './errors.ts';
import { MAX_BATCH, MAX_HEADS } from './limits.ts';
import { type CacheAttentionOptions, checkOptions, readCount } from './options.ts';

/** What fixes a KVCache. */
export interface KVCacheOptions {
  readonly numKvHeads: number;
  /** Head size of k. */
  readonly headDim: number;
  /** Head size of v. Default: headDim. */
  readonly valueDim?: number | null;
  /** Default 1. */
  readonly batch?: number | null;
  /**
   * What keys and values are stored as: 'float32' (default), 'float16', 'bfloat16' or 'int8'. append converts. int8 is
   * symmetric, with one float32 scale for each token, head, and k or v: each number is off by at most a 254th of the
   * largest of its row, and must be finite. A channel 100 times as large as the others costs these their digits: out is then
   * off by about 20% (where it is one of v, in the other channels), with normal numbers by 1%.
   */
  readonly dtype?: DType | null;
  /** Tokens that the cache may ever hold. Default: as many as memory allows. */
  readonly maxLength?: number | null;
  /**
   * Keep the newest tokens only, as many as this (and the first `sinkTokens`): memory stays bounded, positions stay
   * absolute, and each query sees the `window` newest keys up to its own. The option `window` of a call narrows that: of
   * its left side and this the smaller holds, and, where it has a left side, of its sinkTokens and these the fewer.
   * Default: all are kept.
   */
  readonly window?: number | null;
  /** Of the first tokens, how many a window keeps (attention sinks). Default 0. */
  readonly sinkTokens?: number | null;
  /** Who holds the memory and computes. Default 'auto'. */
  readonly backend?: BackendChoice | null;
}

const LAYOUT_OPTIONS = [
  'numKvHeads',
  'headDim',
  'valueDim',
  'batch',
  'dtype',
  'maxLength',
  'window',
  'sinkTokens',
  'backend',
];

/**
 * The options with the window of the cache in them: the smaller left side and the fewer sinkTokens hold. A left side that
 * is open hides nothing, so the cache's own window stays as it is.
 */
export function withinWindow(options: CacheAttentionOptions, layout: CacheLayout): CacheAttentionOptions {
  const { window, sinkTokens } = layout;
  if (window === 0) return options;
  const own = options.window ?? null;
  if (own === null) return { ...options, window: { left: window - 1, sinkTokens } };
  // What is no number is left to the validator.
  const narrower = (given: number | null | undefined, most: number, none: number): number => {
    const value = given ?? none;
    return typeof value === 'number' ? Math.min(value, most) : value;
  };
  const isOpen = (own.left ?? Infinity) === Infinity && readsAsCount(own.sinkTokens);
  return {
    ...options,
    window: {
      left: narrower(own.left, window - 1, Infinity),
      right: own.right,
      sinkTokens: isOpen ? sinkTokens : narrower(own.sinkTokens, sinkTokens, 0),
    },
  };
}

const readsAsCount = (value: unknown): boolean =>
  (value ?? 0) === 0 || (Number.isSafeInteger(value) && (value as number) > 0);

/** Tokens [0, sinkEnd) and [begin, length) are what keys() and values() return: those in the window, if they are there. */
export function keptTokens(
  { window, sinkTokens }: CacheLayout,
  { length, keptBegin }: CacheStorage,
): { readonly sinkEnd: number; readonly begin: number } {
  const begin = window === 0 ? 0 : Math.max(0, keptBegin, length - window);
  return { sinkEnd: Math.min(sinkTokens, begin), begin };
}

/** What a cache is to be, checked. */
export function readLayout(options: KVCacheOptions): CacheLayout {
  const given = checkOptions('KVCache', 'options', options, LAYOUT_OPTIONS);
  const count = (name: string, value: unknown): number => {
    if (value === undefined || value === null) {
      throw new OptionError(`KVCache: ${name} is needed, e.g. new KVCache({ numKvHeads: 8, headDim: 128 })`);
    }
    return readCount('KVCache', name, value as number, 1, 1);
  };
  const headDim = count('headDim', given.headDim);
  const dtype = checkDType('KVCache', given.dtype ?? 'float32');
  if (!isFloatDType(dtype) && dtype !== 'int8') {
    throw new DTypeError(`KVCache: dtype must be float32, float16, bfloat16 or int8; got '${dtype}'`);
  }
  const window = readCount('KVCache', 'window', given.window, 1, 0);
  const sinkTokens = readCount('KVCache', 'sinkTokens', given.sinkTokens, 0, 0);
  if (window === 0 && sinkTokens > 0) {
    throw new OptionError(
      `KVCache: sinkTokens ${sinkTokens} without a window; without one every token is kept: leave it out`,
    );
  }
  const batch = readCount('KVCache', 'batch', given.batch, 1, 1);
  const numKvHeads = count('numKvHeads', given.numKvHeads);
  if (batch > MAX_BATCH || batch * numKvHeads > MAX_HEADS) {
    throw new OptionError(
      `KVCache: batch may be at most ${MAX_BATCH}, and batch × numKvHeads at most ${MAX_HEADS}; got batch ${batch}, numKvHeads ` +
        `${numKvHeads}; make several caches`,
    );
  }
  return Object.freeze({
    batch,
    numKvHeads,
    headDim,
    valueDim: readCount('KVCache', 'valueDim', given.valueDim, 1, headDim),
    dtype,
    maxLength: readCount('KVCache', 'maxLength', given.maxLength, 1, Infinity),
    window,
    sinkTokens,
  });
}
