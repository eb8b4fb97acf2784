import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { ShapeError } from '../../lib/errors.ts';
import { KVCache } from '../../lib/kv-cache.ts';
import { Tensor } from '../../lib/tensor.ts';
import { backendsUnderTest } from '../backends.ts';
import { expectWithin, yardstickOfInputs } from '../tolerance.ts';

const RUNS = {
  seed: Number(process.env.FAST_CHECK_SEED ?? 20260102),
  numRuns: Number(process.env.FAST_CHECK_RUNS ?? 30),
};

const DIM = 16;
let seed = 0;
const random = (heads: number, tokens: number, n = 1): Tensor =>
  Tensor.randn([n, heads, tokens, DIM], { seed: ++seed });
const entry = (x: Tensor, n: number): Tensor => x.slice(0, n, n + 1);

/** Node i of a draft tree hangs on parents[i] < i, or, at -1, on the last token of the past. */
const treeOf = (draws: readonly number[]): number[] => draws.map((draw, i) => (draw % (i + 1)) - 1);
const trees = fc.array(fc.nat(1000), { minLength: 2, maxLength: 9 }).map(treeOf);

/** Itself and its ancestors. */
function pathTo(parents: readonly number[], node: number): number[] {
  const path: number[] = [];
  for (let i = node; i >= 0; i = parents[i]) path.unshift(i);
  return path;
}

/** [T, past + T]: what is before the tree, and of the tree what lies on the way to each node. */
function maskOf(parents: readonly number[], past = 0): Tensor {
  const T = parents.length;
  const mask = Tensor.full([T, past + T], 1, { dtype: 'bool' });
  for (let i = 0; i < T; i++) {
    const path = pathTo(parents, i);
    for (let j = 0; j < T; j++) mask.data[i * (past + T) + past + j] = path.includes(j) ? 1 : 0;
  }
  return mask;
}

describe.each(backendsUnderTest())('$name', ({ backend, select }) => {
  beforeAll(select);
  const make = (past: number): KVCache => {
    const cache = new KVCache({ numKvHeads: 2, headDim: DIM, backend });
    return past === 0 ? cache : cache.append(random(2, past), random(2, past));
  };
  const step = (cache: KVCache, parents: readonly number[], group: number) => {
    const T = parents.length;
    const [q, k, v] = [random(2 * group, T), random(2, T), random(2, T)];
    return { q, got: cache.step(q, k, v, { mask: maskOf(parents), returnLse: true }) };
  };

  test('a mask over the new tokens is the whole mask with the past visible', () => {
    fc.assert(
      fc.property(
        trees,
        fc.oneof(fc.nat(40), fc.constant(1500)),
        fc.constantFrom(1, 2, 9),
        (parents, past, group) => {
          const cache = make(past);
          const { q, got } = step(cache, parents, group);
          const inputs = { q, k: cache.keys(), v: cache.values() };
          const options = { causal: true, mask: maskOf(parents, past) };
          expectWithin(got, yardstickOfInputs({ ...inputs, options }));
          const again = cache.attend(q, { mask: maskOf(parents), returnLse: true });
          expect(again.out.toArray()).toEqual(got.out.toArray());
          cache.dispose();
        },
      ),
      RUNS,
    );
  });

  test('the accepted branch goes on as if it alone had been appended', () => {
    fc.assert(
      fc.property(trees, fc.nat(80), fc.nat(100), (parents, past, pick) => {
        const cache = make(past);
        const before = cache.fork();
        const T = parents.length;
        const [q, k, v] = [random(4, T), random(2, T), random(2, T)];
        cache.step(q, k, v, { mask: maskOf(parents) });
        const path = pathTo(parents, pick % T);
        cache.keep(path);
        for (const i of path) before.append(k.slice(2, i, i + 1), v.slice(2, i, i + 1));
        expect(cache.keys().toArray()).toEqual(before.keys().toArray());
        const next: [Tensor, Tensor, Tensor] = [random(4, 1), random(2, 1), random(2, 1)];
        expect(cache.step(...next).toArray()).toEqual(before.step(...next).toArray());
        for (const each of [cache, before]) each.dispose();
      }),
      RUNS,
    );
  });

  test('many caches, each with a tree of its own over a shared prefix', () => {
    const root = make(300);
    const caches = Array.from({ length: 5 }, (_, n) =>
      n === 0 ? root : root.fork().append(random(2, 3 + 20 * n), random(2, 3 + 20 * n)),
    );
    const T = 4;
    const drafts = caches.map((_, n) => treeOf([n, 7 * n + 1, n + 3, 5 * n]));
    const before = caches.map(({ length }) => length);
    const mask = Tensor.zeros([caches.length, 1, T, T], { dtype: 'bool' });
    drafts.forEach((parents, n) => {
      mask.data.set(maskOf(parents).data, n * T * T);
    });
    const [q, k, v] = [random(4, T, 5), random(2, T, 5), random(2, T, 5)];
    const got = KVCache.stepAll(caches, q, k, v, { mask, returnLse: true });
    caches.forEach((cache, n) => {
      const inputs = { q: entry(q, n), k: cache.keys(), v: cache.values() };
      const options = { causal: true, mask: maskOf(drafts[n], before[n]) };
      expectWithin(
        { out: entry(got.out, n), lse: entry(got.lse, n) },
        yardstickOfInputs({ ...inputs, options }),
      );
    });
  });

  test('entries of different lengths', () => {
    const cache = new KVCache({ numKvHeads: 2, headDim: DIM, batch: 2, backend });
    cache.append(random(2, 9, 2), random(2, 9, 2), { lengths: [9, 4] });
    const parents = [-1, 0, 0, 1];
    const [q, k, v] = [random(4, 4, 2), random(2, 4, 2), random(2, 4, 2)];
    const out = cache.step(q, k, v, { mask: maskOf(parents), lengths: [4, 3] });
    const want = [9, 4].map((past, b) => {
      const T = 4 - b;
      const alone = new KVCache({ numKvHeads: 2, headDim: DIM, backend });
      const kept = (x: Tensor): Tensor => entry(x, b).slice(2, 0, past + T);
      alone.append(kept(cache.keys()), kept(cache.values()));
      return alone.attend(entry(q, b).slice(2, 0, T), { mask: maskOf(parents.slice(0, T), past) });
    });
    want.forEach((rows, b) => {
      const got = entry(out, b).slice(2, 0, rows.shape[2]).toFloat32Array();
      rows.toFloat32Array().forEach((x, i) => {
        expect(got[i]).toBeCloseTo(x, 5);
      });
    });
  });

  test('masks of other shapes mean what they meant', () => {
    const cache = make(4);
    const q = random(4, 4);
    const full = maskOf([-1, 0, 1, 2]);
    // As many queries as keys: the mask is of all keys.
    const want = cache.attend(q, { causal: true });
    expect(cache.attend(q, { mask: full }).toArray()).toEqual(want.toArray());
    cache.append(random(2, 3), random(2, 3));
    for (const shape of [[1, 4], [3, 4], [4, 3], [4]])
      expect(() => cache.attend(q, { mask: Tensor.full(shape, 1, { dtype: 'bool' }) })).toThrow(ShapeError);
    expect(() => make(2).attend(q, { mask: full })).toThrow(ShapeError);
    expect(() => cache.attend(q, { bias: Tensor.zeros([4, 4]) })).toThrow(ShapeError);
    expect(cache.attend(q, { mask: Tensor.full([4, 1], 1, { dtype: 'bool' }) }).shape).toEqual([
      1,
      4,
      4,
      DIM,
    ]);
  });
});
