import { OptionError } from '../errors.ts';
import { copyList, formatValue } from '../tensor-layout.ts';
import type { ConfigFields, ModelConfig } from './model-config.ts';
import { type RopeScaling, resolveRope } from './rope-scaling.ts';

/** The rotary embedding of a layer, as the options of {@link rope}. */
export interface RopeDescription {
  readonly theta: number;
  /** The first `dim` channels of a head rotate. */
  readonly dim: number;
  /** config.json's scaling with max_position_embeddings filled in; null where nothing is scaled. */
  readonly scaling: RopeScaling | null;
}

/** Model types whose positions are learned, sinusoidal or relative rather than rotary. */
const WITHOUT_ROPE: ReadonlySet<unknown> = new Set([
  ...['bert', 'roberta', 'xlm-roberta', 'distilbert', 'electra', 'albert', 'gpt2', 'gpt_bigcode', 'gpt_neo'],
  ...['whisper', 'bart', 'mbart', 't5', 'mt5', 'bloom', 'mpt', 'opt', 'vit', 'clip_text_model'],
]);

/**
 * The rotary embedding of layers of one type, or null where the model has none. `rope_parameters` or
 * `rope_scaling` count, for all layers or keyed by layer type (Gemma), and so do the older `rope_theta`,
 * `rope_local_base_freq` (sliding layers of Gemma 3), `partial_rotary_factor`, `rotary_pct`, `rotary_dim`.
 */
export function layerRope(config: ModelConfig, layerType: string, headDim: number): RopeDescription | null {
  if (!hasRope(config)) return null;
  const parameters = ropeParameters(config, layerType);
  const localTheta =
    layerType === 'sliding_attention' ? config.optionalNumber('rope_local_base_freq') : undefined;
  // Gemma 3 scales and stretches its global layers alone.
  const isLocal = localTheta !== undefined && !isKeyedByLayerType(config);
  const scaling: RopeScaling = {
    ...(isLocal ? {} : parameters),
    rope_theta: isLocal
      ? localTheta
      : ((parameters.rope_theta as number | undefined) ??
        config.optionalNumber('rope_theta', 'rotary_emb_base')),
    partial_rotary_factor:
      (parameters.partial_rotary_factor as number | undefined) ??
      config.optionalNumber('partial_rotary_factor', 'rotary_pct', 'rope_pct'),
    original_max_position_embeddings:
      (parameters.original_max_position_embeddings as number | undefined) ??
      config.optionalInteger('original_max_position_embeddings'),
    max_position_embeddings: config.optionalInteger('max_position_embeddings'),
  };
  const { dim, theta } = resolveRope('describeModel', headDim, {
    dim: config.optionalInteger('rotary_dim'),
    scaling,
  });
  const isScaled = (scaling.rope_type ?? scaling.type ?? 'default') !== 'default';
  return { theta, dim: dim - (dim % 2), scaling: isScaled ? describedScaling(scaling) : null };
}

/** Whether positions enter by rotation, rather than by ALiBi or by an embedding that is added to the input. */
export function hasRope(config: ModelConfig): boolean {
  return !WITHOUT_ROPE.has(config.textType) && !config.flag('alibi');
}

function ropeParameters(config: ModelConfig, layerType: string): ConfigFields {
  const all = config.object('rope_parameters') ?? config.object('rope_scaling') ?? {};
  return isKeyedByLayerType(config) ? ((all[layerType] as ConfigFields | undefined) ?? {}) : all;
}

function isKeyedByLayerType(config: ModelConfig): boolean {
  const all = config.object('rope_parameters') ?? config.object('rope_scaling') ?? {};
  return [all.full_attention, all.sliding_attention].some(
    (entry) => typeof entry === 'object' && entry !== null,
  );
}

/** Beyond any model's number of channels. */
const MAX_FACTORS = 2 ** 16;

/** Of the fields those that are there. A JSON file can hold numbers that are none, such as 1e999. */
function describedScaling(scaling: RopeScaling): RopeScaling {
  const fields = Object.entries(scaling).filter(([, value]) => value !== undefined && value !== null);
  for (const [field, value] of fields) {
    const numbers = copyList(value, MAX_FACTORS) ?? [value];
    if (numbers.some((entry) => typeof entry === 'number' && !Number.isFinite(entry)))
      throw new OptionError(`describeModel: rope_scaling.${field} must be finite; got ${formatValue(value)}`);
  }
  return Object.fromEntries(fields);
}
