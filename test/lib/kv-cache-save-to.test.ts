import { mkdtemp, open, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setImmediate as nextTurn } from 'node:timers/promises';
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest';
import type { CacheFile } from '../../lib/cache-file.ts';
import { OptionError } from '../../lib/errors.ts';
import { KVCache, type KVCacheOptions } from '../../lib/kv-cache.ts';
import { memoryInfo } from '../../lib/memory-info.ts';
import { Tensor } from '../../lib/tensor.ts';
import { backendsUnderTest } from '../backends.ts';

let folder = '';
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'node-sdpa-'));
});
afterAll(() => rm(folder, { recursive: true }));

const made: KVCache[] = [];
afterEach(() => {
  for (const cache of made.splice(0)) cache.dispose();
});

function keep(cache: KVCache): KVCache {
  made.push(cache);
  return cache;
}

const rows = (tokens: number, seed: number): Tensor => Tensor.randn([2, tokens, 64], { seed });

/** Two heads of 64: a token takes 1 KiB. */
function makeCache(options: Partial<KVCacheOptions>, ...appends: number[]): KVCache {
  const cache = keep(new KVCache({ numKvHeads: 2, headDim: 64, ...options }));
  appends.forEach((tokens, n) => void cache.append(rows(tokens, 2 * n), rows(tokens, 2 * n + 1)));
  return cache;
}

/** A file in memory whose reads and writes are as short as `most` says, and may go wrong. */
class MemoryFile implements CacheFile {
  bytes: Uint8Array;
  at = 0;
  calls = 0;
  readonly #most: (wanted: number, call: number) => number | Promise<number>;

  constructor(
    bytes: Uint8Array = new Uint8Array(0),
    most: (wanted: number, call: number) => number | Promise<number> = (n) => n,
  ) {
    this.bytes = bytes;
    this.#most = most;
  }

  async read(
    buffer: Uint8Array,
    offset: number,
    length: number,
    position: null,
  ): Promise<{ bytesRead: number }> {
    expect(position).toBe(null);
    const bytesRead = await this.#most(Math.min(length, this.bytes.length - this.at), this.calls++);
    if (bytesRead > 0 && bytesRead <= length)
      buffer.set(this.bytes.subarray(this.at, this.at + bytesRead), offset);
    this.at += bytesRead;
    return { bytesRead };
  }

  async write(
    buffer: Uint8Array,
    offset: number,
    length: number,
    position: null,
  ): Promise<{ bytesWritten: number }> {
    expect(position).toBe(null);
    const bytesWritten = await this.#most(length, this.calls++);
    this.bytes = Buffer.concat([this.bytes, buffer.subarray(offset, offset + bytesWritten)]);
    return { bytesWritten };
  }
}

function expectSameBytes(a: Uint8Array, b: Uint8Array): void {
  expect(a.length).toBe(b.length);
  expect(Buffer.compare(a, b)).toBe(0);
}

const all = backendsUnderTest();
const best = all.filter((each, n) => all.findIndex(({ backend }) => backend === each.backend) === n);

describe.each(best)('$backend', ({ backend }) => {
  test('caches follow one another in a file, in pieces that do not divide them', async () => {
    const caches = [
      makeCache({ backend, headDim: 64 }, 9000),
      makeCache({ backend, window: 100, sinkTokens: 4 }, 300, 300, 1),
      makeCache({ backend }),
    ];
    const path = join(folder, backend);
    const file = await open(path, 'w+');
    for (const cache of caches) await cache.saveTo(file);
    await file.close();
    expectSameBytes(await readFile(path), Buffer.concat(caches.map((cache) => cache.save())));
    const again = await open(path);
    for (const cache of caches)
      expectSameBytes(keep(await KVCache.loadFrom(again, { backend })).save(), cache.save());
    await expect(KVCache.loadFrom(again, { backend })).rejects.toThrow(/truncated: 0 of 16 bytes/);
    await again.close();
  });

  test('writes and reads may be short', async () => {
    const cache = makeCache({ backend }, 60);
    const short = (wanted: number, call: number): number => Math.min(wanted, [1, 2, 7, 4096][call % 4]);
    const file = new MemoryFile(undefined, short);
    await cache.saveTo(file);
    expectSameBytes(file.bytes, cache.save());
    const loaded = keep(await KVCache.loadFrom(new MemoryFile(file.bytes, short), { backend }));
    expectSameBytes(loaded.save(), cache.save());
  });

  test('what is saved is the cache as it was at the call, whatever becomes of it', async () => {
    for (const act of ['append', 'truncate', 'dispose'] as const) {
      const cache = makeCache({ backend }, 5000, 3);
      const want = cache.save();
      const file = new MemoryFile(undefined, async (wanted) => {
        await nextTurn();
        return wanted;
      });
      const saving = cache.saveTo(file);
      for (let n = 0; n < 3; n++) {
        if (act === 'append') cache.append(rows(700, 9), rows(700, 9));
        if (act === 'truncate') cache.truncate(1000).append(rows(5, 9), rows(5, 9));
        if (act === 'dispose') cache.dispose();
        await nextTurn();
      }
      await saving;
      expectSameBytes(file.bytes, want);
      if (act !== 'dispose') expect(cache.length).toBe(act === 'append' ? 7103 : 1005);
    }
  });

  test('a file that is closed in the middle', async () => {
    const cache = makeCache({ backend }, 9000);
    const path = join(folder, `closed-${backend}`);
    const before = memoryInfo();
    const file = await open(path, 'w');
    const closing = {
      read: file.read.bind(file),
      write: async (buffer: Uint8Array, offset: number, length: number) => {
        if (length > 1000) await file.close();
        return file.write(buffer, offset, length, null);
      },
    };
    await expect(cache.saveTo(closing)).rejects.toThrow(/closed|EBADF/);
    await expect(cache.saveTo(file)).rejects.toThrow(/closed|EBADF/);
    await expect(KVCache.loadFrom(file, { backend })).rejects.toThrow(/closed|EBADF/);
    expect(memoryInfo()).toEqual(before);
    expect(cache.append(rows(1, 3), rows(1, 4)).length).toBe(9001);
    const half = await open(path);
    await expect(KVCache.loadFrom(half, { backend })).rejects.toThrow(/truncated/);
    await half.close();
  });

  test('reads and writes that go wrong, or answer nonsense', async () => {
    const cache = makeCache({ backend }, 9000);
    const bytes = cache.save();
    const { caches, bytes: held } = memoryInfo();
    for (const most of [NaN, -1, 0, 1.5, 2 ** 30, undefined]) {
      const file = new MemoryFile(bytes, (wanted, call) => (call === 2 ? (most as number) : wanted));
      await expect(KVCache.loadFrom(file, { backend })).rejects.toThrow(
        most === 0 ? /truncated/ : /file\.read gave/,
      );
      const target = new MemoryFile(undefined, (wanted, call) => (call === 2 ? (most as number) : wanted));
      await expect(cache.saveTo(target)).rejects.toThrow(/file\.write took .* is no whole cache/);
    }
    const reason = new Error('the disk is full');
    const failing = (): MemoryFile =>
      new MemoryFile(bytes, (wanted, call) => (call === 3 ? Promise.reject(reason) : wanted));
    await expect(cache.saveTo(failing())).rejects.toBe(reason);
    await expect(KVCache.loadFrom(failing(), { backend })).rejects.toBe(reason);
    expect(memoryInfo()).toMatchObject({ caches, bytes: held });
  });

  test('a byte that is another, or missing, anywhere in the file', async () => {
    const bytes = makeCache({ backend, window: 20 }, 9).save();
    const { caches, bytes: held } = memoryInfo();
    for (let at = 0; at < bytes.length; at += at < 200 ? 1 : 61) {
      const other = bytes.slice();
      other[at] ^= 4;
      await expect(KVCache.loadFrom(new MemoryFile(other), { backend })).rejects.toThrow(OptionError);
      await expect(KVCache.loadFrom(new MemoryFile(bytes.subarray(0, at)), { backend })).rejects.toThrow(
        /truncated: \d+ of \d+ bytes/,
      );
    }
    const path = join(folder, `text-${backend}`);
    await writeFile(path, 'not a cache, but long enough to hold a header');
    const text = await open(path);
    await expect(KVCache.loadFrom(text, { backend })).rejects.toThrow(
      /no saved KVCache: it begins with \[6e 6f 74 20 /,
    );
    await text.close();
    expect(memoryInfo()).toMatchObject({ caches, bytes: held });
  });

  test('a header with a right checksum that asks for more than there is', async () => {
    const { describeState, encodeHeader } = await import('../../lib/cache-header.ts');
    const layout = {
      batch: 1,
      numKvHeads: 8,
      headDim: 128,
      valueDim: 128,
      dtype: 'float32',
      window: 0,
      sinkTokens: 0,
    } as const;
    for (const length of [2 ** 33, 2 ** 38]) {
      const head = encodeHeader(
        describeState({
          layout: { ...layout, maxLength: Infinity },
          entries: [{ length, keptBegin: 0, newest: 1 }],
        }),
      );
      await expect(KVCache.loadFrom(new MemoryFile(head), { backend })).rejects.toThrow(
        /KVCache: no memory for/,
      );
    }
  });

  test('what is no file', async () => {
    const cache = makeCache({ backend }, 1);
    for (const file of [undefined, null, 'path', 3, {}, { read: 1, write: 1 }] as never[]) {
      await expect(cache.saveTo(file)).rejects.toThrow(
        /KVCache\.saveTo: file must be a FileHandle, as open of node:fs/,
      );
      await expect(KVCache.loadFrom(file)).rejects.toThrow(/KVCache\.loadFrom: file must be a FileHandle/);
    }
    await expect(KVCache.loadFrom(new MemoryFile(), { backens: backend } as object)).rejects.toThrow(
      /did you mean 'backend'/,
    );
  });
});
