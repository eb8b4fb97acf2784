import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import type { ReadableFile } from '../../../lib/byte-file.ts';
import { DTYPES, type DType } from '../../../lib/dtype.ts';
import { CapacityError, DTypeError, OptionError, SdpaError, ShapeError } from '../../../lib/errors.ts';
import { readNpy, readNpyFrom, writeNpy, writeNpyTo } from '../../../lib/formats/npy.ts';
import { Tensor } from '../../../lib/tensor.ts';
import { MemoryFile } from './memory-file.ts';
import { type PythonFile, pythonFile } from './python-files.ts';

const VALUES = [
  [1.5, -2, 0.25],
  [Infinity, -0, NaN],
];
const COUNTS = [
  [0, 1, 2],
  [3, 4, 5],
];
const DTYPE_NAMES = Object.keys(DTYPES) as DType[];

/** A file with this text in its header, and that many bytes of elements. */
function npyOf(text: string, dataBytes: number, version = 1): Uint8Array {
  const head = new TextEncoder().encode(text);
  const length =
    version === 1 ? [head.length & 255, head.length >> 8] : [head.length & 255, head.length >> 8, 0, 0];
  return Uint8Array.of(
    0x93,
    0x4e,
    0x55,
    0x4d,
    0x50,
    0x59,
    version,
    0,
    ...length,
    ...head,
    ...new Uint8Array(dataBytes),
  );
}
const headerOf = (shape: string, descr = "'<f4'", fortran = 'False'): string =>
  `{'descr': ${descr}, 'fortran_order': ${fortran}, 'shape': ${shape}, }\n`;

describe('files that NumPy wrote', () => {
  test.each(DTYPE_NAMES)('%s is read, and written byte for byte the same', (dtype) => {
    const bytes = pythonFile(dtype);
    const tensor = readNpy(bytes, dtype === 'bfloat16' ? { dtype } : {});
    expect(tensor.dtype).toBe(dtype);
    const expected = dtype === 'bool' ? COUNTS.map((row) => row.map(Boolean)) : COUNTS;
    expect(tensor.toArray()).toEqual(DTYPES[dtype].isFloat ? VALUES : expected);
    expect(tensor.data.buffer).toBe(bytes.buffer);
    expect(writeNpy(tensor)).toEqual(bytes);
  });

  test.each(['scalar', 'empty'] as const)('%s', (name) => {
    const tensor = readNpy(pythonFile(name));
    expect([tensor.dtype, tensor.shape]).toEqual(name === 'scalar' ? ['float32', []] : ['float16', [0, 4]]);
    expect(tensor.toArray()).toEqual(name === 'scalar' ? 3 : []);
    expect(writeNpy(tensor)).toEqual(pythonFile(name));
  });

  test.each(['version2', 'version3', 'bigFloat32', 'bigFloat16', 'fortranBig'] as const)('%s', (name) => {
    expect(readNpy(pythonFile(name)).toArray()).toEqual(COUNTS);
  });

  test('Fortran order is a strided view', () => {
    const bytes = pythonFile('fortran');
    const tensor = readNpy(bytes);
    expect(tensor.toArray()).toEqual(Tensor.arange([2, 3, 4]).toArray());
    expect(tensor.strides).toEqual([1, 2, 6]);
    expect(tensor.data.buffer).toBe(bytes.buffer);
    expect(readNpy(writeNpy(tensor)).strides).toEqual([12, 4, 1]);
  });

  test.each(['float64', 'int64', 'uint64', 'uint32', 'int16', 'uint16', 'bigFloat64'] as const)(
    '%s is refused with the remedy, and converted where that is asked for',
    (name) => {
      expect(() => readNpy(pythonFile(name))).toThrow(DTypeError);
      expect(() => readNpy(pythonFile(name))).toThrow(/dtype: '.*astype\(np\./);
      const tensor = readNpy(pythonFile(name), { dtype: 'float32' });
      expect(tensor.toArray()).toEqual(name === 'float64' ? VALUES : COUNTS);
    },
  );

  test('bfloat16 has no name in NumPy and must be asked for', () => {
    expect(() => readNpy(pythonFile('bfloat16'))).toThrow(/dtype: 'bfloat16'/);
    expect(() => readNpy(pythonFile('bfloat16'), { dtype: 'float32' })).toThrow(DTypeError);
  });

  test.each(['records', 'complex', 'float8'] as const)('%s are refused', (name) => {
    expect(() => readNpy(pythonFile(name))).toThrow(DTypeError);
  });
});

describe('headers', () => {
  test.each([
    ["{'descr':'<f4','fortran_order':False,'shape':(2,3)}", [2, 3]],
    ['{"shape": (2 , 3L) , "fortran_order" : False, "descr": "<f4"}   \n', [2, 3]],
    ["  {'descr': 'f4', 'fortran_order': False, 'shape': (6,), }", [6]],
    ["{'descr': '=f4', 'fortran_order': True, 'shape': (1, 6)}", [1, 6]],
  ])('%s', (text, shape) => {
    expect(readNpy(npyOf(text, 24)).shape).toEqual(shape);
    expect(readNpy(npyOf(text, 24, 2)).shape).toEqual(shape);
  });

  test.each([
    ['', /'\{' belongs/],
    ['{}', /no keys/],
    ["{'descr': '<f4', 'fortran_order': False}", /'fortran_order'$/],
    [headerOf('(1,)').replace('}', "'more': True}"), /'more'/],
    [headerOf('(1,)').replace('}', "'shape': (1,)}"), /'shape' twice/],
    [headerOf('(1)'), /',' belongs/],
    [headerOf('[1]'), /records/],
    [headerOf('(,)'), /integer/],
    [headerOf('(1.0,)'), /integer/],
    [headerOf('(True,)'), /integer/],
    [headerOf('(01,)'), /integer/],
    [headerOf('(-1,)'), /got -1/],
    [headerOf('(9007199254740992,)'), /2\^53/],
    [headerOf(`(${'9'.repeat(5000)},)`), /2\^53/],
    [headerOf(`(${'1,'.repeat(65)})`), /64 axes/],
    [headerOf('(4294967296, 4294967296)'), /2\^53 - 1 elements/],
    [headerOf('(9007199254740991,)'), /2\^53 - 1 bytes/],
    [headerOf('(1,)', "'|f4'"), /order of its 4 bytes/],
    [headerOf('(1,)', "'<f16'"), /astype/],
    [headerOf('(1,)', "'constructor'"), /astype/],
    [headerOf('(1,)', "'<f4' + ''"), /',' belongs/],
    [headerOf('(1,)', "'<f\\x34'"), /string/],
    [headerOf('(1,)', '1'), /string, True/],
    [headerOf('(1,)', "[('x', '<f4')]"), /records/],
    [headerOf('(1,)', "'<f4'", '0'), /string, True/],
    [headerOf('(1,)', "'<f4'", "'False'"), /neither True nor False/],
    [`${headerOf('(1,)')}x`, /end of the header/],
    [headerOf('(1,)', 'open("x")'), /string, True/],
  ])('%s is refused', (text, message) => {
    const bytes = npyOf(text, 4);
    expect(() => readNpy(bytes)).toThrow(message);
    expect(() => readNpy(bytes)).toThrow(SdpaError);
  });

  test('no number of bytes is a file but the right one', async () => {
    const whole = pythonFile('float32');
    for (let length = 0; length < whole.length; length++) {
      expect(() => readNpy(whole.slice(0, length))).toThrow(/truncated/);
      await expect(readNpyFrom(new MemoryFile(whole.slice(0, length)))).rejects.toThrow(/truncated/);
    }
    expect(() => readNpy(Uint8Array.of(...whole, 0))).toThrow(/153 bytes where its header tells of 152/);
  });

  test.each([
    [0, 0x92, /NUMPY/],
    [6, 4, /version 4\.0/],
    [6, 0, /version 0\.0/],
    [7, 1, /version 1\.1/],
    [9, 0xff, /header of 65\d+ bytes/],
  ])('byte %i of value %i is refused', (at, value, message) => {
    const bytes = pythonFile('float32');
    bytes[at] = value;
    expect(() => readNpy(bytes)).toThrow(message);
    expect(() => readNpy(bytes)).toThrow(OptionError);
  });

  test('a lying length takes no memory', async () => {
    const bytes = npyOf(headerOf('(1099511627776,)'), 4);
    expect(() => readNpy(bytes)).toThrow(/truncated/);
    await expect(readNpyFrom(new MemoryFile(bytes))).rejects.toThrow(/truncated/);
    // Of a pipe nobody knows the size.
    const pipe: ReadableFile = new MemoryFile(npyOf(headerOf('(1125899906842624,)'), 4));
    pipe.stat = async () => ({ size: 0, isFile: () => false });
    await expect(readNpyFrom(pipe)).rejects.toThrow(CapacityError);
  });
});

describe('bytes', () => {
  test('that are not aligned are copied', () => {
    const bytes = pythonFile('float32');
    const shifted = new Uint8Array(bytes.length + 1).subarray(1);
    shifted.set(bytes);
    const tensor = readNpy(shifted);
    expect(tensor.toArray()).toEqual(VALUES);
    expect(tensor.data.buffer).not.toBe(shifted.buffer);
  });

  test('may be a Buffer, or shared', () => {
    expect(readNpy(Buffer.from(pythonFile('float32'))).toArray()).toEqual(VALUES);
    const shared = new Uint8Array(new SharedArrayBuffer(152));
    shared.set(pythonFile('float32'));
    expect(readNpy(shared).toArray()).toEqual(VALUES);
  });

  test('that lie about themselves are not believed', () => {
    const bytes = pythonFile('float32');
    for (const name of ['length', 'byteLength', 'byteOffset', 'buffer'])
      Object.defineProperty(bytes, name, { value: 2 ** 40 });
    expect(readNpy(bytes).toArray()).toEqual(VALUES);
    const detached = pythonFile('float32');
    structuredClone(detached.buffer, { transfer: [detached.buffer as ArrayBuffer] });
    expect(() => readNpy(detached)).toThrow(/truncated: 0 of/);
  });

  test.each([undefined, null, 'x', [1], new ArrayBuffer(8), new Float32Array(2), {}])(
    '%s are none',
    (value) => {
      expect(() => readNpy(value as Uint8Array)).toThrow(OptionError);
    },
  );

  test('options are checked', () => {
    const read = (options: object) => () => readNpy(pythonFile('float32'), options);
    expect(read({ dtpe: 'float32' })).toThrow(/did you mean 'dtype'/);
    expect(read({ dtype: 'float64' })).toThrow(DTypeError);
    expect(read({ dtype: 'int8' })().toArray()).toEqual([
      [1, -2, 0],
      [127, 0, 0],
    ]);
  });
});

describe('round trips', () => {
  test('of any dtype, shape and strides, through bytes and files', async () => {
    const shapes = fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 4 });
    await fc.assert(
      fc.asyncProperty(
        shapes,
        fc.constantFrom(...DTYPE_NAMES),
        fc.integer({ min: 1, max: 99 }),
        async (shape, dtype, most) => {
          const whole = Tensor.randn(shape, { seed: most }).to(dtype);
          const tensor = shape.length > 1 ? whole.transpose(0, -1).slice(0, 0, -1) : whole;
          const bytes = writeNpy(tensor);
          const file = new MemoryFile(new Uint8Array(0), most);
          await writeNpyTo(file, tensor);
          expect(file.bytes).toEqual(bytes);
          const back = readNpy(bytes, { dtype });
          expect(back.shape).toEqual(tensor.shape);
          expect(back.data.length === 0 ? [] : [...back.data]).toEqual([...tensor.contiguous().data]);
          const streamed = await readNpyFrom(new MemoryFile(bytes, most), { dtype });
          expect([...streamed.data]).toEqual([...back.data]);
        },
      ),
      { numRuns: 60 },
    );
  });

  test('several arrays in one real file; more than a piece, strided, converted, swapped', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'node-sdpa-'));
    try {
      const path = join(folder, 'arrays.npy');
      const large = Tensor.randn([3, 700_000], { seed: 1 });
      const file = await open(path, 'w');
      await writeNpyTo(file, large);
      await writeNpyTo(file, large.transpose(0, 1));
      await file.close();
      const bytes = await readFile(path);
      const middle = 128 + large.byteLength;
      expect(bytes.subarray(0, middle).equals(writeNpy(large))).toBe(true);
      expect(bytes.subarray(middle).equals(writeNpy(large.transpose(0, 1)))).toBe(true);
      const source = await open(path);
      const first = await readNpyFrom(source);
      const second = await readNpyFrom(source, { dtype: 'bfloat16' });
      await source.close();
      expect(Buffer.from(first.data.buffer).equals(Buffer.from(large.data.buffer))).toBe(true);
      expect([second.shape, second.at(699_999, 2)]).toEqual([
        [700_000, 3],
        large.to('bfloat16').at(2, 699_999),
      ]);
      const swapped = Buffer.from(writeNpy(large));
      swapped.subarray(128).swap32();
      swapped[swapped.indexOf('<')] = '>'.charCodeAt(0);
      const big = await readNpyFrom(new MemoryFile(swapped));
      expect(Buffer.from(big.data.buffer).equals(Buffer.from(large.data.buffer))).toBe(true);
    } finally {
      await rm(folder, { recursive: true });
    }
  });

  test('what is no tensor, or detached, is refused', async () => {
    expect(() => writeNpy([1] as unknown as Tensor)).toThrow(DTypeError);
    const tensor = Tensor.zeros([4]);
    structuredClone(tensor.data.buffer, { transfer: [tensor.data.buffer as ArrayBuffer] });
    expect(() => writeNpy(tensor)).toThrow(ShapeError);
    await expect(writeNpyTo(new MemoryFile(), tensor)).rejects.toThrow(ShapeError);
    await expect(writeNpyTo({} as MemoryFile, tensor)).rejects.toThrow(OptionError);
    await expect(readNpyFrom(null as unknown as MemoryFile)).rejects.toThrow(OptionError);
  });
});

test('every byte of a file may be wrong', () => {
  const names: PythonFile[] = ['float32', 'float64', 'fortran', 'version2', 'empty'];
  for (const name of names) {
    const whole = pythonFile(name);
    for (let at = 0; at < 128; at++)
      for (const value of [0, 0x27, 0x2d, 0x39, 0x7d, 0xff]) {
        const bytes = whole.slice();
        bytes[at] = value;
        try {
          readNpy(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(SdpaError);
        }
      }
  }
});
