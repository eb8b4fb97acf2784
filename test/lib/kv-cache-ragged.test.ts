import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import type { AttentionResult } from '../../lib/attention.ts';
import { CapacityError, OptionError, ShapeError } from '../../lib/errors.ts';
import { KVCache, type KVCacheOptions } from '../../lib/kv-cache.ts';
import { Tensor } from '../../lib/tensor.ts';
import { backendsUnderTest } from '../backends.ts';
import { expectWithin, yardstickOfInputs } from '../tolerance.ts';

const RUNS = {
  seed: Number(process.env.FAST_CHECK_SEED ?? 20260102),
  numRuns: Number(process.env.FAST_CHECK_RUNS ?? 20),
};

const B = 3;
const HEADS = 2;
const DIM = 16;
let seed = 0;
const random = (heads: number, tokens: number, n = B): Tensor =>
  Tensor.randn([n, heads, tokens, DIM], { seed: ++seed });
const entry = (x: Tensor, b: number): Tensor => x.slice(0, b, b + 1);

/** A cache of B entries, and for each of them a cache of its own that should hold the same. */
class Model {
  readonly cache: KVCache;
  readonly alone: KVCache[];
  readonly window: number;

  constructor(options: Partial<KVCacheOptions>, parts?: { cache: KVCache; alone: KVCache[] }) {
    const layout = { numKvHeads: HEADS, headDim: DIM, ...options };
    this.window = options.window ?? 0;
    this.cache = parts?.cache ?? new KVCache({ ...layout, batch: B });
    this.alone = parts?.alone ?? Array.from({ length: B }, () => new KVCache(layout));
  }

  fork(): Model {
    const parts = { cache: this.cache.fork(), alone: this.alone.map((each) => each.fork()) };
    return new Model({ window: this.window || null }, parts);
  }

  append(count: number, lengths: number[] | null): void {
    const [k, v] = [random(HEADS, count), random(HEADS, count)];
    this.cache.append(k, v, { lengths });
    this.each((cache, b) => {
      const tokens = (x: Tensor): Tensor => entry(x, b).slice(2, 0, lengths?.[b] ?? count);
      cache.append(tokens(k), tokens(v));
    });
  }

  /** A step of both, and that they agree. */
  step(count: number, lengths: number[] | null): void {
    const [q, k, v] = [random(2 * HEADS, count), random(HEADS, count), random(HEADS, count)];
    const got = this.cache.step(q, k, v, { lengths, returnLse: true });
    this.each((cache, b) => {
      const own = lengths?.[b] ?? count;
      const tokens = (x: Tensor): Tensor => entry(x, b).slice(2, 0, own);
      const want = cache.step(tokens(q), tokens(k), tokens(v), { returnLse: true });
      const part = { out: tokens(got.out), lse: tokens(got.lse) };
      if (own > 0) this.#expectLike(part, want, tokens(q), cache);
      expect(
        entry(got.out, b)
          .slice(2, own)
          .toFloat32Array()
          .every((x) => x === 0),
      ).toBe(true);
      expect(
        entry(got.lse, b)
          .slice(2, own)
          .toFloat32Array()
          .every((x) => x === -Infinity),
      ).toBe(true);
    });
  }

  /** That both give the same for queries whose last one stands at each entry's last token. */
  expectAlike(): void {
    expect([...this.cache.lengths]).toEqual(this.alone.map(({ length }) => length));
    expect(this.cache.length).toBe(Math.max(...this.alone.map(({ length }) => length)));
    const q = random(2 * HEADS, 2);
    const got = this.cache.attend(q, { returnLse: true });
    this.each((cache, b) => {
      const want = cache.attend(entry(q, b), { returnLse: true });
      this.#expectLike({ out: entry(got.out, b), lse: entry(got.lse, b) }, want, entry(q, b), cache);
      const kept = cache.keys().shape[2];
      for (const [all, own] of [
        [this.cache.keys(), cache.keys()],
        [this.cache.values(), cache.values()],
      ]) {
        expect(entry(all, b).slice(2, 0, kept).toArray()).toEqual(own.toArray());
        expect(
          entry(all, b)
            .slice(2, kept)
            .toFloat32Array()
            .every((x) => x === 0),
        ).toBe(true);
      }
    });
  }

  #expectLike(got: AttentionResult, want: AttentionResult, q: Tensor, cache: KVCache): void {
    expect(got.out.toArray()).toEqual(want.out.toArray());
    expect(got.lse.toArray()).toEqual(want.lse.toArray());
    if (this.window > 0 || cache.length === 0) return;
    expectWithin(
      got,
      yardstickOfInputs({ q, k: cache.keys(), v: cache.values(), options: { causal: true } }),
    );
  }

  each(act: (cache: KVCache, b: number) => void): void {
    this.alone.forEach(act);
  }
}

const lengthsOf = (count: number, draw: readonly number[]): number[] =>
  draw.map((share) => Math.round(share * count));
const shares = fc.array(fc.constantFrom(0, 0.3, 0.7, 1), { minLength: B, maxLength: B });
const acts = fc.array(
  fc.record({
    what: fc.constantFrom(
      'append',
      'ragged',
      'step',
      'raggedStep',
      'truncate',
      'truncateEach',
      'keep',
      'fork',
    ),
    size: fc.oneof(fc.integer({ min: 1, max: 6 }), fc.integer({ min: 1, max: 150 })),
    shares,
  }),
  { minLength: 1, maxLength: 9 },
);

describe.each(backendsUnderTest())('$name', ({ backend, select }) => {
  beforeAll(select);

  test.each([0, 70])('is as many caches as there are entries, window %i', (window) => {
    fc.assert(
      fc.property(acts, (life) => {
        const models = [new Model({ backend, window: window || null })];
        if (window > 0) models[0].append(3, [1, 2, 3]); // lengths that differ must begin early
        for (const { what, size, shares: drawn } of life) {
          const model = models[size % models.length];
          const { cache, alone } = model;
          if (what === 'append') model.append(size, null);
          if (what === 'ragged') model.append(size, lengthsOf(size, drawn));
          if (what === 'step') model.step(Math.min(size, 4), null);
          if (what === 'raggedStep') model.step(Math.min(size, 4), lengthsOf(Math.min(size, 4), drawn));
          if (what === 'truncate' && window === 0) {
            const length = Math.max(0, cache.length - size);
            cache.truncate(length);
            for (const each of alone) each.truncate(Math.min(each.length, length));
          }
          if (what === 'truncateEach' && window === 0) {
            const lengths = alone.map((each, b) => Math.max(0, each.length - Math.round(drawn[b] * size)));
            cache.truncate(lengths);
            for (const [b, each] of alone.entries()) each.truncate(lengths[b]);
          }
          if (what === 'keep') {
            model.append(4, [4, 3, 4]);
            cache.keep([2, 0]);
            for (const each of alone) each.keep([2, 0]);
          }
          if (what === 'fork') models.push(model.fork());
          for (const each of models) each.expectAlike();
        }
        for (const { cache, alone } of models) for (const each of [cache, ...alone]) each.dispose();
      }),
      RUNS,
    );
  });

  test('off the event loop, and aborted', async () => {
    const model = new Model({ backend });
    model.append(5, [5, 1, 3]);
    const [q, k, v] = [random(4, 2), random(2, 2), random(2, 2)];
    const before = [...model.cache.lengths];
    await expect(
      model.cache.stepAsync(q, k, v, { lengths: [2, 0, 1], signal: AbortSignal.abort() }),
    ).rejects.toThrow();
    expect([...model.cache.lengths]).toEqual(before);
    const twin = model.cache.fork();
    const want = twin.step(q, k, v, { lengths: [2, 0, 1], returnLse: true });
    const got = await model.cache.stepAsync(q, k, v, { lengths: [2, 0, 1], returnLse: true });
    expect(got.out.toArray()).toEqual(want.out.toArray());
    expect(got.lse.toArray()).toEqual(want.lse.toArray());
    expect((await model.cache.attendAsync(q)).toArray()).toEqual(twin.attend(q).toArray());
    expect([...model.cache.lengths]).toEqual([7, 1, 4]);
  });

  test('masks, biases, slopes, offsets and sinks are of each entry', () => {
    const model = new Model({ backend });
    model.append(9, [9, 4, 6]);
    const q = random(4, 2);
    const options = {
      mask: Tensor.from([[[[true, false, true, true, true, true, true, true, true]]]], { dtype: 'bool' }),
      bias: Tensor.randn([B, 4, 2, 9], { seed: 1 }),
      alibiSlopes: Tensor.randn([B, 4], { seed: 2 }),
      sinks: [0.1, 0.2, 0.3, 0.4],
      queryOffset: [8, 1, 4],
    };
    const got = model.cache.attend(q, options);
    model.each((cache, b) => {
      const own = cache.length;
      const want = cache.attend(entry(q, b), {
        mask: options.mask.slice(3, 0, own),
        bias: entry(options.bias, b).slice(3, 0, own),
        alibiSlopes: entry(options.alibiSlopes, b),
        sinks: options.sinks,
        queryOffset: options.queryOffset[b],
      });
      expect(entry(got, b).toArray()).toEqual(want.toArray());
    });
  });

  test('a batch of one takes the first of its tokens too', () => {
    const cache = new KVCache({ numKvHeads: 2, headDim: DIM, backend });
    const [q, k, v] = [random(4, 5, 1), random(2, 5, 1), random(2, 5, 1)];
    const out = cache.step(q, k, v, { lengths: [3] });
    expect(cache.length).toBe(3);
    expect(cache.keys().toArray()).toEqual(k.slice(2, 0, 3).toArray());
    const twin = new KVCache({ numKvHeads: 2, headDim: DIM, backend });
    const want = twin.step(...([q, k, v].map((x) => x.slice(2, 0, 3)) as [Tensor, Tensor, Tensor]));
    expect(out.slice(2, 0, 3).toArray()).toEqual(want.toArray());
    expect(
      out
        .slice(2, 3)
        .toFloat32Array()
        .every((x) => x === 0),
    ).toBe(true);
    KVCache.stepAll([cache, twin], random(4, 1, 2), random(2, 1, 2), random(2, 1, 2));
  });

  test('bad lengths are refused, and nothing has changed', () => {
    const cache = new KVCache({ numKvHeads: 2, headDim: DIM, batch: B, maxLength: 8, backend });
    const [q, k, v] = [random(4, 5), random(2, 5), random(2, 5)];
    cache.append(k, v, { lengths: [5, 2, 1] });
    const refuse = (lengths: unknown, error: new (message: string) => Error, words: RegExp): void => {
      for (const act of [
        () => cache.append(k, v, { lengths: lengths as number[] }),
        () => cache.step(q, k, v, { lengths: lengths as number[] }),
      ]) {
        expect(act).toThrow(error);
        expect(act).toThrow(words);
        expect([...cache.lengths]).toEqual([5, 2, 1]);
      }
    };
    refuse([1, 2], ShapeError, /lengths must have one element a batch entry, shape \[3\]; got \[2\]/);
    refuse([1, 2, 6], OptionError, /lengths\[2\] must be from 0 to 5/);
    refuse([1, -1, 5], OptionError, /lengths\[1\]/);
    refuse([1, 0.5, 5], OptionError, /lengths/);
    refuse([4, 0, 0], CapacityError, /exceed maxLength 8/);
    expect(() => cache.append(k, v, { lenghts: [1] } as object)).toThrow(/did you mean 'lengths'/);
    expect(() => cache.attend(q, { lengths: [1, 1, 1] } as object)).toThrow(OptionError);
    expect(() => cache.step(q.slice(2, 0, 1), k, v, { lengths: [3, 2, 1] })).toThrow(/a row for each token/);
    expect(() => cache.truncate([1, 3, 1])).toThrow(/length\[1\] must be from 0 to 2/);
    expect(() => cache.keep([1])).toThrow(/of the 1 tokens/);
    expect(() => KVCache.stepAll([cache], q, k, v)).toThrow(ShapeError);
    cache.append(k, v, { lengths: [3, 3, 3] });
    expect([...cache.lengths]).toEqual([8, 5, 4]);
    cache.dispose();
    expect([...cache.lengths]).toEqual([0, 0, 0]);
    const late = new KVCache({ numKvHeads: 2, headDim: DIM, batch: B, window: 4, backend }).append(k, v);
    expect(() => late.append(k, v, { lengths: [1, 2, 3] })).toThrow(/from the first append on/);
    expect(late.length).toBe(5);
  });

  test.each(['append', 'step', 'stepAsync'] as const)('int8: %s refuses what is not finite', async (how) => {
    const options = { numKvHeads: 2, headDim: DIM, batch: B, dtype: 'int8', backend } as const;
    const cache = new KVCache(options).append(random(2, 3), random(2, 3), { lengths: [3, 1, 2] });
    cache.append(random(2, 4), random(2, 4));
    const twin = cache.fork();
    const [k, v] = [random(2, 2), random(2, 2)];
    k.data[k.size - 1] = NaN; // of the last entry's second token
    const act = (lengths: number[] | null): unknown =>
      how === 'append'
        ? cache.append(k, v, { lengths })
        : (cache[how] as KVCache['step'])(random(4, 2), k, v, { lengths });
    for (const lengths of [null, [0, 1, 2]])
      await expect((async () => act(lengths))()).rejects.toThrow('which an int8 cache cannot hold');
    expect(cache.lengths).toEqual(twin.lengths);
    for (const each of [cache, twin]) each.keep([0, 3]);
    expect(cache.lengths).toEqual(twin.lengths);
    expect(cache.keys().data).toEqual(twin.keys().data);
    await act([2, 0, 1]); // without that token
    expect(cache.lengths).toEqual(twin.lengths.map((own, b) => own + [2, 0, 1][b]));
  });

  test('a batch of one that is told its length in a list remains one cache', () => {
    const [k, v] = [random(2, 5, 1), random(2, 5, 1)];
    const [cache, twin] = [0, 1].map(() =>
      new KVCache({ numKvHeads: 2, headDim: DIM, backend }).append(k, v),
    );
    cache.truncate([3]);
    twin.truncate(3);
    const token = [random(4, 1, 1), random(2, 1, 1), random(2, 1, 1)] as const;
    expect(KVCache.stepAll([cache], ...token).data).toEqual(KVCache.stepAll([twin], ...token).data);
    expect(() => cache.truncate([5])).toThrow(/length\[0\] must be from 0 to 4/);
    expect(cache.length).toBe(4);
  });
});
