import { expect } from 'vitest';
import type { KVCache } from '../lib/kv-cache.ts';
import { Tensor } from '../lib/tensor.ts';

/** Two batch entries, three query heads a kv head, values of another size than keys. */
export const LAYOUT = { batch: 2, numKvHeads: 2, headDim: 24, valueDim: 20 };

/** Random keys, values and queries for a cache of {@link LAYOUT}. */
export const keysOf = (tokens: number, seed: number): Tensor => Tensor.randn([2, 2, tokens, 24], { seed });
export const valuesOf = (tokens: number, seed: number): Tensor => Tensor.randn([2, 2, tokens, 20], { seed });
export const queriesOf = (tokens: number, seed = 3): Tensor => Tensor.randn([2, 6, tokens, 24], { seed });

/** That the cache holds exactly these tokens. */
export function expectHolds(cache: KVCache, k: Tensor, v: Tensor): void {
  expect(cache.length).toBe(k.shape[2]);
  expect(cache.keys().toArray()).toEqual(k.toArray());
  expect(cache.values().toArray()).toEqual(v.toArray());
}
