import { describe, expect, test } from 'vitest';
import type { DType } from '../../lib/dtype.ts';
import { CACHE_OPTIONS, type CacheAttentionOptions, readCacheOptions } from '../../lib/options.ts';
import { StepSignature } from '../../lib/step-signature.ts';
import { Tensor } from '../../lib/tensor.ts';

const make = (heads: number, length: number, dtype: DType = 'float32'): Tensor =>
  Tensor.empty([2, heads, length, 8], { dtype });
const read = (options: CacheAttentionOptions | null): CacheAttentionOptions =>
  readCacheOptions('test', options, CACHE_OPTIONS);

interface Step {
  readonly q: unknown;
  readonly k: unknown;
  readonly v: unknown;
  readonly options: CacheAttentionOptions | null;
}

const out = make(4, 1);
const WINDOW = { left: 7, sinkTokens: 2 };
const GIVEN: CacheAttentionOptions = {
  out,
  scale: 0.5,
  causal: true,
  window: WINDOW,
  softcap: 3,
  threads: 2,
};
const STEP: Step = { q: make(4, 1), k: make(2, 1), v: make(2, 1), options: GIVEN };

const signatureOf = ({ q, k, v, options }: Step, result: unknown = out): StepSignature | null =>
  StepSignature.of(q, k, v, result, read(options));
const outOf = (signature: StepSignature | null, { q, k, v, options }: Step): Tensor | null =>
  signature!.outOf(q, k, v, read(options));

describe('a step that goes on', () => {
  const signature = signatureOf(STEP);

  test('is known by other tensors and other options of the same values', () => {
    const another = make(4, 1);
    const options = { ...GIVEN, window: { sinkTokens: 2, left: 7 }, out: another };
    expect(outOf(signature, { q: make(4, 1), k: make(2, 1), v: make(2, 1), options })).toBe(another);
  });

  test('may begin anywhere in its memory', () => {
    const moved = new Tensor(new Float32Array(200), [2, 4, 1, 8], { offset: 136 });
    expect(outOf(signature, { ...STEP, q: moved })).toBe(out);
  });

  test('gets a fresh out each time where it gave none', () => {
    const first = { ...STEP, options: null };
    const [a, b] = [1, 2].map(() => outOf(signatureOf(first, out.transpose(1, 2).contiguous()), first));
    expect(a).toMatchObject({ shape: [2, 1, 4, 8], dtype: 'float32', offset: 0, isContiguous: true });
    expect(a!.data).not.toBe(b!.data);
  });
});

describe('a step that differs', () => {
  const other = <T extends object>(more: T): Step => ({ ...STEP, options: { ...GIVEN, ...more } });
  const strided = (x: Tensor): Tensor => x.transpose(1, 3).contiguous().transpose(1, 3);
  const without = (
    { ...options }: CacheAttentionOptions,
    name: keyof CacheAttentionOptions,
  ): CacheAttentionOptions => {
    Reflect.deleteProperty(options, name);
    return options;
  };

  test.each<[string, Step]>([
    ['queries of another number', { ...STEP, q: make(4, 2) }],
    ['more query heads', { ...STEP, q: make(8, 1) }],
    ['queries without a batch', { ...STEP, q: Tensor.empty([4, 1, 8]) }],
    ['queries of another dtype', { ...STEP, q: make(4, 1, 'float16') }],
    ['queries in another order', { ...STEP, q: strided(make(4, 1)) }],
    ['queries of another library', { ...STEP, q: { data: out.data, dims: out.shape, type: 'float32' } }],
    ['no queries', { ...STEP, q: undefined }],
    ['more keys', { ...STEP, k: make(2, 2) }],
    ['keys of another dtype', { ...STEP, k: make(2, 1, 'bfloat16') }],
    ['keys in another order', { ...STEP, k: strided(make(2, 1)) }],
    ['more values', { ...STEP, v: make(2, 2) }],
    ['values of another dtype', { ...STEP, v: make(2, 1, 'bfloat16') }],
    ['values in another order', { ...STEP, v: strided(make(2, 1)) }],
    ['out of another shape', other({ out: make(4, 2) })],
    ['out of another dtype', other({ out: make(4, 1, 'float16') })],
    ['out in another order', other({ out: strided(make(4, 1)) })],
    ['out of another library', other({ out: { data: out.data, dims: out.shape, type: 'float32' } as never })],
    ['no out', other({ out: null })],
    ['another scale', other({ scale: 0.25 })],
    ['the same scale as text', other({ scale: '0.5' as never })],
    ['no scale', { ...STEP, options: without(GIVEN, 'scale') }],
    ['causality left out', other({ causal: undefined })],
    ['no causality', other({ causal: false })],
    ['another softcap', other({ softcap: 4 })],
    ['other threads', other({ threads: 1 })],
    ['a precision', other({ precision: 'high' as const })],
    ['a backend', other({ backend: 'native' as const })],
    ['a wider window', other({ window: { ...WINDOW, left: 8 } })],
    ['a window with a right side', other({ window: { ...WINDOW, right: 0 } })],
    ['a window without sinks', other({ window: { left: 7 } })],
    ['no window', other({ window: null })],
    ['a queryOffset', other({ queryOffset: 3 })],
    ['an lse', other({ returnLse: true })],
    ['something for an lse', other({ returnLse: 0 as never })],
    ['a mask', other({ mask: Tensor.zeros([1], { dtype: 'bool' }) })],
    ['a bias', other({ bias: Tensor.zeros([1]) })],
    ['slopes', other({ alibiSlopes: [1, 2, 3, 4] })],
    ['sinks', other({ sinks: [1, 2, 3, 4] })],
    ['no options', { ...STEP, options: null }],
  ])('in %s', (_, step) => {
    expect(outOf(signatureOf(STEP), STEP)).toBe(out);
    expect(outOf(signatureOf(STEP), step)).toBe(null);
  });

  test('in an out where there was none', () => {
    expect(outOf(signatureOf({ ...STEP, options: null }), { ...STEP, options: { out } })).toBe(null);
  });
});

describe('no signature', () => {
  test.each<[string, CacheAttentionOptions]>([
    ['a queryOffset', { queryOffset: 0 }],
    ['an lse', { returnLse: true }],
    ['a mask', { mask: Tensor.zeros([1], { dtype: 'bool' }) }],
    ['a bias', { bias: Tensor.zeros([1]) }],
    ['slopes', { alibiSlopes: [1, 2, 3, 4] }],
    ['sinks', { sinks: [1, 2, 3, 4] }],
  ])('of a step with %s', (_, options) => {
    expect(signatureOf({ ...STEP, options })).toBe(null);
  });

  test('of a step with tensors of another library, or a result that is no tensor', () => {
    const foreign = { data: out.data, dims: out.shape, type: 'float32' };
    for (const name of ['q', 'k', 'v']) expect(signatureOf({ ...STEP, [name]: foreign })).toBe(null);
    expect(signatureOf(STEP, { out, lse: out })).toBe(null);
  });
});
