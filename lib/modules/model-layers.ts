import { OptionError } from '../errors.ts';
import { copyList, formatValue } from '../tensor-layout.ts';
import { type ConfigFields, type ModelConfig, words } from './model-config.ts';
import type { RopeDescription } from './model-rope.ts';
import { layerTypes } from './presets/layer-types.ts';

/** How far a layer sees: every key, a window of them, or a recurrent state that replaces them. */
export type LayerKind = 'full' | 'sliding' | 'linear';

/**
 * One attention layer. Of a linear layer numHeads are the value heads, numKvHeads the key heads, and each value
 * head owns a state [headDim, valueDim].
 */
export interface LayerDescription {
  readonly kind: LayerKind;
  /** Tokens that a query of a sliding layer sees, itself included: attention's `window` is { left: window - 1 }. */
  readonly window?: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly valueDim: number;
  /** Reads the keys and values of an earlier layer, and caches none. */
  readonly kvShared?: boolean;
  readonly rope: RopeDescription | null;
}

/** Kinds of transformers' `layer_types`. A sparse indexer chooses among all keys: its cache is a full one. */
const KIND_OF_TYPE: Readonly<Record<string, LayerKind>> = {
  full_attention: 'full',
  attention: 'full',
  indexed_attention: 'full',
  deepseek_sparse_attention: 'full',
  qwen_sparse_attention: 'full',
  sliding_attention: 'sliding',
  linear_attention: 'linear',
};

/** Fields by which models arrange their layers, where no layer_types says the same; what they mean is not known here. */
const OTHER_SCHEDULES = words(`
  attn_layer_period attn_layer_indices layers_block_type hybrid_override_pattern block_types
  attn_type_list full_attn_idxs attention_types global_attn_every_n_layers hybrid_layer_pattern
  attention_chunk_size dense_attention_every_n_layers layer_group_size attention_window mamba_d_state
  mamba_d_ssm`);

/** Fields by which layers differ from what a type can say: heads or caches of their own. */
const OTHER_LAYERS = words(
  'linear_attn_config block_configs num_attention_groups use_cla cross_attention_layers compress_ratios',
);

/** Model types whose layers are not the attention that their fields seem to state: recurrent, shared, of other widths. */
const OTHER_MODELS: ReadonlySet<string> = new Set(
  words('mamba2 xlstm jetmoe hrm_text mimo_v2_flash mobilebert squeezebert convbert funnel'),
);

/**
 * Which kind each layer is. `layer_types` where it is given, else the rule of the model's family: every
 * `full_attention_interval`-th layer full and the rest linear (Qwen3-Next and later), every
 * `sliding_window_pattern`-th full and the rest sliding (Gemma, gpt-oss, Cohere 2), the layers from
 * `max_window_layers` on sliding if `use_sliding_window` (Qwen2, Qwen3), all sliding where there is a
 * `sliding_window` (Mistral), else all full.
 */
export function layerKinds(config: ModelConfig, numLayers: number): LayerKind[] {
  if (OTHER_MODELS.has(config.textType)) {
    throw new OptionError(
      `describeModel: model_type '${config.textType}' is not supported: ` +
        'its layers are not the attention that the fields of its config.json state of others',
    );
  }
  const given = config.fields.layer_types ?? null;
  refuseOtherSchedules(config, given === null ? [...OTHER_SCHEDULES, ...OTHER_LAYERS] : OTHER_LAYERS);
  const listed = given ?? familyLayerTypes(config, numLayers);
  const types = Array.isArray(listed) ? copyList(listed, numLayers) : null;
  if (types === null || types.length !== numLayers) {
    throw new OptionError(
      `describeModel: layer_types must list one type for each of the ${numLayers} layers; ` +
        `got ${Array.isArray(listed) ? `${formatValue(listed.length)} entries` : formatValue(listed)}`,
    );
  }
  const kinds = types.map(kindOfType);
  // Gemma 4 ends with a global layer whatever its list says.
  if (config.isOf('gemma4')) kinds[numLayers - 1] = 'full';
  return kinds;
}

/** Fields that a layer may have for itself in transformers' per_layer_config. */
const LAYER_FIELDS = words('head_dim num_attention_heads num_key_value_heads sliding_window');

/** The config of each layer: the model's own, or with the fields that per_layer_config replaces there, by index ('05'). */
export function layerConfigs(config: ModelConfig, numLayers: number): ModelConfig[] {
  const configs: ModelConfig[] = Array(numLayers).fill(config);
  for (const [index, fields] of Object.entries(config.object('per_layer_config') ?? {})) {
    const isLayer = /^\d+$/.test(index) && Number(index) < numLayers;
    if (!isLayer || typeof fields !== 'object' || fields === null) {
      throw new OptionError(
        `describeModel: per_layer_config must have an object for some of the layers 0 to ${numLayers - 1}; ` +
          `got ${formatValue(fields)} for ${formatValue(index)}`,
      );
    }
    const replaced = { ...(fields as ConfigFields) };
    const unknown = Object.keys(replaced).find((name) => !LAYER_FIELDS.includes(name));
    if (unknown !== undefined) {
      throw new OptionError(
        `describeModel: per_layer_config replaces ${formatValue(unknown)} of layer ${Number(index)}, which is not ` +
          `supported; known are ${LAYER_FIELDS.join(', ')}`,
      );
    }
    configs[Number(index)] = config.withFields(replaced);
  }
  return configs;
}

/** A wrong schedule would give wrong bytes without a word. */
function refuseOtherSchedules({ fields }: ModelConfig, names: readonly string[]): void {
  const isSaid = (value: unknown) =>
    (value ?? false) !== false && !(Array.isArray(value) && value.length === 0);
  const found = names.find((name) => isSaid(fields[name]));
  if (found === undefined) return;
  throw new OptionError(
    `describeModel: config.json arranges its layers by ${found}, which is not supported; known are layer_types of ` +
      Object.keys(KIND_OF_TYPE).join(', '),
  );
}

function kindOfType(type: unknown): LayerKind {
  if (typeof type === 'string' && Object.hasOwn(KIND_OF_TYPE, type)) return KIND_OF_TYPE[type];
  throw new OptionError(
    `describeModel: layer type ${formatValue(type)} is not supported; known are ${Object.keys(KIND_OF_TYPE).join(', ')}`,
  );
}

function familyLayerTypes(config: ModelConfig, numLayers: number): string[] {
  const interval = config.optionalInteger('full_attention_interval');
  if (interval !== undefined) return layerTypes(numLayers, interval, 'linear_attention');

  const pattern = config.optionalInteger('sliding_window_pattern');
  if (pattern !== undefined) return layerTypes(numLayers, pattern, 'sliding_attention');

  const windowed = config.flag('use_sliding_window', true) && config.fields.sliding_window != null;
  // Qwen's first max_window_layers layers are full; 0 is legal and means that none is.
  const firstSliding = windowed ? (config.optionalNumber('max_window_layers') ?? 0) : numLayers;
  return Array.from({ length: numLayers }, (_, i) =>
    i < firstSliding ? 'full_attention' : 'sliding_attention',
  );
}
