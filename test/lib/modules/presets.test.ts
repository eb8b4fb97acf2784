import { describe, expect, test } from 'vitest';
import { OptionError } from '../../../lib/errors.ts';
import { describeModel } from '../../../lib/modules/describe-model.ts';
import { PRESETS, presetConfig, presetNames } from '../../../lib/modules/presets.ts';

describe('presets', () => {
  // Layers of each kind as kind:numHeads/numKvHeads/headDim, and billions of weights where the model is known whole.
  test.each<[string, Record<string, number>, number | null]>([
    ['minimind2', { 'full:8/2/96': 16 }, null],
    ['minimind2-small', { 'full:8/2/64': 8 }, null],
    ['llama3-8b', { 'full:32/8/128': 32 }, 8.03],
    ['llama3-70b', { 'full:64/8/128': 80 }, 70.55],
    ['qwen3-30b-a3b', { 'full:32/4/128': 48 }, 30.53],
    ['qwen3.6-27b', { 'linear:48/16/128': 48, 'full:24/4/256': 16 }, 26.9],
    ['qwen3.5-9b', { 'linear:32/16/128': 24, 'full:16/4/256': 8 }, 8.95],
    ['qwen3-next-80b-a3b', { 'linear:32/16/128': 36, 'full:16/2/256': 12 }, 79.67],
    ['qwen3.5-397b-a17b', { 'linear:64/16/128': 45, 'full:32/2/256': 15 }, 396.35],
    ['qwen3.8-flash-next', { 'linear:48/16/128': 36, 'full:24/2/256': 12 }, null],
    ['gpt-oss-20b', { 'sliding 128:64/8/64': 12, 'full:64/8/64': 12 }, null],
    ['gpt-oss-120b', { 'sliding 128:64/8/64': 18, 'full:64/8/64': 18 }, null],
    ['gemma2-9b', { 'sliding 4096:16/8/256': 21, 'full:16/8/256': 21 }, 9.24],
    ['gemma2-27b', { 'sliding 4096:32/16/128': 23, 'full:32/16/128': 23 }, 27.23],
    ['gemma3-27b', { 'sliding 1024:32/16/128': 52, 'full:32/16/128': 10 }, 27.01],
    ['gemma4-12b', { 'sliding 1024:16/8/256': 40, 'full:16/1/512': 8 }, 11.91],
    ['gemma4-26b-a4b', { 'sliding 1024:16/8/256': 25, 'full:16/2/512': 5 }, 25.23],
    ['gemma4-e2b', { 'sliding 512:8/1/256': 28, 'full:8/1/512': 7 }, null],
    ['deepseek-v3', { 'full:128/128/192': 61 }, 671.03],
    ['bert-base', { 'full:12/12/64': 12 }, 0.11],
    ['whisper-large', { 'full:20/20/64': 32 }, null],
  ])('%s', (name, layers, billions) => {
    const model = describeModel(presetConfig(name));
    const counted: Record<string, number> = {};
    for (const layer of model.layers) {
      const kind = layer.window === undefined ? layer.kind : `${layer.kind} ${layer.window}`;
      const key = `${kind}:${layer.numHeads}/${layer.numKvHeads}/${layer.headDim}`;
      counted[key] = (counted[key] ?? 0) + 1;
    }
    expect(counted).toEqual(layers);
    expect(model.modelParameters === null ? null : Math.round(model.modelParameters / 1e7) / 100).toBe(
      billions,
    );
  });

  test('every preset is described, survives JSON, and its aliases are the same model', () => {
    expect(presetNames()).toHaveLength(23);
    for (const name of presetNames()) {
      const model = describeModel(presetConfig(name));
      expect(describeModel(JSON.stringify(PRESETS[name]))).toEqual(model);
      expect(JSON.parse(JSON.stringify(model))).toEqual(model);
    }
    expect(presetConfig('qwen3.5-27b')).toBe(presetConfig('qwen3.6-27b'));
    expect(presetConfig('qwen3.8-27b')).toBe(presetConfig('Qwen3.6-27B'));
  });

  test.each<[unknown, RegExp]>([
    ['lama3-8b', /did you mean 'llama3-8b'/],
    ['no such model', /known are minimind2, /],
    ['constructor', /no preset is called 'constructor'/],
    [undefined, /name must be a string; got undefined/],
  ])('refuses %j', (name, message) => {
    expect(() => presetConfig(name as string)).toThrow(OptionError);
    expect(() => presetConfig(name as string)).toThrow(message);
  });
});
