import { describe, expect, test } from 'vitest';
import { UsageError } from '../../../lib/cli/command.ts';
import { checkSamples, prepare } from '../../../lib/cli/prepare.ts';
import { randomTensor } from '../../../lib/cli/random-tensor.ts';
import type { Phase, Workload } from '../../../lib/cli/workloads.ts';
import { attention, referenceAttention, Tensor } from '../../../lib/index.ts';

const shape = { numHeads: 4, numKvHeads: 2, headDim: 16, valueDim: 8 };
const phases: Phase[] = ['prefill', 'chunked', 'decode'];
const workload = (phase: Phase, window = Infinity): Workload => ({
  phase,
  shape,
  context: 300,
  causal: true,
  window,
  dtype: 'float32',
});

describe('prepare', () => {
  test.each(phases)('%s: the result is right, run after run', async (phase) => {
    const scores = {
      scale: 0.3,
      softcap: 5,
      sinks: Tensor.randn([4], { seed: 1 }),
      alibiSlopes: Tensor.full([4], 0.1),
    };
    for (const window of [Infinity, 50]) {
      const prepared = prepare(workload(phase, window), { ...scores, coldBytes: 1e5 });
      for (let i = 0; i < 5; i++) {
        prepared.run();
        prepared.rewind();
      }
      await prepared.check();
      prepared.dispose();
    }
  });
});

test.each(phases)('%s: every dtype and precision is right to its own measure', async (phase) => {
  for (const dtype of ['float32', 'float16', 'bfloat16'] as const) {
    for (const precision of ['highest', 'high', 'medium'] as const) {
      const prepared = prepare({ ...workload(phase), dtype, precision });
      await prepared.check();
      prepared.dispose();
    }
  }
});

test.each(phases)('%s: the precision reaches attention', (phase) => {
  const prepared = prepare({ ...workload(phase), precision: 'low' as never });
  expect(() => prepared.run()).toThrow(/precision/);
  prepared.dispose();
});

test('a result good enough for precision medium does not pass as the highest', () => {
  const q = randomTensor([1, 4, 300, 16], 1);
  const k = randomTensor([1, 2, 300, 16], 2);
  const v = randomTensor([1, 2, 300, 8], 3);
  const out = attention(q.to('bfloat16'), k.to('bfloat16'), v.to('bfloat16'), { causal: true }).to('float32');
  checkSamples({ q, k, v, out }, { causal: true, precision: 'medium' });
  expect(() => checkSamples({ q, k, v, out }, { causal: true })).toThrow(/result is wrong/);
});

describe('checkSamples', () => {
  const q = randomTensor([1, 4, 32, 16], 1);
  const k = randomTensor([1, 2, 32, 16], 2);
  const v = randomTensor([1, 2, 32, 8], 3);
  const out = referenceAttention(q, k, v, { causal: true });

  test('a right result passes', () => checkSamples({ q, k, v, out }, { causal: true }));

  test.each([
    [0, 0],
    [1, 16],
    [3, 31],
  ])('a wrong number at head %d, query %d is seen', (head, query) => {
    const wrong = out.clone();
    wrong.data[(head * 32 + query) * 8 + 5] += 0.01;
    expect(() => checkSamples({ q, k, v, out: wrong }, { causal: true })).toThrow(UsageError);
  });

  test('other options are seen', () => {
    expect(() => checkSamples({ q, k, v, out }, { causal: true, scale: 0.2 })).toThrow(/result is wrong/);
  });
});

test('randomTensor: the same numbers for a seed, beyond its block too, and no zeros', () => {
  const x = randomTensor([1_100_000], 7);
  expect(x.data.slice(1_000_003, 1_000_013)).toEqual(x.data.slice(0, 10));
  expect(x.data.slice(0, 10)).toEqual(randomTensor([10], 7).data);
  expect(x.data.includes(0)).toBe(false);
});
