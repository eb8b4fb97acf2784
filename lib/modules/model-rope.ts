import { OptionError } from '../errors.ts';
import { copyList, formatValue } from '../tensor-layout.ts';
import { type ConfigFields, type ModelConfig, words } from './model-config.ts';
import type { LayerKind } from './model-layers.ts';
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
const WITHOUT_ROPE: ReadonlySet<unknown> = new Set(
  words(`
  bert roberta xlm-roberta distilbert electra albert gpt2 gpt_bigcode gpt_neo whisper bart mbart t5
  mt5 bloom mpt opt vit clip_text_model clip_vision_model camembert mpnet deberta deberta-v2 biogpt
  xglm marian pegasus m2m_100 siglip_text_model siglip_vision_model bert-generation bigbird_pegasus blenderbot
  blenderbot-small cpmant ctrl git mvp openai-gpt plbart tapas trocr xlnet`),
);

/** Fields that say that a model with BERT's segments rotates, which most do not. */
const ROTARY_FIELDS = words(
  'rope_theta rope_parameters rope_scaling rotary_dim rotary_emb_base rotary_emb_fraction',
);

/** What `position_embedding_type` says where positions do not enter by rotation. */
const NOT_ROTARY: ReadonlySet<unknown> = new Set(
  words('alibi nope absolute learned_absolute relative_key relative_key_query'),
);

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
    rope_theta: isLocal ? localTheta : ((parameters.rope_theta as number | undefined) ?? statedTheta(config)),
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
  return (
    !WITHOUT_ROPE.has(config.textType) &&
    !NOT_ROTARY.has(config.fields.position_embedding_type) &&
    !hasAlibi(config) &&
    (!config.hasSegments || saysRotary(config))
  );
}

function saysRotary(config: ModelConfig): boolean {
  return (
    config.isOf('roformer') ||
    (config.fields.position_embedding_type ?? null) !== null || // one that NOT_ROTARY does not list
    ROTARY_FIELDS.some((name) => (config.fields[name] ?? null) !== null)
  );
}

/** Whether positions enter as ALiBi's biases. */
export function hasAlibi(config: ModelConfig): boolean {
  // Baichuan's config.json does not say: the model of hidden size 4096 rotates, the larger one does not.
  const isFamily = config.isOf('bloom') || (config.isOf('baichuan') && config.fields.hidden_size !== 4096);
  return config.flag('alibi', isFamily) || config.fields.position_embedding_type === 'alibi';
}

/**
 * Which layers of these kinds leave positions out: where `no_rope_layers` has a 0, else every `no_rope_layer_interval`-th
 * (SmolLM3); in Cohere 2 and EXAONE 4 the full ones among sliding ones.
 */
export function layersWithoutRope(config: ModelConfig, kinds: readonly LayerKind[]): boolean[] {
  if (config.isOf('cohere2', 'exaone4', 'exaone_moe'))
    return kinds.map((kind) => kind === 'full' && (config.fields.sliding_window ?? null) !== null);
  const listed = copyList(config.fields.no_rope_layers, MAX_LIST) ?? [];
  if (listed.length >= kinds.length) return kinds.map((_, i) => !listed[i]);
  const interval = config.optionalInteger('no_rope_layer_interval') ?? Infinity;
  return kinds.map((_, i) => (i + 1) % interval === 0);
}

/** The base that the plain fields state; ChatGLM's stretch 10000 by a ratio. */
function statedTheta(config: ModelConfig): number | undefined {
  const ratio = config.isOf('chatglm') ? config.optionalNumber('rope_ratio') : undefined;
  return ratio === undefined ? config.optionalNumber('rope_theta', 'rotary_emb_base') : 10000 * ratio;
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

/** Elements of a list: beyond any model's number of channels or layers. */
const MAX_LIST = 2 ** 16;

/** Of the fields those that are there. A JSON file can hold numbers that are none, such as 1e999. */
function describedScaling(scaling: RopeScaling): RopeScaling {
  const fields = Object.entries(scaling).filter(([, value]) => value !== undefined && value !== null);
  for (const [field, value] of fields) {
    const numbers = copyList(value, MAX_LIST) ?? [value];
    if (numbers.some((entry) => typeof entry === 'number' && !Number.isFinite(entry)))
      throw new OptionError(`describeModel: rope_scaling.${field} must be finite; got ${formatValue(value)}`);
  }
  return Object.fromEntries(fields);
}
