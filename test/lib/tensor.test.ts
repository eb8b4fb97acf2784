import { describe, expect, it } from 'vitest';
import { DTYPES, type DType } from '../../lib/dtype.ts';
import { CapacityError, DTypeError, OptionError, SdpaError, ShapeError } from '../../lib/errors.ts';
import { lastAxisContiguous, Tensor } from '../../lib/tensor.ts';
import { sameMemory } from '../../lib/tensor-memory.ts';

const detach = (buffer: ArrayBufferLike): void => {
  structuredClone(buffer, { transfer: [buffer as ArrayBuffer] });
};

describe('new Tensor', () => {
  it('puts a shape on data without a copy', () => {
    const data = new Float32Array(6);
    const x = new Tensor(data, [2, 3]);
    expect(x.data).toBe(data);
    expect({ ...x }).toEqual({ data, shape: [2, 3], strides: [3, 1], offset: 0, dtype: 'float32', size: 6 });
    expect([x.rank, x.byteLength, x.isContiguous]).toEqual([2, 24, true]);
    expect(Object.isFrozen(x.shape) && Object.isFrozen(x.strides)).toBe(true);
  });

  it('keeps its shape when the caller changes the list', () => {
    const shape = [2, 3];
    const x = new Tensor(new Float32Array(6), shape);
    shape[0] = 99;
    expect(x.shape).toEqual([2, 3]);
  });

  it('takes the dtype from the array, and demands it where an array holds either of two', () => {
    expect(new Tensor(new Int8Array(1), 1).dtype).toBe('int8');
    expect(new Tensor(new Uint8Array(1), 1).dtype).toBe('uint8');
    expect(new Tensor(new Uint8Array(1), 1, { dtype: 'bool' }).dtype).toBe('bool');
    expect(new Tensor(new Int32Array(1), 1).dtype).toBe('int32');
    expect(new Tensor(new Uint16Array(1), 1, { dtype: 'bfloat16' }).dtype).toBe('bfloat16');
    expect(() => new Tensor(new Uint16Array(1), 1)).toThrow(/dtype 'float16' or dtype 'bfloat16'/);
  });

  it('refuses what no dtype is stored in, and names the remedy', () => {
    const make = (data: unknown, dtype?: unknown) => () =>
      new Tensor(data as never, 1, { dtype: dtype as never });
    expect(make(new Float64Array(1))).toThrow(DTypeError);
    expect(make(new Float64Array(1))).toThrow(/Float64Array.*Tensor\.from.*float32/);
    expect(make(new BigInt64Array(1))).toThrow(/Tensor\.from/);
    expect(make([1])).toThrow(/Tensor\.from/);
    expect(make(undefined)).toThrow(DTypeError);
    expect(make(new DataView(new ArrayBuffer(4)))).toThrow(DTypeError);
    expect(make(new Float32Array(1), 'float16')).toThrow(/stored in Uint16Array/);
    expect(make(new Uint8Array(1), 'int8')).toThrow(DTypeError);
    expect(make(new Float32Array(1), 'float8')).toThrow(/must be one of/);
    expect(make(new Float32Array(1), null)).toThrow(DTypeError);
  });

  // Runs where the runtime has the class (Node 24).
  const Float16 = (globalThis as { Float16Array?: new (values: number[]) => ArrayBufferView }).Float16Array;
  it.skipIf(Float16 === undefined)('sees a Float16Array as float16 over the same memory', () => {
    const data = new Float16!([1, 2.5]);
    const x = new Tensor(data as never, [2]);
    expect([x.dtype, x.toArray(), x.data.buffer === data.buffer]).toEqual(['float16', [1, 2.5], true]);
    detach(data.buffer);
    expect(() => new Tensor(data as never, [2])).toThrow(/detached/);
  });

  it('refuses shapes that do not fit', () => {
    const make =
      (shape: unknown, options = {}) =>
      () =>
        new Tensor(new Float32Array(6), shape as never, options);
    expect(make([2, 2])).toThrow(/\[2, 2\] needs 4 elements, but data holds 6; .*data\.subarray\(0, 4\)/);
    expect(make([0])).toThrow(ShapeError);
    expect(make([2, 2], { offset: 0 })).not.toThrow(); // a view of a part
    expect(make([2, 2], { strides: [2, 1] })).not.toThrow();
    expect(make([2, 4])).toThrow('Tensor: shape [2, 4] needs 8 elements, but data holds 6');
    for (const shape of [[-1], [1.5], [NaN], ['2'], [2 ** 53], 'x', null, undefined, {}, [undefined], [2n]]) {
      expect(make(shape)).toThrow(ShapeError);
    }
    expect(make(new Array(65).fill(1))).toThrow(/at most 64/);
    expect(make([2 ** 30, 2 ** 30])).toThrow(/2\^53/);
    expect(make([2 ** 30, 0, 2 ** 30])).toThrow(/2\^53/);
    expect(make([6], { offset: 1 })).toThrow(/from offset 1/);
    expect(make([2, 3], { strides: [1] })).toThrow(/one entry for each axis/);
    expect(make([2, 3], { strides: [4, 1] })).toThrow(/elements 0 to 6.*holds 6/);
    expect(make([2, 3], { strides: [3, -1] })).toThrow(/elements -2 to 3/);
    expect(make([2, 3], { strides: [3, 0.5] })).toThrow(ShapeError);
    for (const offset of [-1, 0.5, NaN, '0']) expect(make([1], { offset })).toThrow(OptionError);
  });

  it('takes any strides that stay inside data: reversed, overlapping, broadcast', () => {
    const data = Float32Array.from({ length: 6 }, (_, i) => i);
    expect(new Tensor(data, [6], { strides: [-1], offset: 5 }).toArray()).toEqual([5, 4, 3, 2, 1, 0]);
    expect(new Tensor(data, [4, 3], { strides: [1, 1] }).at(3, 2)).toBe(5);
    expect(new Tensor(data, [2, 2, 2], { strides: [0, 3, 0] }).toArray()).toEqual([
      [
        [0, 0],
        [3, 3],
      ],
      [
        [0, 0],
        [3, 3],
      ],
    ]);
    expect(new Tensor(data, [2 ** 50], { strides: [0] }).size).toBe(2 ** 50);
  });

  it('refuses misspelt options with the nearest name', () => {
    const make = (options: unknown) => () => new Tensor(new Float32Array(1), [1], options as never);
    expect(make({ stride: [1] })).toThrow("Tensor: unknown option 'stride'; did you mean 'strides'?");
    expect(make({ zzzzzzzz: 1 })).toThrow(/known are dtype, strides, offset/);
    expect(make(null)).toThrow(OptionError);
    expect(make('float32')).toThrow(OptionError);
  });

  it('takes shared memory', () => {
    const x = new Tensor(new Float32Array(new SharedArrayBuffer(8)), [2]);
    expect(x.toArray()).toEqual([0, 0]);
  });

  it('says of a detached buffer that it is detached, at construction and later', () => {
    const data = new Float32Array(4);
    const x = new Tensor(data, [2, 2]);
    detach(data.buffer);
    const uses = [
      () => new Tensor(data, [4]),
      () => x.at(0, 0),
      () => x.toArray(),
      () => x.contiguous(),
      () => x.to('float16'),
    ];
    for (const use of uses) {
      expect(use).toThrow(ShapeError);
      expect(use).toThrow(/detached/);
    }
    expect(new Tensor(data, [0]).size).toBe(0);
  });
});

describe('makers', () => {
  it('makes tensors of every dtype', () => {
    for (const dtype of Object.keys(DTYPES) as DType[]) {
      for (const x of [Tensor.zeros([2, 3], { dtype }), Tensor.empty([2, 3], { dtype })]) {
        expect([x.dtype, x.shape, x.size, x.byteLength]).toEqual([dtype, [2, 3], 6, x.data.byteLength]);
      }
      expect(Tensor.full([2], 1, { dtype }).toFloat32Array()).toEqual(new Float32Array([1, 1]));
      const one = dtype === 'bool' ? [0, 1, 1] : [0, 1, 2];
      expect([...Tensor.arange(3, { dtype }).toFloat32Array()]).toEqual(one);
    }
    expect(Tensor.arange([2, 2]).toArray()).toEqual([
      [0, 1],
      [2, 3],
    ]);
    expect(Tensor.zeros([]).toArray()).toBe(0);
    expect(Tensor.full([1], true, { dtype: 'bool' }).toArray()).toEqual([true]);
    // A mask, as in NumPy and PyTorch, and as Tensor.from(true).
    expect([Tensor.full([1], true).dtype, Tensor.full([1], false, { dtype: 'int8' }).dtype]).toEqual([
      'bool',
      'int8',
    ]);
  });

  it('draws normal numbers for float dtypes', () => {
    expect(Tensor.randn([4], { seed: 3 }).toArray()).toEqual(Tensor.randn([4], { seed: 3 }).toArray());
    expect(Tensor.randn([4]).toArray()).not.toEqual(Tensor.randn([4]).toArray());
    const half = Tensor.randn([64], { seed: 3, dtype: 'bfloat16' });
    expect(half.toArray()).toEqual(Tensor.randn([64], { seed: 3 }).to('bfloat16').toArray());
    expect(() => Tensor.randn([4], { dtype: 'int8' })).toThrow(DTypeError);
    expect(() => Tensor.randn([4], { seed: 0.5 })).toThrow(OptionError);
  });

  it('refuses bad arguments with a typed error', () => {
    expect(() => Tensor.zeros([-1])).toThrow(
      'Tensor.zeros: shape must hold non-negative integers; entry 0 is -1',
    );
    expect(() => Tensor.zeros([2 ** 40])).toThrow(CapacityError);
    expect(() => Tensor.zeros([2], { dtyp: 'int8' } as never)).toThrow("did you mean 'dtype'?");
    expect(() => Tensor.full([2], '1' as never)).toThrow(OptionError);
    expect(() => Tensor.from([1], { dtype: 'f32' as never })).toThrow(DTypeError);
  });
});

describe('Tensor.from', () => {
  it('reads nested arrays, float32 for numbers and bool for booleans', () => {
    const x = Tensor.from([
      [1, 2, 3],
      [4, 5, 6],
    ]);
    expect([x.dtype, x.shape, [...x.data]]).toEqual(['float32', [2, 3], [1, 2, 3, 4, 5, 6]]);
    expect(Tensor.from([[true], [false]]).dtype).toBe('bool');
    expect(Tensor.from([[true], [false]]).toArray()).toEqual([[true], [false]]);
    expect(Tensor.from([true, 2]).toArray()).toEqual([1, 2]);
    expect(Tensor.from([1, 2n], { dtype: 'int32' }).toArray()).toEqual([1, 2]);
    expect(Tensor.from([new Float64Array([1, 2]), [3, 4]]).shape).toEqual([2, 2]);
    expect([Tensor.from(3).shape, Tensor.from([]).shape, Tensor.from([[], []]).shape]).toEqual([
      [],
      [0],
      [2, 0],
    ]);
  });

  it('converts arrays that no dtype is stored in', () => {
    const x = Tensor.from(new Float64Array([0.1, 2]));
    expect([x.dtype, x.toArray()]).toEqual(['float32', [Math.fround(0.1), 2]]);
    expect(Tensor.from(new BigInt64Array([3n, -4n])).dtype).toBe('int32');
    expect(Tensor.from(new Float64Array([1 + 2 ** -11 + 2 ** -40]), { dtype: 'float16' }).at(0)).toBe(
      1 + 2 ** -10,
    );
    expect(Tensor.from({ data: new Float64Array(4), dims: [2, 2], type: 'float64' }).dtype).toBe('float32');
    const ids = Tensor.from({ data: new BigInt64Array([1n, 2n]), dims: [2], type: 'int64' });
    expect([ids.dtype, ids.toArray()]).toEqual(['int32', [1, 2]]);
  });

  it('shares memory where nothing is converted', () => {
    const data = new Float32Array(4);
    expect(Tensor.from(data).data).toBe(data);
    expect(Tensor.from({ data, dims: [2, 2], type: 'float32' }).data).toBe(data);
    expect(Tensor.from(Tensor.zeros([2, 2]).transpose(0, 1)).strides).toEqual([1, 2]);
    expect(Tensor.from(new Tensor(data, [4]), { dtype: 'float16' }).dtype).toBe('float16');
  });

  it('shows where a nesting is ragged or holds no number', () => {
    const from = (value: unknown) => () => Tensor.from(value);
    expect(from([[1, 2], [3]])).toThrow(/rectangular; element \[1\] has length 1.*shape is \[2, 2\]/);
    expect(from([1, [2]])).toThrow(/element \[1\] is an array/);
    expect(from([[1], 2])).toThrow(/element \[1\] is 2/);
    expect(from([[[1]], [[2], [3]]])).toThrow(/element \[1\] has length 2/);
    expect(from([[1], ['2']])).toThrow(/element \[1, 0\] must be a number or a boolean; got '2'/);
    expect(from([1, null])).toThrow(DTypeError);
    expect(from(new Array(2))).toThrow(DTypeError);
    expect(from('abc')).toThrow(DTypeError);
    expect(from({ a: 1 })).toThrow(DTypeError);
    expect(from(new Uint16Array(2))).toThrow(/float16.*bfloat16/);
    const cyclic: unknown[] = [];
    cyclic.push(cyclic);
    expect(from(cyclic)).toThrow(ShapeError);
  });
});

describe('reading', () => {
  it('indexes from both ends, for exactly as many axes as there are', () => {
    const x = Tensor.arange([2, 3]);
    expect([x.at(0, 0), x.at(1, 2), x.at(-1, -3)]).toEqual([0, 5, 3]);
    expect(Tensor.full([], 7).at()).toBe(7);
    expect(Tensor.from([true, false]).at(0)).toBe(1);
    for (const index of [[2, 0], [0, -4], [0], [0, 0, 0], [0.5, 0], [NaN, 0], ['0', 0], []]) {
      expect(() => x.at(...(index as number[]))).toThrow(ShapeError);
    }
    expect(() => x.at(0, 3)).toThrow('at: index 3 is not on axis 1 of length 3; shape [2, 3]');
  });

  it('hands results over in a form that new ort.Tensor takes: data exactly size long', () => {
    const x = Tensor.arange([4, 2]).slice(0, 1, 3);
    expect(x.contiguous().data).toEqual(new Float32Array([2, 3, 4, 5]));
    expect(sameMemory(x.contiguous(), x)).toBe(true);
    expect(x.transpose(0, 1).contiguous().data).toEqual(new Float32Array([2, 4, 3, 5]));
    const whole = Tensor.arange([2, 2]);
    expect(whole.contiguous()).toBe(whole);
  });

  it('copies where it says so', () => {
    const x = Tensor.arange([2, 2]);
    for (const copy of [x.clone(), x.to('float32'), new Tensor(x.toFloat32Array(), [2, 2])]) {
      expect(sameMemory(copy, x)).toBe(false);
      expect(copy.toArray()).toEqual(x.toArray());
    }
  });
});

describe('sameMemory', () => {
  it('compares the bytes that are reached', () => {
    const buffer = new ArrayBuffer(64);
    const a = new Tensor(new Float32Array(buffer, 0, 8), [8]);
    const b = new Tensor(new Float32Array(buffer, 32, 8), [8]);
    expect(sameMemory(a, a)).toBe(true);
    expect([sameMemory(a, b), sameMemory(b, a)]).toEqual([false, false]);
    expect(sameMemory(a, new Tensor(new Uint8Array(buffer, 31, 1), [1]))).toBe(true);
    expect(sameMemory(a, new Tensor(new Uint8Array(buffer, 32, 1), [1]))).toBe(false);
    expect(sameMemory(a.slice(0, 0, 4), a.slice(0, 4))).toBe(false);
    expect(sameMemory(a.slice(0, 0, 5), a.slice(0, 4))).toBe(true);
    expect(sameMemory(a.slice(0, 2, 2), a)).toBe(false);
    const reversed = new Tensor(a.data, [4], { strides: [-1], offset: 3 });
    expect(sameMemory(reversed, a.slice(0, 0, 1))).toBe(true);
    expect(sameMemory(reversed, a.slice(0, 4))).toBe(false);
    expect(sameMemory(a, a.clone())).toBe(false);
  });
});

describe('lastAxisContiguous', () => {
  it('holds for stride 1, and where there is at most one element on the axis', () => {
    const x = Tensor.zeros([2, 3, 4]);
    expect(lastAxisContiguous(x.transpose(0, 1))).toBe(true);
    expect(lastAxisContiguous(x.transpose(1, 2))).toBe(false);
    expect(lastAxisContiguous(x.transpose(0, 2).slice(2, 0, 1))).toBe(true);
    expect(lastAxisContiguous(x.transpose(1, 2).slice(0, 0, 0))).toBe(true);
    expect(lastAxisContiguous(Tensor.zeros([]))).toBe(true);
  });
});

describe('errors', () => {
  it('are all SdpaError with a stable code', () => {
    const thrown = (use: () => unknown): unknown => {
      try {
        return use();
      } catch (error) {
        return error;
      }
    };
    const error = thrown(() => Tensor.zeros([-1])) as SdpaError;
    expect(error).toBeInstanceOf(SdpaError);
    expect([error.code, error.name]).toEqual(['ERR_SHAPE', 'ShapeError']);
  });
});
