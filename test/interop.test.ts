import * as ort from 'onnxruntime-common';
import { beforeAll, describe, expect, test } from 'vitest';
import { type AttentionResult, attention, attentionAsync, referenceAttention } from '../lib/attention.ts';
import { attentionWeights } from '../lib/attention-weights.ts';
import { compareAttention } from '../lib/compare-attention.ts';
import type { DType } from '../lib/dtype.ts';
import { DTypeError } from '../lib/errors.ts';
import { KVCache } from '../lib/kv-cache.ts';
import { rope } from '../lib/modules/rope.ts';
import { Tensor } from '../lib/tensor.ts';
import { asTensor } from '../lib/tensor-like.ts';
import { backendsUnderTest } from './backends.ts';
import { randomMask } from './cases.ts';

// onnxruntime-common holds the Tensor class that onnxruntime-node and onnxruntime-web share. Where the tensors of a
// library go in unchanged, those of our own must give the same bits.

/** A tensor of ONNX Runtime over the same memory. */
function toOrt(x: Tensor): ort.Tensor {
  return new ort.Tensor(x.dtype as 'float32', x.data as Float32Array, x.shape);
}

/** As `@huggingface/transformers` wraps one: a Proxy whose own properties are few. */
function toTransformers(x: Tensor): { dims: number[]; type: string; data: Float32Array } {
  class Wrapper {
    readonly ort_tensor: ort.Tensor;
    constructor(tensor: ort.Tensor) {
      this.ort_tensor = tensor;
    }
    get dims() {
      return this.ort_tensor.dims as number[];
    }
    get type() {
      return this.ort_tensor.type;
    }
    get data() {
      return this.ort_tensor.data as Float32Array;
    }
  }
  return new Proxy(new Wrapper(toOrt(x)), {
    get: (target, key) =>
      typeof key === 'string' && /^\d+$/.test(key) ? undefined : Reflect.get(target, key),
  });
}

/** Not the same object: where there is a Float16Array, ONNX Runtime puts one over the memory of float16. */
function expectSameMemory(a: ArrayBufferView, b: ArrayBufferView): void {
  expect(a.buffer).toBe(b.buffer);
  expect([a.byteOffset, a.byteLength]).toEqual([b.byteOffset, b.byteLength]);
}

const q = Tensor.randn([1, 4, 3, 16], { seed: 1 });
const k = Tensor.randn([1, 2, 9, 16], { seed: 2 });
const v = Tensor.randn([1, 2, 9, 16], { seed: 3 });
const libraries = [
  ['onnxruntime', toOrt],
  ['transformers', toTransformers],
] as const;

describe.each(backendsUnderTest())('$name', ({ backend, select }) => {
  beforeAll(select);

  test.each(libraries)('tensors of %s go into attention unchanged', async (_, from) => {
    const options = { causal: true, returnLse: true, backend } as const;
    const mask = randomMask([9], 4);
    const want = attention(q, k, v, { ...options, mask, kvLengths: Int32Array.of(7) }) as AttentionResult;
    const given = { ...options, mask: from(mask), kvLengths: from(new Tensor(Int32Array.of(7), [1])) };
    const got = attention(from(q), from(k), from(v), given) as AttentionResult;
    expect(got).toEqual(want);
    expect(await attentionAsync(from(q), from(k), from(v), given)).toEqual(want);
  });

  test.each(libraries)('tensors of %s go into a cache unchanged', (_, from) => {
    const cache = new KVCache({ numKvHeads: 2, headDim: 16, backend }).append(from(k), from(v));
    const want = attention(q, k, v, { causal: true, backend });
    expect(cache.attend(from(q))).toEqual(want);
    expect(
      cache.step(from(q), from(k.slice(2, 0, 3).contiguous()), from(v.slice(2, 0, 3).contiguous())),
    ).toBeInstanceOf(Tensor);
  });

  test('results go back: new ort.Tensor(t.dtype, t.data, t.shape)', () => {
    for (const dtype of ['float32', 'float16'] as const) {
      const [a, b, c] = [q, k, v].map((x) => x.to(dtype));
      const { out, lse } = attention(a, b, c, { backend, returnLse: true });
      for (const t of [out, lse]) {
        const back = toOrt(t);
        expect([back.type, back.dims, back.size]).toEqual([t.dtype, t.shape, t.size]);
        expectSameMemory(back.data as Float32Array, t.data);
      }
    }
  });
});

test.each(libraries)('tensors of %s go into everything else', (_, from) => {
  expect(referenceAttention(from(q), from(k), from(v))).toEqual(referenceAttention(q, k, v));
  expect(attentionWeights(from(q), from(k), from(v))).toEqual(attentionWeights(q, k, v));
  expect(compareAttention(from(q), from(k), from(v)).pass).toBe(true);
  expect(rope(from(q), { offset: 3 })).toEqual(rope(q, { offset: 3 }));
  expect(Tensor.from(from(q))).toEqual(q);
});

test('nothing is copied on the way in', () => {
  for (const dtype of ['float32', 'float16', 'int8', 'uint8', 'int32', 'bool'] satisfies DType[]) {
    const x = Tensor.zeros([2, 3], { dtype });
    for (const [, from] of libraries) {
      const back = asTensor('test', 'x', from(x));
      expect([back.dtype, back.shape]).toEqual([dtype, [2, 3]]);
      expectSameMemory(back.data, x.data);
    }
  }
});

test('dtypes that no kernel reads are refused, with the conversion that helps', () => {
  const ids = new ort.Tensor('int64', BigInt64Array.of(1n, 2n), [2]);
  expect(() => attention(ids, ids, ids)).toThrow(DTypeError);
  expect(() => attention(ids, ids, ids)).toThrow("Tensor.from(value, { dtype: 'int32' })");
  expect(Tensor.from(ids).toArray()).toEqual([1, 2]);
  const wide = new ort.Tensor('float64', Float64Array.of(1, 2), [1, 1, 2]);
  expect(() => attention(wide, wide, wide)).toThrow("Tensor.from(value, { dtype: 'float32' })");
  const words = new ort.Tensor('string', ['a', 'b'], [1, 1, 2]);
  expect(() => attention(words, words, words)).toThrow(DTypeError);
});

test("a tokenizer's attention mask of int64 is refused with the conversion that makes it a mask", () => {
  const tokens = new ort.Tensor('int64', BigInt64Array.of(1n, 1n, 0n), [1, 1, 1, 3]);
  const x = Tensor.randn([1, 2, 3, 4]);
  expect(() => attention(x, x, x, { mask: tokens })).toThrow("Tensor.from(value, { dtype: 'bool' })");
  expect(() => attention(x, x, x, { bias: tokens })).toThrow("Tensor.from(value, { dtype: 'float32' })");
  expect(Tensor.from(tokens, { dtype: 'bool' }).toArray()).toEqual([[[[true, true, false]]]]);
  const wide = new ort.Tensor('float64', Float64Array.of(0, 0, 0), [3]); // added to the scores: no mask
  expect(() => attention(x, x, x, { mask: wide })).toThrow("Tensor.from(value, { dtype: 'float32' })");
});

test('a tensor whose memory is not here passes on what its library says', () => {
  const gone = toOrt(q.clone());
  gone.dispose();
  expect(() => attention(gone, k, v)).toThrow(/disposed/);
});
