import { describe, expect, test } from 'vitest';
import { crc32 } from '../../lib/crc32.ts';
import { CapacityError, OptionError } from '../../lib/errors.ts';
import { KVCache } from '../../lib/kv-cache.ts';
import { memoryInfo } from '../../lib/memory-info.ts';
import { Tensor } from '../../lib/tensor.ts';
import { backendsUnderTest } from '../backends.ts';
import { MemoryFile } from './formats/memory-file.ts';

// Files whose checksums are right and that yet no cache wrote.

/** With the checksum of the header and of the whole made right. */
function sealed(bytes: Uint8Array): Uint8Array {
  const view = new DataView(bytes.buffer);
  const headerEnd = view.getUint32(12, true) - 4;
  view.setUint32(headerEnd, crc32(bytes.subarray(0, headerEnd)), true);
  view.setUint32(bytes.length - 4, crc32(bytes.subarray(0, bytes.length - 4)), true);
  return bytes;
}

async function expectAltered(bytes: Uint8Array, backend: 'native' | 'reference'): Promise<void> {
  expect(() => KVCache.load(bytes, { backend })).toThrow(/altered: it has a row of (keys|values)/);
  expect(() => KVCache.load(bytes, { backend })).toThrow(OptionError);
  await expect(KVCache.loadFrom(new MemoryFile(bytes), { backend })).rejects.toThrow(/altered/);
}

const backends = [...new Set(backendsUnderTest().map(({ backend }) => backend))];

describe.each(backends)('%s', (backend) => {
  // Rows of 5 numbers: 8 bytes and a scale; keys of tokens 0 and 1, then values.
  const cache = new KVCache({ numKvHeads: 1, headDim: 5, dtype: 'int8', backend });
  cache.append(Tensor.randn([1, 2, 5], { seed: 1 }), Tensor.randn([1, 2, 5], { seed: 2 }));
  const saved = cache.save();
  cache.dispose();
  const header = new DataView(saved.buffer).getUint32(12, true);

  test('the file itself loads', async () => {
    KVCache.load(sealed(saved.slice()), { backend }).dispose();
    (await KVCache.loadFrom(new MemoryFile(saved), { backend })).dispose();
  });

  test.each([NaN, Infinity, -Infinity, -1, -0, -1e-40])('a scale of %f is refused', async (scale) => {
    for (const row of [0, 1, 2, 3]) {
      const bytes = saved.slice();
      bytes.set(new Uint8Array(Float32Array.of(scale).buffer), header + row * 12 + 8);
      await expectAltered(sealed(bytes), backend);
    }
    expect(memoryInfo().caches).toBe(0);
  });

  test('a number of -128 is refused, wherever it stands', async () => {
    for (let at = 0; at < 48; at++) {
      const bytes = saved.slice();
      bytes[header + at] = 0x80;
      if (at % 12 < 8) await expectAltered(sealed(bytes), backend);
    }
  });

  test('rows are filled up with zeros', async () => {
    for (const at of [5, 6, 7, 12 + 5, 36 + 7]) {
      const bytes = saved.slice();
      bytes[header + at] = 1;
      await expectAltered(sealed(bytes), backend);
    }
  });

  test('a header that tells of more than the file holds takes no memory', async () => {
    const bytes = saved.slice();
    const view = new DataView(bytes.buffer);
    view.setBigUint64(16 + 8 * 10, 2n ** 40n, true); // length of the one entry
    await expect(KVCache.loadFrom(new MemoryFile(sealed(bytes)), { backend })).rejects.toThrow(/truncated/);
    const pipe = new MemoryFile(bytes);
    Object.assign(pipe, { stat: undefined });
    await expect(KVCache.loadFrom(pipe, { backend })).rejects.toThrow(CapacityError);
    expect(memoryInfo().caches).toBe(0);
  });
});

test('bytes that were detached, or lie about their length', () => {
  const detached = new Uint8Array(200);
  structuredClone(detached.buffer, { transfer: [detached.buffer] });
  expect(() => KVCache.load(detached)).toThrow(OptionError);
  const lying = Object.defineProperty(new Uint8Array(200), 'byteLength', { value: 2 ** 40 });
  expect(() => KVCache.load(lying)).toThrow(OptionError);
});
