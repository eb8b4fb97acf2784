import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { DTYPES, type DType } from '../../lib/dtype.ts';
import { DTypeError } from '../../lib/errors.ts';
import { Tensor } from '../../lib/tensor.ts';

const dtypes = Object.keys(DTYPES) as DType[];
const values = (x: Tensor): number[] => [...x.toFloat32Array()];

describe('to', () => {
  it('rounds to floats, truncates and saturates to integers, asks for nonzero to bool', () => {
    const x = Tensor.from([0, -0, 0.9, -0.9, 1.5, -1.5, 127.9, 128, -129, 255.5, 256, 3e9, -3e9]);
    expect([...x.to('int8').data]).toEqual([0, 0, 0, 0, 1, -1, 127, 127, -128, 127, 127, 127, -128]);
    expect([...x.to('uint8').data]).toEqual([0, 0, 0, 0, 1, 0, 127, 128, 0, 255, 255, 255, 0]);
    expect([...x.to('int32').data].slice(-3)).toEqual([256, 2 ** 31 - 1, -(2 ** 31)]);
    expect([...x.to('bool').data]).toEqual([0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]);
  });

  it('carries what is not finite', () => {
    const x = Tensor.from([NaN, Infinity, -Infinity, 1e30, 2 ** -24]);
    for (const dtype of ['float16', 'bfloat16'] as const) {
      expect(values(x.to(dtype)).slice(0, 3)).toEqual([NaN, Infinity, -Infinity]);
    }
    expect(values(x.to('float16')).slice(3)).toEqual([Infinity, 2 ** -24]);
    expect([...x.to('int32').data].slice(0, 3)).toEqual([0, 2 ** 31 - 1, -(2 ** 31)]);
    expect([...x.to('bool').data]).toEqual([1, 1, 1, 1, 1]);
    expect(x.to('float16').to('bool').toArray()).toEqual([true, true, true, true, true]);
  });

  it('rounds a wide integer once', () => {
    // As float32 the second is a tie between two bfloat16, whose even one is 2^25; the integer lies above the
    // tie.
    const x = Tensor.from([2 ** 24 + 1, 2 ** 25 + 2 ** 17 + 1], { dtype: 'int32' });
    expect(values(x)).toEqual([2 ** 24, 2 ** 25 + 2 ** 17]);
    expect(values(x.to('bfloat16'))).toEqual([2 ** 24, 2 ** 25 + 2 ** 18]);
    expect(values(Tensor.from([2049, 2051], { dtype: 'int32' }).to('float16'))).toEqual([2048, 2052]);
  });

  it('keeps the bits of every float32, NaN payloads included, through copies', () => {
    const bits = new Uint32Array([0x7f800001, 0xffc12345, 0x80000000, 1, 0x7f812345, 5]);
    const x = new Tensor(new Float32Array(bits.buffer), [2, 3]);
    const back = x.transpose(0, 1).contiguous().transpose(0, 1).clone();
    expect(new Uint32Array(back.data.buffer)).toEqual(bits);
  });

  it('copies long rows, which go by whole runs, like short ones', () => {
    const x = Tensor.arange([3, 2, 100]);
    const view = x.transpose(0, 1).slice(2, 7, 93);
    const expected = [0, 1].flatMap((b) =>
      [0, 1, 2].flatMap((a) => Array.from({ length: 86 }, (_, c) => a * 200 + b * 100 + c + 7)),
    );
    expect(values(view)).toEqual(expected);
    expect(values(view.transpose(1, 2).contiguous().transpose(1, 2))).toEqual(expected);
  });

  it('reads any nonzero byte of a bool as true', () => {
    const x = new Tensor(new Uint8Array([0, 1, 2, 255]), [4], { dtype: 'bool' });
    expect(x.toArray()).toEqual([false, true, true, true]);
    expect(values(x)).toEqual([0, 1, 1, 1]);
    expect([...x.to('int8').data]).toEqual([0, 1, 1, 1]);
  });

  it('agrees between every pair of dtypes with going element by element', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...dtypes),
        fc.constantFrom(...dtypes),
        fc.array(fc.oneof(fc.float(), fc.integer({ min: -300, max: 300 })), { minLength: 1, maxLength: 12 }),
        (from, to, list) => {
          const x = Tensor.from(list, { dtype: from });
          const expected = list.map((_, i) => Tensor.full([], x.at(i), { dtype: to }).at());
          const converted = x.to(to);
          expect(list.map((_, i) => converted.at(i))).toEqual(expected);
          const everySecond = new Tensor(x.data, [Math.ceil(x.size / 2)], { dtype: from, strides: [2] });
          expect(values(everySecond.to(to))).toEqual(values(converted).filter((_, i) => i % 2 === 0));
        },
      ),
      { numRuns: 500 },
    );
  });

  it('loses nothing from 16 bits to float32 and back', () => {
    for (const dtype of ['float16', 'bfloat16'] as const) {
      const infinity = dtype === 'float16' ? 0x7c00 : 0x7f80;
      const bits = Uint16Array.from({ length: 65536 }, (_, i) => i).filter((i) => (i & 0x7fff) <= infinity);
      const x = new Tensor(bits, [bits.length], { dtype });
      expect(x.to('float32').to(dtype).data).toEqual(bits);
    }
  });

  it('refuses what is no dtype', () => {
    expect(() => Tensor.zeros([1]).to('float64' as never)).toThrow(DTypeError);
    expect(() => Tensor.zeros([1]).to(undefined as never)).toThrow('to: dtype must be one of');
  });
});
