import { freemem } from 'node:os';
import { afterAll, describe, expect, test } from 'vitest';
import type { TensorData } from '../../lib/dtype.ts';
import { attention, attentionStats, KVCache, Tensor } from '../../lib/index.ts';
import { loadAddon } from '../../lib/native/loader.ts';

// Arrays over 4 GiB whose pages are not there before they are written: rows lie so far apart that their offsets, in elements
// and in bytes, need more than 32 bits, and only those pages cost memory.

const GIB = 2 ** 30;

/** Zeros that take no memory; null where the process may not have so much address space. */
function lazily(type: typeof Float32Array | typeof Uint16Array, elements: number): TensorData | null {
  try {
    return new type(elements);
  } catch {
    return null;
  }
}

/** x [1, H, L, D] anew, its rows spread over all of `data`, the last one at its very end. */
function spread(x: Tensor, data: TensorData): Tensor {
  const [, heads, length, dim] = x.shape;
  const rowStride = Math.floor((data.length - dim) / (heads * length - 1));
  const strides = [0, length * rowStride, rowStride, 1];
  const offset = data.length - dim - (heads * length - 1) * rowStride;
  const far = new Tensor(data, x.shape, { dtype: x.dtype, strides, offset });
  const rows = x.contiguous().data;
  for (let row = 0; row < heads * length; row++)
    data.set(rows.subarray(row * dim, (row + 1) * dim), offset + row * rowStride);
  return far;
}

const cases = [
  { dtype: 'float32', type: Float32Array, elements: 1.25 * GIB },
  { dtype: 'bfloat16', type: Uint16Array, elements: 2.25 * GIB },
] as const;

const isAble = !(loadAddon() instanceof Error) && freemem() > 4 * GIB;
if (!isAble) console.warn('arrays over 4 GiB: not tested, for want of the addon or of 4 GiB of free memory');

describe.runIf(isAble).each(cases)('$dtype over 4 GiB', ({ dtype, type, elements }) => {
  let data = lazily(type, elements);
  afterAll(() => {
    data = null;
  });
  const make = (heads: number, length: number, seed: number): Tensor =>
    Tensor.randn([1, heads, length, 64], { dtype, seed });
  const [q, k, v] = [make(4, 3, 1), make(2, 40, 2), make(2, 40, 3)];

  test('read where it lies, and written', ({ skip }) => {
    if (data === null) return skip('no address space for it');
    expect(data.byteLength).toBeGreaterThan(4 * GIB);
    for (const [name, near] of [
      ['k', k],
      ['v', v],
      ['q', q],
    ] as const) {
      const far = spread(near, data);
      const args = { q, k, v, [name]: far };
      expect(attention(args.q, args.k, args.v).data).toEqual(attention(q, k, v).data);
      expect(attentionStats(args.q, args.k, args.v).entropy.data).toEqual(
        attentionStats(q, k, v).entropy.data,
      );
    }
    const out = spread(Tensor.zeros([1, 4, 3, 64], { dtype }), data);
    attention(q, k, v, { out });
    expect(out.clone().data).toEqual(attention(q, k, v).data);
    const far = spread(k, data);
    using cache = new KVCache({ numKvHeads: 2, headDim: 64, dtype }).append(far, v);
    expect(cache.keys().data).toEqual(k.data);
    expect(far.at(0, 1, 39, 63)).toBe(k.at(0, 1, 39, 63));
  });

  test('one element beyond the end is refused', ({ skip }) => {
    if (data === null) return skip('no address space for it');
    const { strides, offset } = spread(k, data);
    expect(() => new Tensor(data!, k.shape, { dtype, strides, offset: offset + 1 })).toThrow(
      'reaches elements',
    );
  });
});
