import { runInNewContext } from 'node:vm';
import { describe, expect, it } from 'vitest';
import { DTypeError, OptionError, type SdpaError, ShapeError } from '../../lib/errors.ts';
import { Tensor } from '../../lib/tensor.ts';
import { asTensor } from '../../lib/tensor-like.ts';

const as = (value: unknown): Tensor => asTensor('attention', 'q', value);

/** As onnxruntime-common's Tensor: fields behind accessors of a class. */
class OrtTensor {
  readonly #data: unknown;
  readonly type: string;
  readonly dims: readonly number[];
  readonly location = 'cpu';
  constructor(type: string, data: unknown, dims: readonly number[]) {
    this.type = type;
    this.#data = data;
    this.dims = dims;
  }
  get data(): unknown {
    return this.#data;
  }
}

/**
 * As Transformers.js' Tensor: a Proxy around an object that wraps an OrtTensor, which takes integers for
 * rows.
 */
const proxied = (inner: OrtTensor): unknown =>
  new Proxy(inner, {
    get: (target, key) => {
      if (typeof key === 'string' && Number.isInteger(Number(key))) throw new Error('a row was read');
      const value = Reflect.get(target, key, target);
      return typeof value === 'function' ? value.bind(target) : value;
    },
  });

describe('asTensor', () => {
  it('returns a Tensor as it is', () => {
    const x = Tensor.zeros([2]).slice(0, 1);
    expect(as(x)).toBe(x);
  });

  it('wraps tensors of other libraries without a copy', () => {
    const cases = [
      ['float32', new Float32Array(6)],
      ['float16', new Uint16Array(6)],
      ['bfloat16', new Uint16Array(6)],
      ['bool', new Uint8Array(6)],
      ['uint8', new Uint8Array(6)],
      ['int8', new Int8Array(6)],
      ['int32', new Int32Array(6)],
    ] as const;
    for (const [type, data] of cases) {
      const ort = new OrtTensor(type, data, [2, 3]);
      for (const value of [ort, proxied(ort), { data, shape: [2, 3], dtype: type }]) {
        const x = as(value);
        expect([x.dtype, x.shape, x.strides]).toEqual([type, [2, 3], [3, 1]]);
        expect(x.data).toBe(data);
      }
    }
  });

  it('takes strides, with the offset they start from', () => {
    const data = Float32Array.from({ length: 8 }, (_, i) => i);
    const x = as({ data, dims: [2, 3], type: 'float32', strides: [1, 2], offset: 1 });
    expect(x.toArray()).toEqual([
      [1, 3, 5],
      [2, 4, 6],
    ]);
    // A Tensor of another copy of this package is no instance of this one's class.
    expect(as({ ...Tensor.arange([4, 2]).slice(0, 1, 3).transpose(0, 1) }).toArray()).toEqual([
      [2, 4],
      [3, 5],
    ]);
    // Without strides an offset has no meaning that libraries agree on.
    expect(as({ data, dims: [8], type: 'float32', offset: 3 }).at(0)).toBe(0);
    expect(() => as({ data, dims: [2], type: 'float32', offset: 3 })).toThrow(
      /needs 2 elements, but data holds 8/,
    );
  });

  it('takes dims of any list type and typed arrays of another realm', () => {
    const foreign = runInNewContext('({ data: new Float32Array(4), dims: [2, 2], type: "float32" })');
    expect(as(foreign).shape).toEqual([2, 2]);
    expect(as({ data: new Float32Array(4), dims: Int32Array.of(2, 2), type: 'float32' }).shape).toEqual([
      2, 2,
    ]);
  });

  it('reads each property once', () => {
    const reads: string[] = [];
    const fields: Record<string, unknown> = {
      data: new Float32Array(4),
      dims: [2, 2],
      type: 'float32',
      strides: [2, 1],
      offset: 0,
    };
    const dims = new Proxy([2, 2], {
      get: (list, key) => {
        reads.push(`dims.${String(key)}`);
        return Reflect.get(list, key);
      },
    });
    as(
      new Proxy(
        { ...fields, dims },
        {
          get: (target, key) => {
            reads.push(String(key));
            return Reflect.get(target, key);
          },
        },
      ),
    );
    expect(new Set(reads).size).toBe(reads.length);
    expect(reads).toEqual(
      expect.arrayContaining(['data', 'dims', 'type', 'dims.length', 'dims.0', 'dims.1']),
    );
  });

  it('passes on what a getter throws', () => {
    const gone = new Error('the tensor is disposed');
    const value = {
      dims: [1],
      type: 'float32',
      get data(): never {
        throw gone;
      },
    };
    expect(() => as(value)).toThrow(gone);
    const { proxy, revoke } = Proxy.revocable({}, {});
    revoke();
    expect(() => as(proxy)).toThrow(TypeError);
  });

  it('refuses fields that lie, and names caller, argument and remedy', () => {
    const data = new Float32Array(4);
    const cases: [unknown, new (message: string) => SdpaError, RegExp][] = [
      [{ data, dims: [5], type: 'float32' }, ShapeError, /attention: q.*\[5\] needs 5 elements.*holds 4/],
      [{ data, dims: [-1], type: 'float32' }, ShapeError, /non-negative/],
      [{ data, dims: [2 ** 40, 2 ** 40], type: 'float32' }, ShapeError, /2\^53/],
      [{ data, dims: 'ab', type: 'float32' }, ShapeError, /list of integers/],
      [{ data, dims: { length: 1, 0: 4 }, type: 'float32' }, ShapeError, /list of integers/],
      [{ data, dims: [2, 2], type: 'float32', strides: [4, 1] }, ShapeError, /reaches elements 0 to 5/],
      [{ data, dims: [2, 2], type: 'float32', strides: [2] }, ShapeError, /one entry for each axis/],
      [{ data, dims: [1], type: 'float32', strides: [1], offset: -1 }, OptionError, /offset/],
      [{ data, dims: [4], type: 'int8' }, DTypeError, /attention: q: data is a Float32Array/],
      [{ data, dims: [4] }, DTypeError, /neither type nor dtype/],
      [{ data, dims: [4], type: 'complex64' }, DTypeError, /unknown dtype 'complex64'/],
      [{ data, dims: [4], type: 'constructor' }, DTypeError, /unknown dtype/],
      [{ data, dims: [4], type: {} }, DTypeError, /unknown dtype an object/],
      [{ data: ['a'], dims: [1], type: 'string' }, DTypeError, /unknown dtype 'string'/],
      [{ data: [1, 2], dims: [2], type: 'float32' }, DTypeError, /must be a typed array; got an array/],
      [{ data: () => data, dims: [2], type: 'float32' }, DTypeError, /got a function/],
      [{ data: new Float64Array(2), dims: [2], type: 'float32' }, DTypeError, /Tensor\.from.*float32/],
      [{ data: new Float64Array(2), dims: [2], type: 'float64' }, DTypeError, /Tensor\.from.*float32/],
      [{ data: new BigInt64Array(2), dims: [2], type: 'int64' }, DTypeError, /int64.*Tensor\.from.*int32/],
      [new Float64Array(2), DTypeError, /attention: q must be a Tensor.*Float64Array.*Tensor\.from.*float32/],
      [[[1, 2]], DTypeError, /Tensor\.from/],
      [null, DTypeError, /got null/],
      [undefined, DTypeError, /got undefined/],
      [7n, DTypeError, /got 7/],
      [Symbol('q'), DTypeError, /Symbol/],
      [{}, DTypeError, /got an object/],
      [new Proxy(data, {}), DTypeError, /must be a Tensor/],
      ['x'.repeat(1000), DTypeError, /^.{0,300}$/],
    ];
    for (const [value, type, message] of cases) {
      expect(() => as(value)).toThrow(type);
      expect(() => as(value)).toThrow(message);
    }
  });

  it('says of a detached buffer that it is detached', () => {
    const x = Tensor.zeros([2]);
    const ort = new OrtTensor('float32', x.data, [2]);
    structuredClone(x.data.buffer, { transfer: [x.data.buffer as ArrayBuffer] });
    for (const value of [x, ort]) expect(() => as(value)).toThrow(/attention: q.*detached/);
  });

  it('refuses a Tensor whose resizable buffer has shrunk', () => {
    // Node has resizable buffers; the types of ES2023 do not.
    const Resizable = ArrayBuffer as unknown as new (bytes: number, options: object) => ArrayBuffer;
    const buffer = new Resizable(16, { maxByteLength: 16 });
    const x = new Tensor(new Float32Array(buffer), [4]);
    (buffer as unknown as { resize: (bytes: number) => void }).resize(8);
    expect(() => as(x)).toThrow('attention: q [4] needs 4 elements, but data holds 2');
  });
});
