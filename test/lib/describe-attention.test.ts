import { describe, expect, test } from 'vitest';
import { attention, referenceAttention } from '../../lib/attention.ts';
import { describeAttention, describeCacheAttention } from '../../lib/describe-attention.ts';
import type { DType } from '../../lib/dtype.ts';
import type { ErrorCode } from '../../lib/errors.ts';
import type { AttentionOptions } from '../../lib/options.ts';
import { CACHE_OPTIONS, type CacheAttentionOptions, readCacheOptions } from '../../lib/options.ts';
import { Tensor } from '../../lib/tensor.ts';

const randn = (shape: readonly number[], dtype: DType = 'float32'): Tensor =>
  Tensor.randn(shape, { dtype, seed: 1 });
const q = randn([2, 4, 5, 8]);
const k = randn([2, 2, 7, 8]);
const v = randn([2, 2, 7, 6]);
const packedQ = randn([4, 9, 8]);
const packedK = randn([2, 11, 8]);
const cuSeqlensQ = Int32Array.of(0, 4, 9);
const cuSeqlensK = Int32Array.of(0, 4, 11);
const zeros = (shape: readonly number[], dtype: DType): Tensor => Tensor.zeros(shape, { dtype });

describe('describeAttention resolves every default', () => {
  test('of a dense batch', () => {
    const problem = describeAttention('test', q, k, v);
    expect(problem).toMatchObject({
      numSequences: 2,
      numHeads: 4,
      numKvHeads: 2,
      groupSize: 2,
      headDim: 8,
      valueDim: 6,
    });
    expect(problem).toMatchObject({ qLen: 5, kvLen: 7, scale: 1 / Math.sqrt(8), softcap: 0, sinkTokens: 0 });
    expect(problem).toMatchObject({
      windowLeft: Infinity,
      windowRight: Infinity,
      mask: null,
      bias: null,
      sinks: null,
    });
    expect(problem).toMatchObject({
      precision: 'highest',
      threads: 0,
      backend: 'auto',
      returnLse: false,
      out: null,
    });
    expect(problem.outShape).toEqual([2, 4, 5, 6]);
    expect(problem.lseShape).toEqual([2, 4, 5]);
    expect(problem.sequences[1]).toEqual({
      batch: 1,
      qBegin: 0,
      qLen: 5,
      kvBegin: 0,
      kvLen: 7,
      queryOffset: 2,
    });
    expect(problem.q).toBe(q);
    expect(Object.isFrozen(problem)).toBe(true);
  });

  test('of rank 3, which comes back as rank 3', () => {
    const problem = describeAttention('test', randn([4, 5, 8]), randn([2, 7, 8]), randn([2, 7, 6]), {
      kvLengths: [4],
    });
    expect(problem.q.shape).toEqual([1, 4, 5, 8]);
    expect(problem.outShape).toEqual([4, 5, 6]);
    expect(problem.lseShape).toEqual([4, 5]);
    expect(problem.sequences).toEqual([
      { batch: 0, qBegin: 0, qLen: 5, kvBegin: 0, kvLen: 4, queryOffset: -1 },
    ]);
    expect(attention(randn([4, 5, 8]), randn([2, 7, 8]), randn([2, 7, 6])).shape).toEqual([4, 5, 6]);
  });

  test('of a ragged batch, whose key lengths may be shortened', () => {
    const problem = describeAttention('test', packedQ, packedK, packedK, {
      cuSeqlensQ,
      cuSeqlensK,
      kvLengths: [4, 5],
    });
    expect(problem.sequences).toEqual([
      { batch: 0, qBegin: 0, qLen: 4, kvBegin: 0, kvLen: 4, queryOffset: 0 },
      { batch: 0, qBegin: 4, qLen: 5, kvBegin: 4, kvLen: 5, queryOffset: 0 },
    ]);
    expect(problem).toMatchObject({
      numSequences: 2,
      qLen: 5,
      kvLen: 5,
      outShape: [4, 9, 8],
      lseShape: [4, 9],
    });
  });

  test('undefined and null mean that an option is not given', () => {
    const none = Object.fromEntries(
      [
        'scale',
        'causal',
        'queryOffset',
        'window',
        'kvLengths',
        'mask',
        'bias',
        'softcap',
        'sinks',
        'out',
        'threads',
        'precision',
      ].map((name) => [name, null]),
    );
    expect(describeAttention('test', q, k, v, none as AttentionOptions)).toEqual(
      describeAttention('test', q, k, v),
    );
    expect(describeAttention('test', q, k, v, { window: { left: null, right: Infinity } }).windowLeft).toBe(
      Infinity,
    );
    expect(describeAttention('test', q, k, v, { scale: 0 }).scale).toBe(0);
    expect(describeAttention('test', q, k, v, { scale: undefined }).scale).toBe(1 / Math.sqrt(8));
  });

  test('causal folds into the right side of the window', () => {
    expect(describeAttention('test', q, k, v, { causal: true, window: { right: 3 } }).windowRight).toBe(0);
    expect(describeAttention('test', q, k, v, { causal: false, window: { right: 3 } }).windowRight).toBe(3);
  });

  test('integer vectors in any form, copied', () => {
    const lengths = Int32Array.of(3, 4);
    const forms = [lengths, [3, 4], new Tensor(lengths, [2]), { data: lengths, dims: [2], type: 'int32' }];
    const all = forms.map(
      (kvLengths) => describeAttention('test', q, k, v, { kvLengths: kvLengths as never }).sequences,
    );
    for (const sequences of all) expect(sequences).toEqual(all[0]);
    expect(all[0].map((sequence) => sequence.kvLen)).toEqual([3, 4]);
  });

  test('mask and bias become views of four axes', () => {
    const mask = zeros([4, 1, 7], 'bool');
    const problem = describeAttention('test', q, k, v, { mask, kvLengths: [3, 5] });
    expect(problem.mask?.shape).toEqual([2, 4, 5, 5]);
    expect(problem.mask?.strides).toEqual([0, 7, 0, 1]);
    expect(problem.mask?.data).toBe(mask.data);
  });

  test('each option is read once', () => {
    let reads = 0;
    const options = {
      get scale() {
        reads += 1;
        return reads > 1 ? NaN : 2;
      },
    };
    expect(describeAttention('test', q, k, v, options).scale).toBe(2);
    expect(reads).toBe(1);
  });

  test('tensors of other libraries go in unchanged, without a copy', () => {
    const foreign = { data: q.data, dims: q.shape, type: 'float32' };
    expect(describeAttention('test', foreign, k, v).q.data).toBe(q.data);
  });

  test('negative and zero strides are inputs like others', () => {
    const reversed = new Tensor(q.data, q.shape, { strides: [160, 40, -8, 1], offset: 32 });
    const shared = new Tensor(k.data, [2, 2, 7, 8], { strides: [0, 56, 8, 1] });
    const want = referenceAttention(reversed.contiguous(), shared.contiguous(), shared.contiguous(), {
      causal: true,
    });
    expect(referenceAttention(reversed, shared, shared, { causal: true }).data).toEqual(want.data);
  });
});

describe('describeCacheAttention', () => {
  const keys = { batch: 2, numKvHeads: 2, kvLen: 7, headDim: 8, valueDim: 6 };
  const describeOver = (caller: string, query: Tensor, options?: CacheAttentionOptions) =>
    describeCacheAttention(caller, query, keys, readCacheOptions(caller, options, CACHE_OPTIONS));

  test('gives the problem of attention, without k and v', () => {
    const options = { causal: true, softcap: 2, sinks: [1, 2, 3, 4] };
    const { k: _k, v: _v, ...want } = describeAttention('test', q, k, v, options);
    expect(describeOver('test', q, options)).toEqual({ ...want, k: null, v: null });
  });

  test.each<[string, () => unknown, ErrorCode, string]>([
    [
      'options that describe k and v',
      () => describeOver('KVCache.attend', q, { kvLengths: [1, 2] } as object),
      'ERR_OPTION',
      "'kvLengths' does not apply",
    ],
    ['another headDim', () => describeOver('KVCache.attend', v), 'ERR_SHAPE', 'headDim 8'],
    ['another batch', () => describeOver('KVCache.attend', randn([1, 4, 5, 8])), 'ERR_SHAPE', 'batch 2'],
    [
      'no multiple of the heads',
      () => describeOver('KVCache.attend', randn([2, 3, 5, 8])),
      'ERR_SHAPE',
      'multiple',
    ],
    ['rank 2', () => describeOver('KVCache.attend', randn([5, 8])), 'ERR_SHAPE', 'rank 4'],
    ['an integer q', () => describeOver('KVCache.attend', zeros([2, 4, 5, 8], 'int8')), 'ERR_DTYPE', 'int8'],
  ])('refuses %s', (_, call, code, shown) => {
    expect(call).toThrow(
      expect.objectContaining({ code, message: expect.stringMatching(/^KVCache.attend: /) }),
    );
    expect(call).toThrow(shown);
  });
});
