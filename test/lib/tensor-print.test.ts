import { inspect } from 'node:util';
import { describe, expect, it } from 'vitest';
import type { DType } from '../../lib/dtype.ts';
import { Tensor } from '../../lib/tensor.ts';

const of = (values: unknown, dtype: DType = 'float32'): string => inspect(Tensor.from(values, { dtype }));

// The expected texts are what NumPy 2.4 prints (repr), but for bfloat16, which it does not have.
describe('printing', () => {
  it('aligns columns on the decimal point and names the dtype', () => {
    expect(
      of([
        [1, 2.5],
        [-3, 0],
      ]),
    ).toBe('array([[ 1. ,  2.5],\n       [-3. ,  0. ]], dtype=float32)');
    expect(of([[0.1, 0.2]])).toBe('array([[0.1, 0.2]], dtype=float32)');
    expect(of([-128, 7], 'int8')).toBe('array([-128,    7], dtype=int8)');
    expect(of([[true, false]], 'bool')).toBe('array([[ True, False]])');
    expect(String(Tensor.from([1, 2], { dtype: 'int32' }))).toBe('array([1, 2], dtype=int32)');
  });

  it('prints rank 0 and no elements', () => {
    expect(of(1.5)).toBe('array(1.5, dtype=float32)');
    expect(of(true, 'bool')).toBe('array(True)');
    expect(of([])).toBe('array([], dtype=float32)');
    expect(inspect(Tensor.zeros([2, 0]))).toBe('array([], shape=(2, 0), dtype=float32)');
    expect(inspect(Tensor.zeros(0, { dtype: 'bool' }))).toBe('array([], dtype=bool)');
  });

  it('shows the fewest digits that tell the value, at most 8 after the point, ties to even', () => {
    expect(of([2 ** -6, 2 ** -9])).toBe('array([0.015625  , 0.00195312], dtype=float32)');
    expect(of([1.0664062, 0.23144531])).toBe('array([1.0664062 , 0.23144531], dtype=float32)');
    expect(of([2 ** -6], 'float16')).toBe('array([0.01563], dtype=float16)');
  });

  it('shows values that are not finite', () => {
    expect(of([NaN, -Infinity, 1])).toBe('array([ nan, -inf,   1.], dtype=float32)');
    expect(of([-0, Infinity])).toBe('array([-0., inf], dtype=float32)');
  });

  it('changes to exponents for large values and wide ranges', () => {
    expect(of([1e-10, 1])).toBe('array([1.e-10, 1.e+00], dtype=float32)');
    expect(of([0.1, 1234567])).toBe('array([1.000000e-01, 1.234567e+06], dtype=float32)');
    expect(of([0.1, 1000], 'float16')).toBe('array([1.e-01, 1.e+03], dtype=float16)');
    expect(of([47.3125, 2021, 0.001], 'float16')).toBe(
      'array([4.731e+01, 2.021e+03, 1.000e-03], dtype=float16)',
    );
    expect(of([1.5, 300], 'bfloat16')).toBe('array([1.5e+00, 3.0e+02], dtype=bfloat16)');
  });

  it('wraps rows at 75 columns', () => {
    const sevenths = Array.from({ length: 20 }, (_, i) => Math.fround(i) / 7);
    expect(of(sevenths)).toBe(`array([0.        , 0.14285715, 0.2857143 , 0.42857143, 0.5714286 ,
       0.71428573, 0.85714287, 1.        , 1.1428572 , 1.2857143 ,
       1.4285715 , 1.5714285 , 1.7142857 , 1.8571428 , 2.        ,
       2.142857  , 2.2857144 , 2.4285715 , 2.5714285 , 2.7142856 ],
      dtype=float32)`);
  });

  it('puts blank lines between matrices', () => {
    expect(inspect(Tensor.arange([2, 3, 4], { dtype: 'uint8' }))).toBe(`array([[[ 0,  1,  2,  3],
        [ 4,  5,  6,  7],
        [ 8,  9, 10, 11]],

       [[12, 13, 14, 15],
        [16, 17, 18, 19],
        [20, 21, 22, 23]]], dtype=uint8)`);
  });

  it('elides long axes beyond 1000 elements', () => {
    expect(inspect(Tensor.arange(1000)).includes('...')).toBe(false);
    expect(inspect(Tensor.arange(1001))).toBe(
      'array([   0.,    1.,    2., ...,  998.,  999., 1000.],\n      shape=(1001,), dtype=float32)',
    );
    expect(inspect(Tensor.arange([30, 2, 20], { dtype: 'int32' }))).toBe(`\
array([[[   0,    1,    2, ...,   17,   18,   19],
        [  20,   21,   22, ...,   37,   38,   39]],

       [[  40,   41,   42, ...,   57,   58,   59],
        [  60,   61,   62, ...,   77,   78,   79]],

       [[  80,   81,   82, ...,   97,   98,   99],
        [ 100,  101,  102, ...,  117,  118,  119]],

       ...,

       [[1080, 1081, 1082, ..., 1097, 1098, 1099],
        [1100, 1101, 1102, ..., 1117, 1118, 1119]],

       [[1120, 1121, 1122, ..., 1137, 1138, 1139],
        [1140, 1141, 1142, ..., 1157, 1158, 1159]],

       [[1160, 1161, 1162, ..., 1177, 1178, 1179],
        [1180, 1181, 1182, ..., 1197, 1198, 1199]]],
      shape=(30, 2, 20), dtype=int32)`);
  });

  it('prints a view by its elements, and inside other objects', () => {
    expect(inspect(Tensor.arange([2, 2]).transpose(0, 1))).toBe(
      'array([[0., 2.],\n       [1., 3.]], dtype=float32)',
    );
    expect(inspect({ q: Tensor.arange(2) })).toBe('{ q: array([0., 1.], dtype=float32) }');
  });

  it('does not throw for a detached buffer', () => {
    const x = Tensor.arange([2, 3]);
    structuredClone(x.data.buffer, { transfer: [x.data.buffer as ArrayBuffer] });
    expect(inspect(x)).toBe('array(<detached>, shape=(2, 3), dtype=float32)');
  });
});

it('printing shows what can be shown of a huge empty tensor, and of one with many axes', () => {
  expect(`${Tensor.zeros([2 ** 40, 0])}`).toBe('array([], shape=(1099511627776, 0), dtype=float32)');
  const many = new Tensor(new Float32Array(1), new Array(40).fill(2), { strides: new Array(40).fill(0) });
  expect(`${many}`).toContain('of too many axes');
});
