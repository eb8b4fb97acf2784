import { beforeAll, describe, expect, test } from 'vitest';
import { DTypeError, OptionError, ShapeError } from '../../lib/errors.ts';
import type { CacheAttentionOptions } from '../../lib/kv-cache.ts';
import { Tensor } from '../../lib/tensor.ts';
import { backendsUnderTest } from '../backends.ts';
import { foreign, outFor, type Token, token, useTwins } from '../cache-twins.ts';

/** Gives the memory of x away, as postMessage with a transfer list does. */
function transfer(x: Tensor): Tensor {
  const buffer = x.data.buffer as ArrayBuffer;
  structuredClone(buffer, { transfer: [buffer] });
  return x;
}

// What the last step was like must not outlive it.
describe.each(backendsUnderTest())('$name: a step that differs from the last one', (under) => {
  const { backend, select } = under;
  beforeAll(select);
  const { twins, expectRepeated } = useTwins(under);

  test('in its shapes, there and back', () => {
    const pair = twins();
    for (const count of [1, 1, 3, 3, 1, 0, 1, 1]) pair.step(token(count));
    const { q, k, v } = token();
    pair.step({ q: Tensor.randn([2, 12, 1, 24]), k, v });
    pair.step({ q, k, v });
    pair.expectAlike();
    expectRepeated(3);
  });

  test('in the dtype of q, and of what is appended, which is converted', () => {
    const pair = twins();
    for (const dtype of ['float32', 'float16', 'bfloat16', 'float32'] as const) {
      pair.step(token(1, 'float32', dtype));
      pair.step(token(1, dtype));
      pair.step(token(1, dtype));
    }
    pair.expectAlike();
  });

  test('in an option of the same object', () => {
    const pair = twins();
    const options: Record<string, unknown> = {};
    const changes = [
      { scale: 0.4 },
      { softcap: 1 },
      { window: { left: 2 } },
      { scale: null },
      { causal: false },
    ];
    for (const change of changes) {
      Object.assign(options, change);
      pair.step(token(), options);
      pair.step(token(), options);
    }
    expectRepeated(changes.length);
    (options.window as { left: number }).left = 0;
    pair.step(token(), options);
    delete options.window;
    pair.step(token(), options);
    Object.assign(options, { bias: Tensor.randn([6, 1, 1]), sinks: [1, 2, 3, 4, 5, 6] });
    pair.step(token(), options);
    Object.assign(options, { bias: null, sinks: undefined });
    pair.step(token(), options);
    pair.expectAlike();
    expectRepeated(changes.length);
  });

  test.each<[string, object]>([
    ['an unknown name', { scael: 1 }],
    ['no number', { scale: NaN }],
    ['a number as text', { scale: '1' }],
    ['a number for a boolean', { causal: 1 }],
    ['no threads', { threads: 0 }],
    ['an unknown word', { precision: 'hihg' }],
    ['a number for a window', { window: 5 }],
    ['a list for a window', { window: [] }],
    ['an unknown side of the window', { window: { lfet: 1 } }],
    ['a negative side', { window: { left: -1 } }],
    ['a negative softcap', { softcap: -1 }],
    ['what describes keys', { kvLengths: [1, 1] }],
    ['a signal', { signal: null }],
    ['the other backend', { backend: backend === 'native' ? 'reference' : 'native' }],
    ['text for returnLse', { returnLse: 'no' }],
  ])('in an option that is refused: %s', (_, more) => {
    const pair = twins();
    const out = Tensor.empty([2, 6, 1, 20]);
    const good: CacheAttentionOptions = { window: {}, out };
    for (let n = 0; n < 2; n++) pair.step(token(), good, out);
    out.data.fill(7);
    pair.refuse(token(), Object.assign(good, more), OptionError);
    pair.refuse(token(), { ...good }, OptionError);
    expect(out.data.every((x) => x === 7)).toBe(true);
    pair.step(token(), { window: {} });
    expectRepeated(2);
  });

  test.each([5, 'options', [[]], new Map()])('in options that are none: %s', (options) => {
    const pair = twins();
    for (let n = 0; n < 2; n++) pair.step(token());
    pair.refuse(token(), options as object, OptionError);
  });

  test('in tensors that are refused', () => {
    const pair = twins();
    const { q, k, v } = token();
    const out = outFor(q);
    pair.step({ q, k, v }, {}, out);
    const cases: [Partial<Record<keyof Token, unknown>>, Tensor, unknown][] = [
      [{ q: Tensor.zeros([2, 5, 1, 24]) }, out, ShapeError],
      [{ q: q.to('int8') }, out, DTypeError],
      [{ q: null }, out, DTypeError],
      [{ k: v }, out, ShapeError],
      [{ v: v.to('int8') }, out, DTypeError],
      [{}, Tensor.zeros([2, 6, 2, 20]), ShapeError],
      [{}, out.to('float16'), DTypeError],
      [{}, new Tensor(out.data, out.shape, { strides: [120, 0, 20, 1] }), ShapeError],
    ];
    for (const [tensors, place, error] of cases) {
      pair.refuse({ q, k, v, ...tensors } as Token, { out: place }, error);
    }
    pair.step({ q, k, v }, {}, out);
    expectRepeated(1);
  });

  test.each(['q', 'k', 'v', 'out'] as const)('in memory that is gone: %s', (name) => {
    const pair = twins();
    pair.step(token());
    const tensors = { ...token(), out: Tensor.zeros([2, 6, 1, 20]) };
    transfer(tensors[name]);
    pair.refuse(tensors, { out: tensors.out }, ShapeError);
    pair.step(token());
    expectRepeated(1);
  });

  test('in an out that shares memory with q', () => {
    const pair = twins({ valueDim: 24 });
    const { k, q } = token();
    const v = Tensor.randn([2, 2, 1, 24], { seed: 1 });
    const memory = Tensor.randn([2 * 288], { seed: 2 }).data;
    const at = (offset: number): Tensor => new Tensor(memory, [2, 6, 1, 24], { offset });
    pair.both((cache) => cache.step(q, k, v, { out: Tensor.empty([2, 6, 1, 24]) }));
    for (const offset of [0, 1, 287]) pair.refuse({ q: at(0), k, v }, { out: at(offset) }, OptionError);
    for (const offset of [1, 287, 288]) pair.refuse({ q: at(offset), k, v }, { out: at(1) }, OptionError);
    const want = pair.twin.step(foreign(at(0)), k, v);
    expect(pair.cache.step(at(0), k, v, { out: at(288) }).data).toBe(memory);
    expect(memory.slice(288)).toEqual(want.data);
    expectRepeated(1);
  });
});
