import { afterEach, beforeEach, expect, vi } from 'vitest';
import type { DType } from '../lib/dtype.ts';
import { type CacheAttentionOptions, KVCache, type KVCacheOptions } from '../lib/kv-cache.ts';
import { NativeCacheStorage } from '../lib/native/cache.ts';
import { Tensor } from '../lib/tensor.ts';
import type { ForeignTensor } from '../lib/tensor-like.ts';
import type { BackendUnderTest } from './backends.ts';
import { LAYOUT } from './cache-parts.ts';

/** What a step appends and asks. */
export interface Token {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
}

let seed = 0;

/** Random q, k and v of `count` tokens for a cache of LAYOUT. */
export function token(count = 1, dtype: DType = 'float32', qDType = dtype): Token {
  const random = (heads: number, width: number, of: DType): Tensor =>
    Tensor.randn([2, heads, count, width], { seed: ++seed, dtype: of });
  return { q: random(6, 24, qDType), k: random(2, 24, dtype), v: random(2, 20, dtype) };
}

/** The same tensor as one of another library: a step with one is never taken for the last one again. */
export function foreign({ data, shape, dtype, strides, offset }: Tensor): ForeignTensor {
  return { data, dims: shape, type: dtype, strides, offset } as ForeignTensor;
}

/** An `out` for q on a cache of LAYOUT, full of sevens. */
export function outFor({ shape, dtype }: Tensor): Tensor {
  return Tensor.full([...shape.slice(0, -1), 20], 7, { dtype });
}

/** A cache under test, and a twin whose every step is validated in full: they must agree in every bit and word. */
export class Twins {
  readonly cache: KVCache;
  readonly twin: KVCache;
  readonly #options: KVCacheOptions;

  constructor(options: KVCacheOptions) {
    this.#options = options;
    this.cache = new KVCache(options);
    this.twin = new KVCache(options);
  }

  /** One step of both, each into an `out` of its own. */
  step({ q, k, v }: Token, options: CacheAttentionOptions = {}, out = outFor(q)): void {
    const want = outFor(q);
    this.twin.step(foreign(q), k, v, { ...options, out: want });
    Object.assign(options, { out });
    expect(this.cache.step(q, k, v, options)).toBe(out);
    expect(out.contiguous().data).toEqual(want.data);
    expect(this.cache.length).toBe(this.twin.length);
  }

  both(act: (cache: KVCache) => unknown): void {
    act(this.cache);
    act(this.twin);
  }

  expectAlike(): void {
    const { cache, twin } = this;
    expect(cache.length).toBe(twin.length);
    expect(cache.keys().data).toEqual(twin.keys().data);
    expect(cache.values().data).toEqual(twin.values().data);
  }

  /** That the step is refused, in the words in which a cache without a past refuses it, and nothing has changed. */
  refuse({ q, k, v }: Token, options: CacheAttentionOptions, error: unknown): void {
    const { cache } = this;
    const fresh = new KVCache(this.#options).append(cache.keys(), cache.values());
    const [message, want] = [cache, fresh].map((each) => {
      try {
        each.step(q, k, v, options);
      } catch (thrown) {
        expect(thrown).toBeInstanceOf(error);
        return (thrown as Error).message;
      }
      return expect.fail('was not refused');
    });
    fresh.dispose();
    expect(message).toBe(want);
    this.expectAlike();
  }

  dispose(): void {
    this.both((cache) => cache.dispose());
  }
}

/** For the tests of one backend: makes twins that go with each test, and counts the steps that were repeated. */
export function useTwins({ backend }: BackendUnderTest): {
  readonly twins: (more?: Partial<KVCacheOptions>) => Twins;
  readonly expectRepeated: (count: number) => void;
} {
  const repeatStep = vi.spyOn(NativeCacheStorage.prototype, 'repeatStep');
  const made: Twins[] = [];
  beforeEach(() => void repeatStep.mockClear());
  afterEach(() => {
    for (const each of made.splice(0)) each.dispose();
  });
  return {
    twins: (more = {}) => {
      const twins = new Twins({ ...LAYOUT, backend, ...more });
      made.push(twins);
      return twins;
    },
    /** Without validation, that is. The reference repeats none. */
    expectRepeated: (count) => {
      const done = repeatStep.mock.results.filter(({ value }) => value === true).length;
      expect(done).toBe(backend === 'native' ? count : 0);
    },
  };
}
