import { describe, expect, test } from 'vitest';
import { attention, attentionAsync, referenceAttention } from '../../lib/attention.ts';
import type { DType } from '../../lib/dtype.ts';
import { type ErrorCode, SdpaError } from '../../lib/errors.ts';
import type { AttentionOptions } from '../../lib/options.ts';
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

/** The SdpaError that a call throws. */
function errorOf(call: () => unknown): SdpaError {
  try {
    call();
  } catch (error) {
    expect(error).toBeInstanceOf(SdpaError);
    return error as SdpaError;
  }
  throw new Error('nothing was thrown');
}

const wrong =
  (options: object): (() => unknown) =>
  () =>
    attention(q, k, v, options as AttentionOptions);
const wrongRagged =
  (options: object): (() => unknown) =>
  () =>
    attention(packedQ, packedK, packedK, { cuSeqlensQ, cuSeqlensK, ...options } as AttentionOptions);
const lastAxisStrided = new Tensor(new Float32Array(2 * 4 * 5 * 16), [2, 4, 5, 8], {
  strides: [320, 80, 16, 2],
});
const zeros = (shape: readonly number[], dtype: DType): Tensor => Tensor.zeros(shape, { dtype });

// What is wrong; the code; all that the message must show.
const BAD: readonly [string, () => unknown, ErrorCode, ...string[]][] = [
  ['rank 2', () => attention(randn([5, 8]), k, v), 'ERR_SHAPE', 'rank 4', 'q [5, 8]', 'k [2, 2, 7, 8]'],
  ['ranks 3 and 4', () => attention(packedQ, k, v), 'ERR_SHAPE', 'q [4, 9, 8]', 'k [2, 2, 7, 8]'],
  [
    'headDim',
    () => attention(q, randn([2, 2, 7, 6]), v),
    'ERR_SHAPE',
    'k.headDim must equal q.headDim',
    '[2, 4, 5, 8]',
    '[2, 2, 7, 6]',
  ],
  ['key lengths', () => attention(q, k, randn([2, 2, 6, 8])), 'ERR_SHAPE', 'k [2, 2, 7, 8], v [2, 2, 6, 8]'],
  ['kv heads', () => attention(q, k, randn([2, 1, 7, 8])), 'ERR_SHAPE', 'v [2, 1, 7, 8]'],
  [
    'batch',
    () => attention(q, randn([1, 2, 7, 8]), randn([1, 2, 7, 8])),
    'ERR_SHAPE',
    'batch',
    'k [1, 2, 7, 8]',
  ],
  [
    'head counts',
    () => attention(q, randn([2, 3, 7, 8]), randn([2, 3, 7, 8])),
    'ERR_SHAPE',
    'multiple',
    '4 and 3',
    'transpose(1, 2)',
  ],
  [
    'no kv heads',
    () => attention(q, randn([2, 0, 7, 8]), randn([2, 0, 7, 8])),
    'ERR_SHAPE',
    'positive multiple',
  ],
  ['no heads', () => attention(randn([2, 0, 5, 8]), k, v), 'ERR_SHAPE', 'positive multiple'],
  [
    'headDim 0',
    () => attention(randn([2, 4, 5, 0]), randn([2, 2, 7, 0]), v),
    'ERR_SHAPE',
    'headDim must be at least 1',
  ],
  [
    'mixed dtypes',
    () => attention(q, k.to('float16'), v),
    'ERR_DTYPE',
    'q float32, k float16, v float32',
    ".to('float32')",
  ],
  [
    'integers',
    () => attention(zeros([1, 1, 1, 1], 'int8'), zeros([1, 1, 1, 1], 'int8'), zeros([1, 1, 1, 1], 'int8')),
    'ERR_DTYPE',
    'int8',
    'float32',
  ],
  ['no tensor', () => attention(null as never, k, v), 'ERR_DTYPE', 'attention: q'],
  ['a plain array', () => attention(q, [1, 2] as never, v), 'ERR_DTYPE', 'attention: k', 'Tensor'],
  [
    'a last axis that is strided',
    () => attention(lastAxisStrided, k, v),
    'ERR_SHAPE',
    'last axis of q',
    'q.contiguous()',
    '[320, 80, 16, 2]',
  ],
  [
    'options that are no object',
    () => attention(q, k, v, 'causal' as never),
    'ERR_OPTION',
    'plain object',
    "'causal'",
  ],
  ['an array of options', wrong([]), 'ERR_OPTION', 'plain object'],
  ['a Map of options', wrong(new Map()), 'ERR_OPTION', 'plain object'],
  ['a misspelt option', wrong({ cuasal: true }), 'ERR_OPTION', "'cuasal'", "did you mean 'causal'?"],
  ['another spelling', wrong({ softCap: 1 }), 'ERR_OPTION', "did you mean 'softcap'?"],
  [
    'an unknown option',
    wrong({ attentionDropout: 0 }),
    'ERR_OPTION',
    "'attentionDropout'",
    'known: scale, causal',
  ],
  [
    'signal in the synchronous form',
    wrong({ signal: new AbortController().signal }),
    'ERR_OPTION',
    "'signal' does not apply here",
  ],
  ["PyTorch's name", wrong({ attn_mask: null }), 'ERR_OPTION', "'attn_mask'", "did you mean 'mask'?"],
  ['scale NaN', wrong({ scale: NaN }), 'ERR_OPTION', 'scale', 'NaN'],
  ['scale Infinity', wrong({ scale: Infinity }), 'ERR_OPTION', 'scale must be a finite number'],
  ['scale as text', wrong({ scale: '1' }), 'ERR_OPTION', 'scale', "'1'"],
  ['causal 1', wrong({ causal: 1 }), 'ERR_OPTION', 'causal must be true or false; got 1'],
  ['returnLse as text', wrong({ returnLse: 'yes' }), 'ERR_OPTION', 'returnLse'],
  ['softcap below 0', wrong({ softcap: -1 }), 'ERR_OPTION', 'softcap', '-1'],
  ['softcap NaN', wrong({ softcap: NaN }), 'ERR_OPTION', 'softcap'],
  ['a window that is a number', wrong({ window: 5 }), 'ERR_OPTION', 'window', '{ left: N - 1 }'],
  ['window -1', wrong({ window: { left: -1 } }), 'ERR_OPTION', 'window.left', '-1', 'Infinity'],
  ['window 1.5', wrong({ window: { right: 1.5 } }), 'ERR_OPTION', 'window.right', '1.5'],
  ['window NaN', wrong({ window: { right: NaN } }), 'ERR_OPTION', 'window.right'],
  ['sinkTokens -1', wrong({ window: { sinkTokens: -1 } }), 'ERR_OPTION', 'window.sinkTokens'],
  ['a misspelt side', wrong({ window: { lft: 1 } }), 'ERR_OPTION', "did you mean 'left'?"],
  ['queryOffset 1.5', wrong({ queryOffset: 1.5 }), 'ERR_OPTION', 'queryOffset', '1.5'],
  ['queryOffset beyond 32 bits', wrong({ queryOffset: 2 ** 40 }), 'ERR_OPTION', 'queryOffset'],
  [
    'queryOffset of another length',
    wrong({ queryOffset: [1, 2, 3] }),
    'ERR_SHAPE',
    'queryOffset',
    '[2]',
    '[3]',
  ],
  ['queryOffset as text', wrong({ queryOffset: '1' }), 'ERR_OPTION', 'queryOffset'],
  ['kvLengths beyond Lk', wrong({ kvLengths: [7, 8] }), 'ERR_OPTION', 'kvLengths[1]', '7', 'got 8'],
  ['kvLengths below 0', wrong({ kvLengths: Int32Array.of(-1, 7) }), 'ERR_OPTION', 'kvLengths[0]', 'got -1'],
  [
    'kvLengths of another length',
    wrong({ kvLengths: Int32Array.of(7) }),
    'ERR_SHAPE',
    'kvLengths',
    '[2]',
    '[1]',
  ],
  [
    'kvLengths in float32',
    wrong({ kvLengths: Float32Array.of(7, 7) }),
    'ERR_OPTION',
    'kvLengths',
    'Int32Array',
  ],
  [
    'kvLengths with a fraction',
    wrong({ kvLengths: [1, 2.5] }),
    'ERR_OPTION',
    'kvLengths',
    'element 1 is 2.5',
  ],
  ['kvLengths of a float tensor', wrong({ kvLengths: randn([2]) }), 'ERR_OPTION', 'kvLengths', 'float32 [2]'],
  ['a float mask', wrong({ mask: randn([5, 7]) }), 'ERR_DTYPE', 'mask must be bool', "'bias'"],
  ['a uint8 mask', wrong({ mask: zeros([5, 7], 'uint8') }), 'ERR_DTYPE', 'mask must be bool', 'uint8'],
  ['a bool bias', wrong({ bias: zeros([5, 7], 'bool') }), 'ERR_DTYPE', 'bias must be', "'mask'"],
  ['an int32 bias', wrong({ bias: zeros([5, 7], 'int32') }), 'ERR_DTYPE', 'bias must be', 'int32'],
  [
    'a mask of other length',
    wrong({ mask: zeros([5, 6], 'bool') }),
    'ERR_SHAPE',
    'mask [5, 6]',
    '[2, 4, 5, 7]',
  ],
  ['a mask of the batch alone', wrong({ mask: zeros([2, 7], 'bool') }), 'ERR_SHAPE', 'mask [2, 7]'],
  ['a mask of rank 5', wrong({ mask: zeros([1, 2, 4, 5, 7], 'bool') }), 'ERR_SHAPE', 'mask [1, 2, 4, 5, 7]'],
  [
    'a transposed bias',
    wrong({ bias: randn([7, 5]).transpose(0, 1) }),
    'ERR_SHAPE',
    'last axis of bias',
    'bias.contiguous()',
  ],
  ['alibiSlopes of kv heads', wrong({ alibiSlopes: [1, 2] }), 'ERR_SHAPE', 'alibiSlopes [2]', '4 heads'],
  ['alibiSlopes [Hq, B]', wrong({ alibiSlopes: randn([4, 2]) }), 'ERR_SHAPE', 'alibiSlopes [4, 2]'],
  ['alibiSlopes of text', wrong({ alibiSlopes: ['a', 'b', 'c', 'd'] }), 'ERR_OPTION', 'alibiSlopes'],
  ['sinks of other length', wrong({ sinks: new Float32Array(3) }), 'ERR_SHAPE', 'sinks [3]', '4 heads'],
  ['sinks as a number', wrong({ sinks: 1 }), 'ERR_OPTION', 'sinks'],
  ['sinks in int32', wrong({ sinks: zeros([4], 'int32') }), 'ERR_DTYPE', 'sinks', 'int32'],
  ['precision', wrong({ precision: 'hihgest' }), 'ERR_OPTION', "'highest', 'high', 'medium'", "'hihgest'"],
  ['backend', wrong({ backend: 'cuda' }), 'ERR_OPTION', "'auto', 'native', 'reference'", "'cuda'"],
  ['threads 0', wrong({ threads: 0 }), 'ERR_OPTION', 'threads', 'at least 1'],
  ['threads 1.5', wrong({ threads: 1.5 }), 'ERR_OPTION', 'threads'],
  [
    'out of another shape',
    wrong({ out: randn([2, 4, 5, 8]) }),
    'ERR_SHAPE',
    'out [2, 4, 5, 8]',
    'result [2, 4, 5, 6]',
  ],
  [
    'out of another dtype',
    wrong({ out: randn([2, 4, 5, 6], 'float16') }),
    'ERR_DTYPE',
    'out float16',
    'q float32',
  ],
  [
    'out whose elements meet',
    wrong({ out: new Tensor(new Float32Array(300), [2, 4, 5, 6], { strides: [120, 30, 5, 1] }) }),
    'ERR_SHAPE',
    'share memory',
    '[120, 30, 5, 1]',
  ],
  [
    'out that is broadcast',
    wrong({ out: new Tensor(new Float32Array(300), [2, 4, 5, 6], { strides: [0, 30, 6, 1] }) }),
    'ERR_SHAPE',
    'share memory',
  ],
  [
    'out whose last axis is strided',
    wrong({ out: new Tensor(new Float32Array(480), [2, 4, 5, 6], { strides: [240, 60, 12, 2] }) }),
    'ERR_SHAPE',
    'last axis of out',
  ],
  ['out over q', () => attention(q, k, k, { out: q }), 'ERR_OPTION', 'overlaps the memory of q'],
  ['out over v', () => attention(k, k.clone(), k, { out: k }), 'ERR_OPTION', 'overlaps the memory of'],
  ['only cuSeqlensQ', () => attention(packedQ, packedK, packedK, { cuSeqlensQ }), 'ERR_OPTION', 'cuSeqlensK'],
  ['only cuSeqlensK', () => attention(packedQ, packedK, packedK, { cuSeqlensK }), 'ERR_OPTION', 'cuSeqlensQ'],
  ['cuSeqlens of rank 4', wrong({ cuSeqlensQ, cuSeqlensK }), 'ERR_SHAPE', 'rank 3', 'rank 4'],
  [
    'cuSeqlens from 1',
    wrongRagged({ cuSeqlensQ: [1, 4, 9] }),
    'ERR_OPTION',
    'cuSeqlensQ must begin with 0',
    '[1, 4, 9]',
  ],
  [
    'cuSeqlens that decrease',
    wrongRagged({ cuSeqlensK: [0, 12, 11] }),
    'ERR_OPTION',
    'cuSeqlensK must never decrease',
    '[0, 12, 11]',
  ],
  ['cuSeqlens short of the total', wrongRagged({ cuSeqlensK: [0, 4, 10] }), 'ERR_OPTION', 'cuSeqlensK', '11'],
  ['cuSeqlens that are empty', wrongRagged({ cuSeqlensQ: [] }), 'ERR_OPTION', 'cuSeqlensQ'],
  ['cuSeqlens of two lengths', wrongRagged({ cuSeqlensK: [0, 11] }), 'ERR_OPTION', 'cuSeqlensK', '3'],
  [
    'ragged kvLengths beyond the sequence',
    wrongRagged({ kvLengths: [5, 7] }),
    'ERR_OPTION',
    'kvLengths[0]',
    'got 5',
  ],
  [
    'a ragged mask of the total',
    wrongRagged({ mask: zeros([9, 11], 'bool') }),
    'ERR_SHAPE',
    'mask [9, 11]',
    '[2, 4, 5, 7]',
  ],
  [
    'the oracle says its own name',
    () => referenceAttention(q, v, k),
    'ERR_SHAPE',
    'referenceAttention: k.headDim',
  ],
];

describe('bad input is a typed error that shows what was given and the remedy', () => {
  test.each(BAD)('%s', (_, call, code, ...shown) => {
    const error = errorOf(call);
    expect(error.code).toBe(code);
    for (const part of shown) expect(error.message).toContain(part);
    expect(error.message).toMatch(/^(attention|referenceAttention): /);
  });

  test('a detached buffer', () => {
    const gone = randn([2, 4, 5, 8]);
    structuredClone(gone.data.buffer, { transfer: [gone.data.buffer as ArrayBuffer] });
    const error = errorOf(() => attention(gone, k, v));
    expect(error.code).toBe('ERR_SHAPE');
    expect(error.message).toContain('detached');
  });

  test('leaves out as it was', () => {
    const out = Tensor.full([2, 4, 5, 6], 7);
    errorOf(() => attention(q, k, v, { out, scale: NaN }));
    expect(out.data.every((x) => x === 7)).toBe(true);
  });

  test('attentionAsync rejects with the same errors, and never throws', async () => {
    await expect(attentionAsync(q, v, k)).rejects.toMatchObject({ code: 'ERR_SHAPE' });
    await expect(attentionAsync(q, k, v, { signal: 5 as never })).rejects.toMatchObject({
      code: 'ERR_OPTION',
    });
    await expect(attentionAsync(null as never, k, v)).rejects.toMatchObject({ code: 'ERR_DTYPE' });
  });
});
