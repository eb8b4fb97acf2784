import { OptionError } from '../errors.ts';
import { nearestName } from '../nearest-name.ts';
import { formatValue } from '../tensor-layout.ts';
import { gemmaPresets } from './presets/gemma.ts';
import { otherPresets } from './presets/others.ts';
import { qwenPresets } from './presets/qwen.ts';

/**
 * The fields of real models' config.json that concern attention and the number of parameters, under their
 * real names, by preset name. What {@link describeModel} reads; never write to them.
 * @example PRESETS['llama3-8b'].num_key_value_heads; // 8
 */
export const PRESETS: Readonly<Record<string, Readonly<Record<string, unknown>>>> = {
  ...otherPresets,
  ...qwenPresets,
  ...gemmaPresets,
};

/**
 * All preset names, families together.
 * @example presetNames().includes('gemma3-27b'); // true
 */
export function presetNames(): string[] {
  return Object.keys(PRESETS);
}

/**
 * The config.json fields of a preset. The name's case does not matter.
 *
 * @throws OptionError for an unknown name; the message gives the nearest one, or all.
 * @example const model = describeModel(presetConfig('qwen3-30b-a3b'));
 */
export function presetConfig(name: string): Readonly<Record<string, unknown>> {
  if (typeof name !== 'string') {
    throw new OptionError(`presetConfig: name must be a string; got ${formatValue(name)}`);
  }
  const known = presetNames().find((preset) => preset === name.toLowerCase());
  if (known !== undefined) return PRESETS[known];
  const nearest = nearestName(name, presetNames());
  const remedy =
    nearest === undefined ? `known are ${presetNames().join(', ')}` : `did you mean '${nearest}'?`;
  throw new OptionError(`presetConfig: no preset is called ${formatValue(name)}; ${remedy}`);
}
