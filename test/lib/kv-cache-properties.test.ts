import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import { type AttentionResult, attention } from '../../lib/attention.ts';
import { type CacheAttentionOptions, KVCache } from '../../lib/kv-cache.ts';
import { Tensor } from '../../lib/tensor.ts';
import { backendsUnderTest } from '../backends.ts';
import { randomBias, randomMask } from '../cases.ts';
import { expectWithin, yardstickOfInputs } from '../tolerance.ts';

// Random lives of a cache beside a plain list of its tokens. The draws are the same at every run; FAST_CHECK_SEED and
// FAST_CHECK_RUNS look further.
const RUNS = {
  seed: Number(process.env.FAST_CHECK_SEED ?? 20260102),
  numRuns: Number(process.env.FAST_CHECK_RUNS ?? 40),
};

const dim = fc.oneof(fc.integer({ min: 1, max: 24 }), fc.constantFrom(16, 33, 64));
const layouts = fc.record({
  batch: fc.integer({ min: 1, max: 2 }),
  numKvHeads: fc.integer({ min: 1, max: 3 }),
  group: fc.integer({ min: 1, max: 4 }),
  headDim: dim,
  valueDim: dim,
});
type Layout = typeof layouts extends fc.Arbitrary<infer T> ? T : never;

const draws = fc.record(
  {
    causal: fc.boolean(),
    scale: fc.double({ min: -1, max: 1, noNaN: true }),
    softcap: fc.double({ min: 0.5, max: 30, noNaN: true }),
    left: fc.nat(40),
    sinkTokens: fc.nat(4),
    queryOffset: fc.integer({ min: -5, max: 150 }),
    mask: fc.constant(true),
    bias: fc.constant(true),
    alibi: fc.constant(true),
    sinks: fc.constant(true),
    threads: fc.integer({ min: 1, max: 3 }),
  },
  { requiredKeys: [] },
);
type Draws = typeof draws extends fc.Arbitrary<infer T> ? T : never;

const tokens = fc.oneof({ weight: 4, arbitrary: fc.nat(5) }, fc.integer({ min: 6, max: 90 }));
const acts = fc.oneof(
  fc.record({ kind: fc.constant('append' as const), tokens, tokenMajor: fc.boolean() }),
  fc.record({ kind: fc.constant('step' as const), tokens, draws }),
  fc.record({ kind: fc.constant('attend' as const), tokens, draws }),
  fc.record({ kind: fc.constant('truncate' as const), share: fc.double({ min: 0, max: 1, noNaN: true }) }),
  fc.record({ kind: fc.constant('fail' as const), tokens }),
);
type Act = typeof acts extends fc.Arbitrary<infer T> ? T : never;

function optionsOf(drawn: Draws, { batch, numKvHeads, group }: Layout, qLen: number, kvLen: number) {
  const numHeads = numKvHeads * group;
  const { causal, scale, softcap, queryOffset, threads } = drawn;
  const options: CacheAttentionOptions = {
    ...{ causal, scale, softcap, queryOffset, threads },
    window: drawn.left === undefined ? null : { left: drawn.left, sinkTokens: drawn.sinkTokens ?? null },
    mask: drawn.mask ? randomMask([batch, 1, qLen, kvLen], 5) : null,
    bias: drawn.bias ? randomBias([numHeads, 1, kvLen], 6) : null,
    alibiSlopes: drawn.alibi ? Float32Array.from({ length: numHeads }, (_, h) => 2 ** -h) : null,
    sinks: drawn.sinks ? Float32Array.from({ length: numHeads }, (_, h) => h - 1) : null,
  };
  return options;
}

/** The tokens of a cache as a plain list; a token is its keys and values [batch, numKvHeads, 1, dim]. */
class Model {
  readonly layout: Layout;
  tokens: { k: Tensor; v: Tensor }[] = [];
  #seed = 0;

  constructor(layout: Layout) {
    this.layout = layout;
  }

  /** Fresh random q, k, v of `count` tokens. */
  make(count: number): { q: Tensor; k: Tensor; v: Tensor } {
    const { batch, numKvHeads, group, headDim, valueDim } = this.layout;
    const random = (heads: number, width: number): Tensor =>
      Tensor.randn([batch, heads, count, width], { seed: ++this.#seed });
    const [q, k, v] = [
      random(numKvHeads * group, headDim),
      random(numKvHeads, headDim),
      random(numKvHeads, valueDim),
    ];
    return { q, k, v };
  }

  append(k: Tensor, v: Tensor): void {
    for (let t = 0; t < k.shape[2]; t++)
      this.tokens.push({ k: k.slice(2, t, t + 1), v: v.slice(2, t, t + 1) });
  }

  get keys(): Tensor {
    return this.#join('k', this.layout.headDim);
  }

  get values(): Tensor {
    return this.#join('v', this.layout.valueDim);
  }

  #join(side: 'k' | 'v', width: number): Tensor {
    const { batch, numKvHeads } = this.layout;
    const joined = Tensor.empty([batch, numKvHeads, this.tokens.length, width]);
    for (const [t, token] of this.tokens.entries()) {
      for (let n = 0; n < batch * numKvHeads; n++) {
        const row = token[side].slice(0, Math.floor(n / numKvHeads), Math.floor(n / numKvHeads) + 1);
        const head = row.slice(1, n % numKvHeads, (n % numKvHeads) + 1).toFloat32Array();
        joined.data.set(head, (n * this.tokens.length + t) * width);
      }
    }
    return joined;
  }
}

describe.each(backendsUnderTest())('$name', ({ backend, select }) => {
  beforeAll(select);

  const check = (got: AttentionResult, model: Model, q: Tensor, given: CacheAttentionOptions): void => {
    const options = { ...given, causal: given.causal ?? true };
    const [k, v] = [model.keys, model.values];
    expectWithin(got, yardstickOfInputs({ q, k, v, options }));
    const whole = attention(q, k, v, { ...options, backend, returnLse: true }) as AttentionResult;
    expect(got).toEqual(whole);
  };

  const act = (cache: KVCache, model: Model, what: Act): void => {
    if (what.kind === 'truncate') {
      const length = Math.floor(what.share * cache.length);
      cache.truncate(length);
      model.tokens.length = length;
      return;
    }
    const { q, k, v } = model.make(what.tokens);
    if (what.kind === 'append') {
      const order = (x: Tensor): Tensor =>
        what.tokenMajor ? x.transpose(1, 2).contiguous().transpose(1, 2) : x;
      cache.append(order(k), order(v));
      model.append(k, v);
    } else if (what.kind === 'fail') {
      expect(() => cache.step(q, k, v, { scale: NaN })).toThrow('scale');
    } else if (what.kind === 'step') {
      const given = optionsOf(what.draws, model.layout, what.tokens, cache.length + what.tokens);
      const got = cache.step(q, k, v, { ...given, returnLse: true });
      model.append(k, v);
      check(got, model, q, given);
    } else {
      const given = optionsOf(what.draws, model.layout, what.tokens, cache.length);
      check(cache.attend(q, { ...given, returnLse: true }), model, q, given);
    }
  };

  test('a cache behaves as a list of tokens', () => {
    fc.assert(
      fc.property(layouts, fc.array(acts, { minLength: 1, maxLength: 8 }), (layout, life) => {
        const { group: _, ...sizes } = layout;
        const cache = new KVCache({ ...sizes, backend });
        const model = new Model(layout);
        for (const what of life) {
          act(cache, model, what);
          expect(cache.length).toBe(model.tokens.length);
        }
        expect(cache.keys()).toEqual(model.keys);
        expect(cache.values()).toEqual(model.values);
        cache.dispose();
      }),
      RUNS,
    );
  });
});
