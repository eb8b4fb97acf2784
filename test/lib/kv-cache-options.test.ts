import { beforeAll, describe, expect, test } from 'vitest';
import { CapacityError, DTypeError, OptionError } from '../../lib/errors.ts';
import { KVCache, type KVCacheOptions } from '../../lib/kv-cache.ts';
import { Tensor } from '../../lib/tensor.ts';
import { backendsUnderTest } from '../backends.ts';
import { LAYOUT } from '../cache-parts.ts';

describe.each(backendsUnderTest())('$name', ({ backend, select }) => {
  beforeAll(select);

  const refused = (given: unknown, error: unknown, ...words: string[]): void => {
    const build = (): KVCache => new KVCache({ backend, ...(given as KVCacheOptions) });
    expect(build).toThrow(error as never);
    for (const word of ['KVCache', ...words]) expect(build).toThrow(word);
  };

  test('those that are needed', () => {
    refused({}, OptionError, 'headDim is needed', 'numKvHeads: 8, headDim: 128');
    refused({ headDim: 8 }, OptionError, 'numKvHeads is needed');
    refused({ numKvHeads: 8, headDim: null }, OptionError, 'headDim is needed');
    expect(() => new KVCache(undefined as never)).toThrow(OptionError);
    expect(() => new KVCache(8 as never)).toThrow('must be a plain object');
  });

  test.each(['numKvHeads', 'headDim', 'valueDim', 'batch', 'maxLength'])(
    '%s is a positive whole number',
    (name) => {
      for (const wrong of [0, -1, 1.5, NaN, Infinity, '8', 2 ** 60, {}]) {
        refused(
          { numKvHeads: 2, headDim: 8, [name]: wrong },
          OptionError,
          `${name} must be a whole number, at least 1`,
        );
      }
    },
  );

  test('names and words', () => {
    const good = { numKvHeads: 2, headDim: 8 };
    refused({ ...good, maxLen: 8 }, OptionError, "'maxLen'", "did you mean 'maxLength'");
    refused({ ...good, numHeads: 8 }, OptionError, "'numHeads'", "did you mean 'numKvHeads'");
    refused({ ...good, dtype: 'float64' }, DTypeError, "'float64'");
    refused({ ...good, dtype: 'int32' }, DTypeError, 'float32, float16, bfloat16 or int8', "'int32'");
    refused({ ...good, backend: 'gpu' }, OptionError, "'auto', 'native', 'reference'");
  });

  test('defaults', () => {
    const cache = new KVCache({
      numKvHeads: 2,
      headDim: 8,
      backend,
      valueDim: null,
      batch: null,
      dtype: null,
    });
    cache.append(Tensor.zeros([1, 2, 3, 8]), Tensor.zeros([1, 2, 3, 8]));
    expect([cache.length, cache.dtype]).toEqual([3, 'float32']);
  });

  test('of more heads than there may be', () => {
    refused({ numKvHeads: 2 ** 40, headDim: 1 }, OptionError, 'batch × numKvHeads at most 16777216');
    refused({ batch: 2 ** 53 - 1, numKvHeads: 2 ** 53 - 1, headDim: 1 }, OptionError, 'batch may be at most');
  });

  // The reference takes memory when tokens come, and says so then.
  test.runIf(backend === 'native')('of sizes beyond all address space', () => {
    const huge = { numKvHeads: 2 ** 20, headDim: 2 ** 32 };
    refused(huge, CapacityError, '[1, 1048576, a few tokens, 4294967296]', 'lower the sizes');
    refused({ ...huge, maxLength: 9 }, CapacityError, 'lower maxLength');
    refused({ numKvHeads: 8, headDim: 2 ** 53 - 1, valueDim: 1 }, CapacityError);
    refused({ ...LAYOUT, maxLength: 2 ** 52 }, CapacityError, '[2, 2, 4503599627370496 tokens, 24]');
  });
});
