import { mkdtemp, open, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, test } from 'vitest';
import { DTYPES, type DType } from '../../../lib/dtype.ts';
import { DTypeError, OptionError, SdpaError, ShapeError } from '../../../lib/errors.ts';
import {
  type NamedTensors,
  readSafetensors,
  writeSafetensors,
  writeSafetensorsTo,
} from '../../../lib/formats/safetensors.ts';
import { openSafetensors } from '../../../lib/formats/safetensors-file.ts';
import { Tensor } from '../../../lib/tensor.ts';
import { MemoryFile } from './memory-file.ts';
import { pythonFile } from './python-files.ts';

const PROTO = '__proto__';
const DTYPE_NAMES = Object.keys(DTYPES) as DType[];

/** A file with that text in its header, and so many bytes of elements. */
function fileOf(header: string | Uint8Array, dataBytes: number, headerBytes?: bigint): Uint8Array {
  const head = typeof header === 'string' ? new TextEncoder().encode(header) : header;
  const bytes = new Uint8Array(8 + head.length + dataBytes);
  new DataView(bytes.buffer).setBigUint64(0, headerBytes ?? BigInt(head.length), true);
  bytes.set(head, 8);
  return bytes;
}
const entry = (shape: string, offsets: string, dtype = '"F32"'): string =>
  `{"dtype":${dtype},"shape":${shape},"data_offsets":${offsets}}`;

async function expectRefused(bytes: Uint8Array, message: RegExp): Promise<void> {
  expect(() => readSafetensors(bytes)).toThrow(message);
  expect(() => readSafetensors(bytes)).toThrow(SdpaError);
  const opening = openSafetensors(new MemoryFile(bytes));
  await expect(opening).rejects.toThrow(message);
  await expect(opening).rejects.toThrow(SdpaError);
}

describe('a file that the library of Hugging Face wrote', () => {
  const bytes = pythonFile('safetensors');

  test('is read in place', () => {
    const { tensors, metadata } = readSafetensors(bytes);
    const found = Object.entries(tensors).map(([name, t]) => [name, t.dtype, t.shape, t.toArray()]);
    expect(found).toEqual([
      [
        'a',
        'float32',
        [2, 2],
        [
          [1.5, 1.5],
          [1.5, 1.5],
        ],
      ],
      ['s', 'int32', [], 7],
      ['bf', 'bfloat16', [2], [1, 1]],
      ['z', 'float16', [0, 4], []],
      ['é😀', 'float16', [1], [1]],
      ['\uff5e"\\\n', 'float16', [1], [1]],
      ['b', 'int8', [3], [0, 1, 2]],
      ['u', 'uint8', [1], [1]],
      ['bo', 'bool', [2], [true, false]],
    ]);
    expect({ ...metadata }).toEqual({ k: 'v "\u2028' });
    for (const tensor of Object.values(tensors)) expect(tensor.data.buffer).toBe(bytes.buffer);
  });

  test('is written byte for byte the same, in any order of names', async () => {
    const { tensors, metadata } = readSafetensors(bytes);
    const reversed = Object.fromEntries(Object.entries(tensors).reverse());
    expect(writeSafetensors(reversed, metadata)).toEqual(bytes);
    const file = new MemoryFile(new Uint8Array(0), 7);
    await writeSafetensorsTo(file, tensors, metadata);
    expect(file.bytes).toEqual(bytes);
  });

  test('wide types are refused with the remedy, passed over, or converted', () => {
    const wide = pythonFile('safetensorsWide');
    expect(() => readSafetensors(wide)).toThrow(/'ids' is int64.*dtype: 'int32'/);
    expect(readSafetensors(wide, { names: ['w'] }).tensors.w.toArray()).toEqual([1, 1]);
    expect(readSafetensors(wide, { dtype: 'int32' }).tensors.ids.toArray()).toEqual([0, 1, 2]);
    expect(() => readSafetensors(wide, { names: ['idds'] })).toThrow(/did you mean 'ids'/);
    expect(() => readSafetensors(wide, { names: 'w' as unknown as string[] })).toThrow(OptionError);
    expect(() => readSafetensors(wide, { name: ['w'] } as object)).toThrow(/did you mean 'names'/);
  });
});

describe('headers', () => {
  test('with space, other orders and escapes', () => {
    const text = ' \n"shape" : [ 1 , 2 ] ,\t"data_offsets":[0, 8], "dtype":"F32" ';
    const file = fileOf(`{ "\\u0061\\n" :{${text}}\r , "__metadata__":{}}\n  `, 8);
    expect(readSafetensors(file).tensors['a\n'].shape).toEqual([1, 2]);
    expect(Object.keys(readSafetensors(fileOf('{}', 0)).tensors)).toEqual([]);
  });

  const one = entry('[1]', '[0,4]');
  test.each([
    ['', /begin with/],
    [' {}', /begin with/],
    ['\ufeff{}', /begin with/],
    ['[]', /begin with/],
    ['{', /string|belongs/],
    ['{}x', /end of the header/],
    [`{"a":${one},}`, /'"' belongs/],
    [`{"a":${one},"a":${one}}`, /'a' twice/],
    [`{"a":${one},"\\u0061":${one}}`, /'a' twice/],
    [`{"__metadata__":{},"__metadata__":{}}`, /'__metadata__' twice/],
    [`{"__metadata__":{"a":"1","a":"2"}}`, /'a' twice/],
    [`{"__metadata__":{"a":1}}`, /'"' belongs/],
    [`{"__metadata__":{"a":{"b":"c"}}}`, /'"' belongs/],
    [`{"__metadata__":[]}`, /'\{' belongs/],
    [`{"a":${one.replace('"dtype"', '"dtype":"F32","dtype"')}}`, /'dtype' twice/],
    [`{"a":${one.replace('}', ',"more":1}')}}`, /'more' beside/],
    ['{"a":{}}', /lacks/],
    [`{"a":${entry('[1]', '[0]')}}`, /lacks/],
    [`{"a":${entry('[1]', '[0,4,4]')}}`, /lacks/],
    [`{"a":${entry('[1]', '[0,4]', '"f32"')}}`, /unknown dtype 'f32'/],
    [`{"a":${entry('[1]', '[0,4]', '"__proto__"')}}`, /unknown dtype/],
    [`{"a":${entry('[1]', '[0,4]', '32')}}`, /'"' belongs/],
    [`{"a":${entry('1', '[0,4]')}}`, /'\[' belongs/],
    [`{"a":${entry('[-1]', '[0,4]')}}`, /whole numbers from 0/],
    [`{"a":${entry('[-0]', '[0,4]')}}`, /whole numbers from 0/],
    [`{"a":${entry('[1.0]', '[0,4]')}}`, /whole numbers from 0/],
    [`{"a":${entry('[1e0]', '[0,4]')}}`, /whole numbers from 0/],
    [`{"a":${entry('[01]', '[0,4]')}}`, /whole numbers from 0/],
    [`{"a":${entry('[9007199254740993]', '[0,4]')}}`, /whole numbers from 0/],
    [`{"a":${entry(`[${'9'.repeat(500)}]`, '[0,4]')}}`, /whole numbers from 0/],
    [`{"a":${entry(`[${'1,'.repeat(64)}1]`, '[0,4]')}}`, /64 entries/],
    [`{"a":${entry('[4294967296,4294967296]', '[0,4]')}}`, /2\^53 - 1 elements/],
    [`{"a":${entry('[9007199254740991]', '[0,4]')}}`, /bytes, but/],
    [`{"a":${entry('[2]', '[0,4]')}}`, /needs 8 bytes, but data_offsets \[0, 4\] hold 4/],
    [`{"a":${entry('[1]', '[4,0]')}}`, /hold -4/],
    [`{"a":${entry('[1]', '[0,1]', '"F4"')}}`, /needs 0\.5 bytes/],
    [`{"a":${entry('[1]', '[4,8]')}}`, /gap/],
    [`{"a":${one},"b":${one}}`, /overlap/],
    [`{"a":${one},"b":${entry('[1]', '[8,12]')}}`, /gap/],
    [`{"a":${one},"b":${entry('[1]', '[2,6]')}}`, /overlap/],
    [`{"a":${entry('[2]', '[0,8]')},"b":${entry('[0]', '[4,4]')}}`, /overlap/],
    ['{"a', /ends within a string/],
    ['{"a\\', /ends within a string/],
    ['{"a\n":{}}', /no JSON/],
    ['{"\\x":{}}', /no JSON/],
    ['{"\\ud800":{}}', /half a character/],
    [`${'{"a":'.repeat(100_000)}`, /beside dtype/],
    [`{"a":${entry('['.repeat(100_000), '[0,4]')}}`, /whole number' belongs|a whole number belongs/],
  ])('%# %.60s is refused', async (text, message) => {
    await expectRefused(fileOf(text, 4), message);
  });

  test('that are no UTF-8, too long, or lie about their length', async () => {
    await expectRefused(fileOf(Uint8Array.of(0x7b, 0xff, 0x7d), 0), /no UTF-8/);
    await expectRefused(fileOf('{}', 0, 100_000_001n), /100000001 bytes, where at most 100000000/);
    await expectRefused(fileOf('{}', 0, 2n ** 64n - 1n), /18446744073709551615/);
    await expectRefused(fileOf('{}', 0, 100_000_000n), /truncated: 10 of 100000008/);
  });

  test('no number of bytes is a file but the right one', async () => {
    const whole = pythonFile('safetensors');
    for (let length = 0; length < whole.length; length += length < 16 || length > 550 ? 1 : 23)
      await expectRefused(whole.slice(0, length), /truncated/);
    await expectRefused(Uint8Array.of(...whole, 0), /bytes where its header tells of/);
  });

  test('every byte may be wrong', () => {
    const whole = pythonFile('safetensors');
    for (let at = 0; at < whole.length; at++)
      for (const value of [0, 0x22, 0x5c, 0x2c, 0x39, 0x5d, 0x7d, 0xff]) {
        const bytes = whole.slice();
        bytes[at] = value;
        try {
          readSafetensors(bytes);
        } catch (error) {
          expect(error).toBeInstanceOf(SdpaError);
        }
      }
  });
});

describe('names', () => {
  test('may be any, __proto__ too', () => {
    const tensors = Object.create(null) as Record<string, Tensor>;
    for (const name of ['__proto__', 'constructor', '', '10', '9', 'a"\\\u0000\u007f\u2028', 'toString'])
      tensors[name] = Tensor.full([1], name.length);
    const metadata = Object.assign(Object.create(null), JSON.parse('{"__proto__":"text","":""}'));
    metadata[PROTO] = 'text';
    const bytes = writeSafetensors(tensors, metadata);
    const back = readSafetensors(bytes);
    expect(Object.getPrototypeOf(back.tensors)).toBe(null);
    expect(Object.keys(back.tensors).sort()).toEqual(Object.keys(tensors).sort());
    expect(back.tensors[PROTO].at(0)).toBe(9);
    expect(back.metadata[PROTO]).toBe('text');
    expect(writeSafetensors(back.tensors, back.metadata)).toEqual(bytes);
  });

  test('that cannot stand in a file are refused', async () => {
    const t = Tensor.zeros([1]);
    expect(() => writeSafetensors({ __metadata__: t })).toThrow(/rename/);
    expect(() => writeSafetensors({ '\ud800': t })).toThrow(/half a character/);
    expect(() => writeSafetensors({ t }, { a: '\udc00' })).toThrow(OptionError);
    expect(() => writeSafetensors({ t }, { a: 1 } as unknown as Record<string, string>)).toThrow(OptionError);
    expect(() => writeSafetensors({ t }, 'x' as unknown as Record<string, string>)).toThrow(OptionError);
    expect(() => writeSafetensors({ t: [1] as unknown as Tensor })).toThrow(DTypeError);
    for (const wrong of [null, [t], t, 'x'])
      expect(() => writeSafetensors(wrong as unknown as NamedTensors)).toThrow(OptionError);
    await expect(writeSafetensorsTo({} as MemoryFile, { t })).rejects.toThrow(OptionError);
  });

  test('a header too long to be read is not written', () => {
    expect(() => writeSafetensors({}, { a: 'x'.repeat(100_000_000) })).toThrow(/write less metadata/);
  });
});

test('round trips of any dtype, shape and strides; elements are aligned', async () => {
  const shapes = fc.array(fc.integer({ min: 0, max: 5 }), { maxLength: 4 });
  const tensors = fc.dictionary(
    fc.string({ maxLength: 6 }),
    fc.tuple(shapes, fc.constantFrom(...DTYPE_NAMES)),
    {
      maxKeys: 6,
    },
  );
  await fc.assert(
    fc.asyncProperty(tensors, fc.integer({ min: 1, max: 99 }), async (described, most) => {
      const given: Record<string, Tensor> = {};
      for (const [name, [shape, dtype]] of Object.entries(described)) {
        const whole = Tensor.randn(shape, { seed: most }).to(dtype);
        given[name] = shape.length > 1 ? whole.transpose(0, -1).slice(0, 0, -1) : whole;
      }
      const bytes = writeSafetensors(given);
      const { tensors: back } = readSafetensors(bytes);
      expect(Object.keys(back).sort()).toEqual(Object.keys(given).sort());
      const file = await openSafetensors(new MemoryFile(bytes, most));
      for (const [name, tensor] of Object.entries(given)) {
        expect([back[name].dtype, back[name].shape]).toEqual([tensor.dtype, tensor.shape]);
        expect([...back[name].contiguous().data]).toEqual([...tensor.contiguous().data]);
        expect(back[name].data.buffer).toBe(bytes.buffer);
        expect([...(await file.read(name)).data]).toEqual([...tensor.contiguous().data]);
      }
    }),
    { numRuns: 60 },
  );
});

describe('openSafetensors', () => {
  const large = Tensor.randn([1000, 1500], { seed: 1 });
  const small = Tensor.arange([3, 2], { dtype: 'int32' });
  const bytes = writeSafetensors(
    { large, small, scalar: Tensor.full([], 2), none: Tensor.zeros([0, 3]) },
    { a: 'b' },
  );

  test('reads a header, then what is asked for', async () => {
    const source = new MemoryFile(bytes);
    const file = await openSafetensors(source);
    expect([...file.names].sort()).toEqual(['large', 'none', 'scalar', 'small']);
    expect({ ...file.metadata }).toEqual({ a: 'b' });
    expect(file.describe('small')).toEqual({ dtype: 'I32', shape: [3, 2], byteLength: 24 });
    expect([file.has('small'), file.has('__proto__')]).toEqual([true, false]);
    expect(source.bytesAsked).toBeLessThan(400);
    const rows = await file.read('large', { start: 10, end: 12 });
    expect(rows.toArray()).toEqual(large.slice(0, 10, 12).toArray());
    expect(source.bytesAsked).toBeLessThan(400 + rows.byteLength + 1);
    expect((await file.read('scalar')).toArray()).toBe(2);
    expect((await file.read('none')).shape).toEqual([0, 3]);
    expect((await file.read('none', { start: 5 })).shape).toEqual([0, 3]);
  });

  test.each([
    [{ start: -1 }, [[4, 5]]],
    [{ end: 1 }, [[0, 1]]],
    [{ start: 1, end: -1 }, [[2, 3]]],
    [{ start: 2, end: 1 }, []],
    [{ start: -Infinity, end: Infinity }, small.toArray()],
  ])('rows %o', async (options, expected) => {
    const file = await openSafetensors(new MemoryFile(bytes));
    expect((await file.read('small', options)).toArray()).toEqual(expected);
  });

  test('refuses what is not there', async () => {
    const file = await openSafetensors(new MemoryFile(bytes));
    await expect(file.read('smal')).rejects.toThrow(/no tensor 'smal'; did you mean 'small'/);
    await expect(file.read('scalar', { start: 0 })).rejects.toThrow(ShapeError);
    await expect(file.read('small', { start: 0.5 })).rejects.toThrow(ShapeError);
    await expect(file.read('small', { begin: 0 } as object)).rejects.toThrow(OptionError);
    await expect(file.read('small', { dtype: 'F32' as DType })).rejects.toThrow(DTypeError);
    await expect(openSafetensors({} as MemoryFile)).rejects.toThrow(OptionError);
    expect(() => file.describe('__proto__')).toThrow(OptionError);
  });

  test('a file that became shorter, with stat and without', async () => {
    const source = new MemoryFile(bytes);
    const file = await openSafetensors(source);
    source.bytes = bytes.subarray(0, bytes.length - 1);
    await expect(file.read('small')).rejects.toThrow(/truncated/);
    Object.assign(source, { stat: undefined });
    await expect(file.read('small')).rejects.toThrow(/truncated/);
  });

  test('a real file: reads side by side, converted, in pieces', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'node-sdpa-'));
    try {
      const path = join(folder, 'x.safetensors');
      const out = await open(path, 'w');
      await writeSafetensorsTo(out, { large, turned: large.transpose(0, 1), small });
      await out.close();
      expect(
        (await readFile(path)).equals(writeSafetensors({ large, turned: large.transpose(0, 1), small })),
      ).toBe(true);
      const source = await open(path);
      const file = await openSafetensors(source);
      const [a, b, c] = await Promise.all([
        file.read('large'),
        file.read('turned', { dtype: 'float16' }),
        file.read('small'),
      ]);
      await source.close();
      expect(Buffer.from(a.data.buffer).equals(Buffer.from(large.data.buffer))).toBe(true);
      expect(
        Buffer.compare(
          Buffer.from(b.data.buffer),
          Buffer.from(large.transpose(0, 1).to('float16').data.buffer),
        ),
      ).toBe(0);
      expect(c.toArray()).toEqual(small.toArray());
    } finally {
      await rm(folder, { recursive: true });
    }
  });
});
