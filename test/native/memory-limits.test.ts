import { tmpdir } from 'node:os';
import { describe, expect, test } from 'vitest';
import { runChildOk } from '../child.ts';
import { limitTo } from '../limits.ts';

/**
 * Each operation with enough address space, then with less than it asks for, then with enough again: right, refused by a
 * CapacityError, the bits of the first time.
 */
const script = `
const { open, unlink } = await import('node:fs/promises');
const { join } = await import('node:path');
const { attention, attentionAsync, attentionWeights, CapacityError, KVCache, memoryInfo, Tensor } = sdpa;

const MIB = 2 ** 20;
const random = Tensor.randn([2 ** 18], { seed: 1 }).data;
// Rows that overlap: all differ, and they take little memory.
const of = (heads, tokens, dim) => new Tensor(random, [1, heads, tokens, dim], { strides: [0, 64, 1, 1] });
const native = { backend: 'native' };
const make = (tokens, maxLength = tokens) =>
  new KVCache({ numKvHeads: 2, headDim: 64, maxLength, backend: 'native' }).append(of(2, tokens, 64), of(2, tokens, 64));

// 32 MiB of keys and as many of values.
const TOKENS = 65536;
const cache = make(TOKENS, TOKENS + 1);
const path = join(process.env.FOLDER, 'cache-' + process.pid);
const written = await open(path, 'w');
await cache.saveTo(written);
await written.close();
const parent = make(20_000, 80_000);
const saved = parent.save();
const pair = [make(4, 5), make(4, 5)];
const token = new Tensor(random, [2, 2, 1, 64], { strides: [64, 64, 0, 1] });

const big = of(8, 32768, 64);
const [few, some] = [of(8, 4, 64), of(8, 512, 64)];
const wide = of(1, 49, 32768);
const out = Tensor.zeros([1, 1, 49, 32768]);
const operations = {
  'attention: its result': () => attention(big, few, few, native),
  'attentionAsync: its result': () => attentionAsync(big, few, few, native),
  'attention: its scratch': () => attention(wide, of(1, 128, 32768), of(1, 128, 32768), { ...native, out }),
  'attentionAsync: its scratch': () =>
    attentionAsync(wide, of(1, 128, 32768), of(1, 128, 32768), { ...native, out }),
  'attentionWeights': () => attentionWeights(of(1, 4096, 1), of(1, 4096, 1), of(1, 4096, 1), { stage: 'scores' }),
  'attend: its result': () => pair[0].attend(of(4, 65536, 64)),
  'attendAsync: its result': () => pair[0].attendAsync(of(4, 65536, 64)),
  'keys': () => cache.keys(),
  'values': () => cache.values(),
  'save': () => cache.save(),
  'a new cache': () => make(TOKENS),
  'what a fork appends': () => parent.fork().append(of(2, 20_000, 64), of(2, 20_000, 64)),
  'stepAll: its result': () => {
    try {
      return KVCache.stepAll(pair, new Tensor(random, [2, 131072, 1, 64], { strides: [64, 0, 0, 1] }), token, token);
    } finally {
      for (const one of pair) one.truncate(4);
    }
  },
  'load': () => KVCache.load(saved, native),
  'loadFrom': async () => {
    const file = await open(path, 'r');
    try {
      return await KVCache.loadFrom(file, native);
    } finally {
      await file.close();
    }
  },
};
const first = (result) => {
  if (result instanceof KVCache) {
    const { data } = result.attend(of(2, 1, 64));
    result.dispose();
    return Array.from(data.subarray(0, 64));
  }
  return Array.from((result.data ?? result).subarray(0, 4096));
};
const bytesOf = () => cache.attend(of(2, 1, 64)).data;
const before = bytesOf().slice();

// The engine gives back what it collects on threads of its own.
const settle = async () => {
  for (let n = 0; n < 2; n++) {
    gc();
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
};

// Takes the address space but for 16 MiB, for Node and for what is small.
const fill = () => {
  const take = (tokens) => new KVCache({ numKvHeads: 2, headDim: 64, maxLength: tokens, backend: 'native' });
  const [spare, ballast] = [take(16384), []];
  for (const tokens of [65536, 4096, 1024]) {
    try {
      for (;;) ballast.push(take(tokens));
    } catch (error) {
      if (!(error instanceof CapacityError)) throw error;
    }
  }
  spare.dispose();
  return ballast;
};
const right = {};
for (const [name, operation] of Object.entries(operations)) {
  if (name.endsWith('scratch')) continue; // which a thread would keep
  await settle();
  right[name] = first(await operation());
}
const told = {};
for (const [name, operation] of Object.entries(operations)) {
  await settle();
  const ballast = fill();
  try {
    const result = first(await operation());
    told[name] = result.every((x, i) => Object.is(x, right[name]?.[i])) ? 'right' : 'wrong';
  } catch (error) {
    told[name] = error instanceof CapacityError ? error.message : 'not a CapacityError: ' + error.stack;
  }
  for (const held of ballast) held.dispose();
}
const again = [];
for (const [name, operation] of Object.entries(operations)) {
  await settle();
  const result = first(await operation());
  if (right[name] && !result.every((x, i) => Object.is(x, right[name][i]))) again.push(name);
}
const isSame = bytesOf().every((x, i) => x === before[i]);
cache.append(of(2, 1, 64), of(2, 1, 64));
for (const one of [cache, parent, ...pair]) one.dispose();
await unlink(path);
console.log(JSON.stringify({ told, again, isSame, left: memoryInfo() }));
`;

interface Told {
  readonly told: Readonly<Record<string, string>>;
  readonly again: readonly string[];
  readonly isSame: boolean;
  readonly left: { readonly caches: number; readonly bytes: number };
}

/** Eight threads are asked for where no stack finds a place; then all of them, once there is place again. */
const withoutThreads = `
const { attention, CapacityError, KVCache, memoryInfo, Tensor } = sdpa;
const [q, k, v] = [1, 2, 3].map((seed) => Tensor.randn([1, 8, 256, 64], { seed }));
const expected = attention(q, k, v, { backend: 'native', threads: 1 });
const ballast = [];
for (const tokens of [65536, 4096, 256]) {
  try {
    for (;;) ballast.push(new KVCache({ numKvHeads: 2, headDim: 64, maxLength: tokens, backend: 'native' }));
  } catch (error) {
    if (!(error instanceof CapacityError)) throw error;
  }
}
const out = expected.clone();
const results = [];
const attempt = async (call) => {
  out.data.fill(0);
  try {
    await call();
    results.push(out.data.every((x, i) => x === expected.data[i]) ? 'right' : 'wrong');
  } catch (error) {
    results.push(error instanceof CapacityError ? 'refused' : String(error.stack));
  }
};
const options = { backend: 'native', threads: 8, out };
await attempt(() => attention(q, k, v, options));
await attempt(() => sdpa.attentionAsync(q, k, v, options));
for (const cache of ballast) cache.dispose();
await attempt(() => attention(q, k, v, options));
await attempt(() => sdpa.attentionAsync(q, k, v, options));
const { caches, bytes } = memoryInfo();
console.log(JSON.stringify({ results, left: { caches, bytes } }));
`;

describe('where address space is out', () => {
  const ulimit = limitTo('-v', 2 ** 21); // of which glibc reserves 64 MiB for each thread's heap

  const timeout = 240_000;

  test.skipIf(ulimit === undefined)(
    'each operation is refused by name, and nothing is lost',
    { timeout },
    () => {
      const { told, again, isSame, left } = runChildOk<Told>(script, {
        ulimit: ulimit as string,
        timeout,
        flags: ['--expose-gc'],
        env: { NODE_SDPA_NUM_THREADS: '2', FOLDER: tmpdir() },
      });
      const refused = /cannot allocate \d+ bytes for \[|no address space|no memory for/;
      for (const [name, message] of Object.entries(told)) expect(message, name).toMatch(refused);
      expect({ again, isSame, left }).toMatchObject({
        again: [],
        isSame: true,
        left: { caches: 0, bytes: 0 },
      });
    },
  );

  test.skipIf(ulimit === undefined)('threads that are refused are done without', () => {
    const { results, left } = runChildOk<{ results: string[]; left: object }>(withoutThreads, {
      ulimit: ulimit as string,
    });
    for (const result of results.slice(0, 2)) expect(['right', 'refused']).toContain(result);
    expect(results.slice(2)).toEqual(['right', 'right']);
    expect(left).toEqual({ caches: 0, bytes: 0 });
  });
});
