import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import {
  bytesPerElement,
  checkDType,
  DTYPES,
  type DType,
  isDType,
  isFloatDType,
  typedArrayLengthOf,
  typedArrayName,
} from '../../lib/dtype.ts';
import { DTypeError } from '../../lib/errors.ts';

describe('dtype', () => {
  it('gives each dtype a typed array of its width', () => {
    for (const dtype of Object.keys(DTYPES) as DType[]) {
      const array = new DTYPES[dtype].arrayType(3);
      expect(array.BYTES_PER_ELEMENT).toBe(bytesPerElement(dtype));
      expect(typedArrayName(array)).toBe(DTYPES[dtype].arrayName);
    }
    expect(Object.keys(DTYPES).filter((dtype) => isFloatDType(dtype as DType))).toEqual([
      'float32',
      'float16',
      'bfloat16',
    ]);
  });

  it('takes no inherited property for a dtype', () => {
    for (const name of ['constructor', '__proto__', 'toString', '', 'Float32', 7, null, undefined]) {
      expect(isDType(name)).toBe(false);
      expect(() => checkDType('x', name)).toThrow(DTypeError);
    }
    expect(() => checkDType('Tensor', 'flaot32')).toThrow('Tensor: dtype must be one of float32, float16');
  });

  it('knows typed arrays by what they are, not by what they say', () => {
    class Mine extends Float32Array {}
    expect(typedArrayName(new Mine(2))).toBe('Float32Array');
    expect(typedArrayName(runInNewContext('new Float32Array(2)'))).toBe('Float32Array');
    expect(typedArrayName(Buffer.alloc(2))).toBe('Uint8Array');
    expect(typedArrayName({ [Symbol.toStringTag]: 'Float32Array' })).toBeUndefined();
    expect(typedArrayName(new Proxy(new Float32Array(2), {}))).toBeUndefined();
    expect(typedArrayName(new DataView(new ArrayBuffer(2)))).toBeUndefined();
    const liar = Object.defineProperty(new Float32Array(2), 'length', { value: 1e9 });
    expect(typedArrayLengthOf(liar)).toBe(2);
  });
});
