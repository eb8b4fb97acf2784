import fc from 'fast-check';
import { beforeAll, describe, expect, test } from 'vitest';
import type { DType } from '../../lib/dtype.ts';
import { type CacheAttentionOptions, KVCache } from '../../lib/kv-cache.ts';
import { Tensor } from '../../lib/tensor.ts';
import { backendsUnderTest } from '../backends.ts';
import { foreign } from '../cache-twins.ts';

// Random decode loops: steps of a few kinds, each many times in a row or in turns, on a cache that grows and shrinks
// between them, beside a twin whose every step is validated in full. FAST_CHECK_SEED and FAST_CHECK_RUNS look further.
const RUNS = {
  seed: Number(process.env.FAST_CHECK_SEED ?? 20260103),
  numRuns: Number(process.env.FAST_CHECK_RUNS ?? 40),
};

const dim = fc.oneof(fc.integer({ min: 1, max: 24 }), fc.constantFrom(16, 33, 64));
const dtypes = fc.constantFrom<DType>('float32', 'float16', 'bfloat16');
const layouts = fc.record({
  batch: fc.integer({ min: 1, max: 3 }),
  numKvHeads: fc.integer({ min: 1, max: 3 }),
  headDim: dim,
  valueDim: dim,
  dtype: dtypes,
});
type Layout = typeof layouts extends fc.Arbitrary<infer T> ? T : never;

const options = fc.record(
  {
    causal: fc.boolean(),
    scale: fc.double({ min: -1, max: 1, noNaN: true }),
    softcap: fc.double({ min: 0.5, max: 30, noNaN: true }),
    window: fc.record({ left: fc.nat(20), right: fc.nat(3), sinkTokens: fc.nat(3) }, { requiredKeys: [] }),
    queryOffset: fc.integer({ min: -3, max: 40 }),
    sinks: fc.constant(true),
    threads: fc.integer({ min: 1, max: 3 }),
  },
  { requiredKeys: [] },
);
const kinds = fc.record({
  group: fc.integer({ min: 1, max: 4 }),
  tokens: fc.oneof({ weight: 3, arbitrary: fc.constant(1) }, fc.nat(6)),
  qDType: dtypes,
  kvDType: fc.option(dtypes, { nil: undefined }),
  order: fc.constantFrom('BHLD' as const, 'BLHD' as const, 'no batch' as const),
  room: fc.nat(3),
  givesOut: fc.boolean(),
  options,
});
type Kind = typeof kinds extends fc.Arbitrary<infer T> ? T : never;

const acts = fc.oneof(
  { weight: 4, arbitrary: fc.record({ kind: fc.nat(2), times: fc.integer({ min: 1, max: 4 }) }) },
  { weight: 1, arbitrary: fc.record({ share: fc.double({ min: 0, max: 1, noNaN: true }) }) },
);

let seed = 0;

/** Random [batch, heads, tokens, width] as the kind lays it out, somewhere in a larger memory. */
function tensorOf({ order, room }: Kind, shape: readonly number[], dtype: DType): Tensor {
  const [batch, heads, tokens, width] = shape;
  const size = batch * heads * tokens * width;
  const { data } = Tensor.randn([size + 2 * room], { seed: ++seed, dtype });
  const offset = seed % (room + 1);
  if (order === 'BLHD')
    return new Tensor(data, [batch, tokens, heads, width], { dtype, offset }).transpose(1, 2);
  const dense = new Tensor(data, shape, { dtype, offset });
  return order === 'no batch' && batch === 1 ? dense.squeeze(0) : dense;
}

function stepBoth(cache: KVCache, twin: KVCache, layout: Layout, kind: Kind): void {
  const { batch, numKvHeads, headDim, valueDim, dtype } = layout;
  const { tokens, qDType, kvDType = dtype, givesOut } = kind;
  const numHeads = numKvHeads * kind.group;
  const q = tensorOf(kind, [batch, numHeads, tokens, headDim], qDType);
  const k = tensorOf(kind, [batch, numKvHeads, tokens, headDim], kvDType);
  const v = tensorOf(kind, [batch, numKvHeads, tokens, valueDim], kvDType);
  const sinks = kind.options.sinks ? Array.from({ length: numHeads }, (_, h) => h - 1) : null;
  const given: CacheAttentionOptions = { ...kind.options, sinks };
  const want = twin.step(foreign(q), foreign(k), foreign(v), given);
  const out = givesOut ? tensorOf(kind, [batch, numHeads, tokens, valueDim], qDType) : undefined;
  const got = cache.step(q, k, v, { ...given, out });
  if (out !== undefined) expect(got).toBe(out);
  expect(got.shape).toEqual(want.shape);
  expect(got.contiguous().clone().data).toEqual(want.data);
}

describe.each(backendsUnderTest())('$name', ({ backend, select }) => {
  beforeAll(select);

  test('a decode loop gives the same bits however its steps are done', () => {
    fc.assert(
      fc.property(
        layouts,
        fc.tuple(kinds, kinds, kinds),
        fc.array(acts, { minLength: 1, maxLength: 12 }),
        (layout, theKinds, life) => {
          const [cache, twin] = [new KVCache({ ...layout, backend }), new KVCache({ ...layout, backend })];
          for (const act of life) {
            if ('share' in act) {
              for (const each of [cache, twin]) each.truncate(Math.floor(act.share * each.length));
              continue;
            }
            for (let n = 0; n < act.times; n++) stepBoth(cache, twin, layout, theKinds[act.kind]);
          }
          expect(cache.length).toBe(twin.length);
          expect(cache.keys()).toEqual(twin.keys());
          expect(cache.values()).toEqual(twin.values());
          cache.dispose();
          twin.dispose();
        },
      ),
      RUNS,
    );
  });
});
