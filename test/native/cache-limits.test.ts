import { describe, expect, test } from 'vitest';
import { runChildOk } from '../child.ts';
import { type Limit, limitTo } from '../limits.ts';

/**
 * Fills a cache by 32 MiB until it is refused, gives 16 MiB back that V8 may have, asks for 64 MiB many times, and then goes
 * on with what is there.
 */
const script = (numKvHeads: number): string => `
const { CapacityError, KVCache, Tensor, memoryInfo } = sdpa;
const NUM_KV_HEADS = ${numKvHeads};
const TOKENS = ${2 ** 18} / NUM_KV_HEADS;
const random = Tensor.randn([2 * TOKENS + 16], { seed: 1 }).data;
// Rows that overlap: all differ, and they take little memory.
const of = (tokens) => new Tensor(random, [1, NUM_KV_HEADS, tokens, 16], { strides: [0, 0, 1, 1] });
const make = () => new KVCache({ numKvHeads: NUM_KV_HEADS, headDim: 16, backend: 'native' });
const failure = (call) => {
  try {
    call();
  } catch (error) {
    if (error instanceof CapacityError) return error.message;
    throw error;
  }
  return '';
};
const [ballast, cache] = [make(), make()];
ballast.append(of(TOKENS / 2), of(TOKENS / 2));
cache.append(of(TOKENS - 8), of(TOKENS - 8));
const before = cache.attend(of(1));
const messages = [
  failure(() => {
    for (;;) cache.append(of(TOKENS), of(TOKENS));
  }),
];
ballast.dispose();
const { length, byteLength } = cache;
const { bytes } = memoryInfo();
for (let n = 0; n < 20; n++) messages.push(failure(() => cache.append(of(2 * TOKENS), of(2 * TOKENS))));
messages.push(failure(() => cache.step(of(2 * TOKENS), of(2 * TOKENS), of(2 * TOKENS))));
const lists = Array.from({ length: 50 }, (_, i) => new Array(10_000).fill(i));
const isUnchanged = cache.length === length && cache.byteLength === byteLength && memoryInfo().bytes === bytes;
cache.attend(of(1));
cache.truncate(TOKENS - 8);
const again = cache.attend(of(1));
const isSame = again.data.every((x, i) => x === before.data[i]);
cache.append(of(1), of(1)).step(of(1), of(1), of(1));
const more = cache.length - (TOKENS - 8);
cache.dispose();
`;
const report = `console.log(JSON.stringify({
  isUnchanged, isSame, messages, lists: lists.length, more, after: memoryInfo().bytes }));`;

interface Told {
  readonly isUnchanged: boolean;
  readonly isSame: boolean;
  readonly messages: readonly string[];
  readonly lists: number;
  readonly more: number;
  readonly after: number;
}

describe.each<[string, Limit]>([
  ['address space', '-v'],
  ['memory', '-d'],
])('where %s is out', (_, limit) => {
  const ulimit = limitTo(limit);

  // Of 64 heads almost all could still get a share of what is left.
  test.skipIf(ulimit === undefined).each([2, 64])(
    'a cache of %i heads is unchanged, and goes on',
    (heads) => {
      const told = runChildOk<Told>(script(heads) + report, { ulimit });
      expect(told).toMatchObject({ isUnchanged: true, isSame: true, lists: 50, more: 2, after: 0 });
      expect(told.messages).toHaveLength(22);
      for (const message of told.messages)
        expect(message).toMatch(/no memory for \d+ more tokens|cannot allocate/);
    },
  );

  test.skipIf(ulimit === undefined || limit !== '-v')('a cache too many is refused, the others go on', () => {
    const told = runChildOk<{ message: string; wereAlive: number; after: object }>(
      `
      const { CapacityError, KVCache, Tensor, memoryInfo } = sdpa;
      const x = Tensor.randn([1, 8, 64, 128], { seed: 1 });
      const make = () => new KVCache({ numKvHeads: 8, headDim: 128, backend: 'native' });
      const caches = [make().append(x, x)];
      let message = '';
      try {
        while (caches.length < 5000) caches.push(make());
      } catch (error) {
        if (!(error instanceof CapacityError)) throw error;
        message = error.message;
      }
      const wereAlive = memoryInfo().caches;
      while (caches.length > wereAlive / 2) caches.pop().dispose();
      for (const cache of caches) cache.append(x, x).attend(x);
      make().append(x, x).dispose();
      for (const cache of caches) cache.dispose();
      const { caches: left, bytes } = memoryInfo();
      console.log(JSON.stringify({ message, wereAlive, after: { left, bytes } }));`,
      { ulimit },
    );
    expect(told.message).toMatch(/no address space/);
    expect(told.wereAlive).toBeGreaterThan(5);
    expect(told.after).toEqual({ left: 0, bytes: 0 });
  });
});
