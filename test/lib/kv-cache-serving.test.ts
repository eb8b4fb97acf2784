import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { referenceAttention } from '../../lib/attention.ts';
import { OptionError } from '../../lib/errors.ts';
import { KVCache } from '../../lib/kv-cache.ts';
import { memoryInfo } from '../../lib/memory-info.ts';
import { Tensor } from '../../lib/tensor.ts';
import { backendsUnderTest } from '../backends.ts';

const HEADS = 2;
const DIM = 8;

/** k or v of these tokens, each of which has rows of its own: [1, HEADS, T, DIM]. */
function rowsOf(tokens: readonly number[], side: number): Tensor {
  const rows = tokens.map((token) =>
    Tensor.randn([HEADS, DIM], { seed: 1 + 2 * token + side }).toFloat32Array(),
  );
  const data = new Float32Array(HEADS * tokens.length * DIM);
  rows.forEach((row, t) => {
    for (let h = 0; h < HEADS; h++)
      data.set(row.subarray(h * DIM, (h + 1) * DIM), (h * tokens.length + t) * DIM);
  });
  return new Tensor(data, [1, HEADS, tokens.length, DIM]);
}

const queryOf = (length: number, seed: number): Tensor =>
  Tensor.randn([1, 2 * HEADS, length, DIM], { seed: 90000 + seed });

function expectNear(got: Tensor, want: Tensor): void {
  expect(got.shape).toEqual(want.shape);
  const [a, b] = [got.toFloat32Array(), want.toFloat32Array()];
  let worst = 0;
  a.forEach((x, i) => {
    worst = Math.max(worst, Math.abs(x - b[i]));
  });
  expect(worst).toBeLessThan(2e-6);
}

/** A cache and the tokens that it should hold. */
interface Held {
  cache: KVCache;
  tokens: number[];
  newest: number;
}

let nextToken = 0;

function appendTo(held: Held, count: number): void {
  const tokens = Array.from({ length: count }, () => nextToken++);
  held.cache.append(rowsOf(tokens, 0), rowsOf(tokens, 1));
  held.tokens.push(...tokens);
  held.newest = count;
}

/** That attention over the cache is attention over its tokens, for a few of the newest queries and for all of them. */
function expectAttends(held: Held, window: number, sinkTokens: number): void {
  expect(held.cache.length).toBe(held.tokens.length);
  if (held.tokens.length === 0) return;
  const options = window === 0 ? {} : { window: { left: window - 1, sinkTokens } };
  const [k, v] = [rowsOf(held.tokens, 0), rowsOf(held.tokens, 1)];
  for (const length of new Set([Math.max(1, Math.min(held.newest, 3)), Math.max(1, held.newest)])) {
    const q = queryOf(length, held.tokens.length);
    const want = referenceAttention(q, k, v, { causal: true, ...options });
    expectNear(held.cache.attend(q), want as Tensor);
  }
}

describe.each(backendsUnderTest())('$name', ({ backend, select }) => {
  beforeAll(select);
  const make = (options: object = {}): Held => ({
    cache: new KVCache({ numKvHeads: HEADS, headDim: DIM, backend, ...options }),
    tokens: [],
    newest: 0,
  });

  test('forks, truncation and kept branches never show on another cache', () => {
    const operation = fc.record({
      which: fc.nat(9),
      what: fc.constantFrom('append', 'append', 'truncate', 'keep', 'fork', 'dispose'),
      size: fc.nat(90),
    });
    fc.assert(
      fc.property(fc.array(operation, { maxLength: 14 }), (operations) => {
        const held = [make()];
        for (const { which, what, size } of operations) {
          const one = held[which % held.length];
          if (what === 'append') appendTo(one, size);
          if (what === 'truncate') {
            const length = Math.max(0, one.tokens.length - size);
            one.cache.truncate(length);
            one.newest = Math.max(0, one.newest - (one.tokens.length - length));
            one.tokens.length = length;
          }
          if (what === 'keep') {
            const indices = Array.from({ length: one.newest }, (_, i) => one.newest - 1 - i).filter(
              (i) => (i + size) % 3 !== 0,
            );
            one.cache.keep(indices);
            const begin = one.tokens.length - one.newest;
            one.tokens = [...one.tokens.slice(0, begin), ...indices.map((i) => one.tokens[begin + i])];
            one.newest = indices.length;
          }
          if (what === 'fork') held.push({ ...one, tokens: [...one.tokens], cache: one.cache.fork() });
          if (what === 'dispose' && held.length > 1) {
            one.cache.dispose();
            held.splice(held.indexOf(one), 1);
          }
          for (const each of held) expectAttends(each, 0, 0);
        }
        for (const { cache } of held) cache.dispose();
      }),
      { numRuns: 12 },
    );
  });

  test.each([
    [100, 0],
    [100, 7],
    [600, 70],
  ])('a window of %i tokens and %i sinks is the full cache with that window', (window, sinkTokens) => {
    const held = make({ window, sinkTokens });
    for (const count of [1, 50, 3, 200, 400, 1, 1, 300, 64, 700, 2, 5]) {
      appendTo(held, count);
      expectAttends(held, window, sinkTokens);
    }
    const kept = [...held.tokens.slice(0, sinkTokens), ...held.tokens.slice(-window)];
    expectNear(held.cache.keys(), rowsOf(kept, 0));
    expectNear(held.cache.values(), rowsOf(kept, 1));
    const fork: Held = { cache: held.cache.fork(), tokens: [...held.tokens], newest: held.newest };
    appendTo(held, 500);
    appendTo(fork, 3);
    for (const each of [held, fork]) expectAttends(each, window, sinkTokens);
    held.cache.dispose();
    appendTo(fork, 1000);
    expectAttends(fork, window, sinkTokens);
  });

  test('a prefill with many queries over a fork in pieces', () => {
    const held = make();
    appendTo(held, 333);
    const fork: Held = { cache: held.cache.fork(), tokens: [...held.tokens], newest: 0 };
    appendTo(held, 1);
    appendTo(fork, 150);
    const q = queryOf(150, 1);
    const want = referenceAttention(q, rowsOf(fork.tokens, 0), rowsOf(fork.tokens, 1), { causal: true });
    expectNear(fork.cache.attend(q), want as Tensor);
  });

  test('a narrower window of the call wins, a wider or open one does not', () => {
    const held = make({ window: 100, sinkTokens: 5 });
    appendTo(held, 400);
    const q = queryOf(1, 3);
    const [k, v] = [rowsOf(held.tokens, 0), rowsOf(held.tokens, 1)];
    for (const [window, left, sinkTokens] of [
      [{ left: 9 }, 9, 0],
      [{ left: 9, sinkTokens: 3 }, 9, 3],
      [{ left: 300, sinkTokens: 30 }, 99, 5],
      [{}, 99, 5],
      [{ right: 0 }, 99, 5],
      [{ left: Infinity, sinkTokens: 0 }, 99, 5],
    ] as const) {
      const want = referenceAttention(q, k, v, { causal: true, window: { left, sinkTokens } });
      expectNear(held.cache.attend(q, { window }), want as Tensor);
    }
  });

  test('steps with a window go on in place', () => {
    const held = make({ window: 64 });
    appendTo(held, 10);
    for (let i = 0; i < 400; i++) {
      const token = nextToken++;
      held.tokens.push(token);
      const q = queryOf(1, i);
      const out = held.cache.step(q, rowsOf([token], 0), rowsOf([token], 1));
      if (i % 37 !== 0) continue;
      const want = referenceAttention(q, rowsOf(held.tokens, 0), rowsOf(held.tokens, 1), {
        causal: true,
        window: { left: 63 },
      });
      expectNear(out, want as Tensor);
    }
  });

  test('what cannot be kept is refused, and the cache is as it was', () => {
    const held = make();
    appendTo(held, 5);
    for (const indices of [[5], [-1], [0, 0], [0.5], [NaN]]) {
      expect(() => held.cache.keep(indices)).toThrow(OptionError);
    }
    held.cache.truncate(3);
    expect(() => held.cache.keep([3])).toThrow(/from 0 to 2/);
    held.tokens.length = held.newest = 3;
    expectAttends(held, 0, 0);
    expect(() => make({ sinkTokens: 3 })).toThrow(/sinkTokens 3 without a window/);
    held.cache.dispose();
    expect(() => held.cache.fork()).toThrow(/disposed/);
  });

  test.skipIf(backend === 'reference')(
    'memory: forks share, windows stay constant, all is given back',
    () => {
      const before = memoryInfo();
      const held = make();
      appendTo(held, 5000);
      const prefix = memoryInfo().bytes;
      const forks = Array.from({ length: 20 }, () => held.cache.fork());
      expect(memoryInfo().bytes).toBe(prefix);
      expect(memoryInfo().caches).toBe(before.caches + 21);
      for (const fork of forks) fork.dispose();
      held.cache.dispose();
      expect(memoryInfo()).toMatchObject({ caches: before.caches, bytes: before.bytes });

      const window = make({ window: 512 });
      appendTo(window, 2000);
      const bytes = window.cache.byteLength;
      for (let i = 0; i < 40; i++) appendTo(window, 100);
      expect(window.cache.byteLength).toBeLessThanOrEqual(bytes);
      if (backend === 'native') {
        expect(() => window.cache.truncate(100)).toThrow(/left the window/);
      }
      window.cache.dispose();
    },
  );
});
