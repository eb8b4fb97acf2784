import { describe, expect, test } from 'vitest';
import {
  cachedBytes,
  formatHeads,
  groupLayers,
  type Phase,
  SHAPES,
  tokensOf,
  usefulFlops,
  visiblePairs,
  type Workload,
} from '../../../lib/cli/workloads.ts';
import { describeModel } from '../../../lib/modules/describe-model.ts';
import { presetConfig } from '../../../lib/modules/presets.ts';

const workload = (phase: Phase, context: number, window = Infinity, causal = true): Workload => ({
  phase,
  shape: SHAPES.llama,
  context,
  causal,
  window,
  dtype: 'float32',
});

/** Counts what visiblePairs computes. */
function countPairs({ phase, context, window, causal }: Workload): number {
  let pairs = 0;
  for (let i = phase === 'decode' ? context - 1 : 0; i < context; i++) {
    for (let j = 0; j < context; j++) {
      if (!causal || (j <= i && j > i - window)) pairs++;
    }
  }
  return pairs;
}

describe('visiblePairs', () => {
  const phases: Phase[] = ['prefill', 'chunked', 'decode'];
  test.each(phases)('%s: as counted one by one', (phase) => {
    for (const context of [1, 2, 7, 40]) {
      for (const window of [1, 2, 7, 39, 40, 41, Infinity]) {
        const w = workload(phase, context, window);
        expect(visiblePairs(w), `${context} ${window}`).toBe(countPairs(w));
      }
    }
  });

  test('without causality every pair', () => {
    expect(visiblePairs(workload('prefill', 40, Infinity, false))).toBe(1600);
  });
});

test('useful FLOPs: 4·Lk·D·Hq in decode, half of 4·L²·D·Hq and half the diagonal in a causal prefill', () => {
  expect(usefulFlops(workload('decode', 8192))).toBe(4 * 8192 * 128 * 32);
  expect(usefulFlops(workload('prefill', 2048))).toBe(2 * 2048 * 2049 * 128 * 32);
});

test('v may have a head size of its own', () => {
  const shape = { numHeads: 2, numKvHeads: 1, headDim: 8, valueDim: 4 };
  const w: Workload = { ...workload('decode', 10), shape };
  expect(usefulFlops(w)).toBe((2 * 8 + 2 * 4) * 2 * 10);
  expect(cachedBytes(w)).toBe(10 * (8 + 4) * 4);
  expect(formatHeads(shape)).toBe('2/1/8-4');
});

test('bytes of k and v: once for each kv head, a window at most, in the dtype of the cache', () => {
  expect(cachedBytes(workload('decode', 8192))).toBe(8192 * 8 * 128 * 2 * 4);
  expect(cachedBytes({ ...workload('decode', 8192), dtype: 'float16' })).toBe(8192 * 8 * 128 * 2 * 2);
  expect(cachedBytes(workload('decode', 8192, 128))).toBe(128 * 8 * 128 * 2 * 4);
});

test('tokens: the prompt, or one', () => {
  expect([workload('prefill', 64), workload('chunked', 64), workload('decode', 64)].map(tokensOf)).toEqual([
    64, 64, 1,
  ]);
});

describe('groupLayers', () => {
  const groupsOf = (preset: string) => groupLayers(describeModel(presetConfig(preset)));

  test('layers that are alike stand together, linear ones aside', () => {
    const { groups, numLinear } = groupsOf('qwen3.6-27b');
    expect(groups.map(({ name, count, shape }) => [name, count, formatHeads(shape)])).toEqual([
      ['full', 16, '24/4/256'],
    ]);
    expect(numLinear).toBe(48);
  });

  test('sliding and full layers are two kinds', () => {
    const { groups } = groupsOf('gemma3-27b');
    expect(groups.map(({ name, count, window }) => [name, count, window])).toEqual([
      ['sliding 1024', 52, 1024],
      ['full', 10, Infinity],
    ]);
  });

  test('latent attention decodes in its absorbed shape', () => {
    const [group] = groupsOf('deepseek-v3').groups;
    expect([formatHeads(group.shape), formatHeads(group.decodeShape)]).toEqual([
      '128/128/192-128',
      '128/1/576-512',
    ]);
  });
});
