import { bytesPerElement } from '../dtype.ts';
import { DTypeError, OptionError } from '../errors.ts';
import { int8RowBytes } from '../tensor-int8.ts';
import { copyList, formatValue } from '../tensor-layout.ts';
import { ModelConfig, words } from './model-config.ts';
import { type LayerDescription, type LayerKind, layerConfigs, layerKinds } from './model-layers.ts';
import { type AttentionParameters, countAttention, countModel } from './model-parameters.ts';
import { hasAlibi, layerRope, layersWithoutRope } from './model-rope.ts';
import { type RopeScaling, yarnMscale } from './rope-scaling.ts';

export type { LayerDescription } from './model-layers.ts';

/** The dtypes a KVCache can have. */
export type CacheDType = 'float32' | 'float16' | 'bfloat16' | 'int8';

/** What a config.json says of a model's attention. Plain data: it survives JSON. */
export interface ModelDescription {
  readonly modelType: string;
  readonly numLayers: number;
  readonly hiddenSize: number;
  /** Of the first full layer (or of the first layer with softmax attention): see `layers` where they differ. */
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly groupSize: number;
  readonly headDim: number;
  readonly valueDim: number;
  /** attention's `scale`, `softcap` (0 = none), `causal`; whether heads have `sinks` or ALiBi slopes. */
  readonly scale: number;
  readonly softcap: number;
  readonly causal: boolean;
  readonly sinks: boolean;
  readonly alibi: boolean;
  readonly layers: readonly LayerDescription[];
  /**
   * Multi-head latent attention (DeepSeek-V2 §2.1.2): the shape of decoding with the up-projections absorbed,
   * in which all heads share one cached vector whose first valueDim channels are the value. Else null.
   */
  readonly absorbed: { readonly numKvHeads: 1; readonly headDim: number; readonly valueDim: number } | null;
  /** Of the first full layer; null and 0 where the model has no rotary embedding. */
  readonly ropeTheta: number | null;
  readonly ropeDim: number;
  readonly ropeScaling: RopeScaling | null;
  /** The longest context the model is made for; null where config.json does not say. */
  readonly maxPosition: number | null;
  /** Bytes that a token takes in the caches of all layers, while every window has room: kvCacheBytes of one token. */
  readonly kvBytesPerToken: Readonly<Record<CacheDType, number>>;
  /** Bytes of the recurrent states of all linear layers, whatever the context (short convolutions left out). */
  readonly linearStateBytes: number;
  readonly attentionParameters: AttentionParameters;
  /**
   * Weights of the whole text model without biases, norms, a sparse indexer and an encoder's pooler or head; null where
   * config.json does not say enough.
   */
  readonly modelParameters: number | null;
}

/**
 * Describes the attention of a model from its config.json: an object, or the JSON text. Understands the
 * configurations of Hugging Face transformers: Llama, Mistral, Qwen 2 to 4, Gemma 1 to 4, gpt-oss, Phi, DeepSeek
 * (multi-head latent attention), Falcon, GPT-2, BERT, Whisper (its decoder's self-attention), MiniMind, and what
 * uses their field names. `text_config` of composite models is entered.
 *
 * @throws OptionError, in one line, for invalid JSON, a missing field (all of them are named), a field of the
 * wrong type, or a layer type, another arrangement of layers (Jamba, Nemotron-H, Llama 4, GPT-Neo and the like) or a
 * rope_type that is not supported.
 * @example
 * const model = describeModel(await readFile('config.json', 'utf8'));
 * model.groupSize; // 4
 * model.kvBytesPerToken.bfloat16; // 131072
 */
export function describeModel(configJson: string | object): ModelDescription {
  const config = new ModelConfig(configJson);
  const { numLayers, hiddenSize } = readDimensions(config);
  const kinds = layerKinds(config, numLayers);
  const firstShared = numLayers - (config.optionalNumber('num_kv_shared_layers') ?? 0);
  const unrotated = layersWithoutRope(config, kinds);
  const configs = layerConfigs(config, numLayers);
  const layers = kinds.map((kind, i) => {
    const layer = describeLayer(configs[i], kind, readHeads(configs[i], hiddenSize), i >= firstShared);
    if (configs[i] !== config) configs[i].refuseMissing();
    return unrotated[i] ? { ...layer, rope: null } : layer;
  });
  config.refuseMissing();

  const softmaxLayers = layers.filter((layer) => layer.kind !== 'linear');
  const main = softmaxLayers.find((layer) => layer.kind === 'full') ?? softmaxLayers[0] ?? layers[0];
  const absorbed = absorbedShape(config);
  const attentionParameters = countAttention(config, hiddenSize, layers);
  const partial = {
    modelType: config.modelType,
    numLayers,
    hiddenSize,
    numHeads: main.numHeads,
    numKvHeads: main.numKvHeads,
    groupSize: main.numHeads / main.numKvHeads,
    headDim: main.headDim,
    valueDim: main.valueDim,
    scale: softmaxScale(config, main.headDim),
    softcap: config.optionalNumber('attn_logit_softcapping') ?? 0,
    causal: !config.isEncoder || config.flag('is_decoder'),
    sinks: config.isOf('gpt_oss'),
    alibi: hasAlibi(config),
    layers,
    absorbed,
    ropeTheta: main.rope?.theta ?? null,
    ropeDim: main.rope?.dim ?? 0,
    ropeScaling: main.rope?.scaling ?? null,
    maxPosition: config.optionalInteger(...MAX_POSITION) ?? null,
    linearStateBytes: linearStateBytes(config, layers),
    attentionParameters,
    modelParameters: countModel(config, hiddenSize, layers, attentionParameters),
  };
  const bytesOf = (dtype: CacheDType) => kvCacheBytes(partial, 1, dtype);
  const kvBytesPerToken = {
    float32: bytesOf('float32'),
    float16: bytesOf('float16'),
    bfloat16: bytesOf('bfloat16'),
    int8: bytesOf('int8'),
  };
  return { ...partial, kvBytesPerToken };
}

const CACHE_DTYPES: readonly CacheDType[] = ['float32', 'float16', 'bfloat16', 'int8'];

const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0;

/** What kvCacheBytes needs of the caller's model, each property read once and by its index; null where it is no model. */
function readModel(value: Pick<ModelDescription, 'layers' | 'absorbed'> | null | undefined) {
  const layers = copyList(value?.layers, MAX_LAYERS) as Partial<LayerDescription>[] | null;
  if (layers === null) return null;
  const absorbed = value?.absorbed;
  const absorbedDim = absorbed === null ? null : absorbed?.headDim;
  if (absorbedDim !== null && !isCount(absorbedDim)) return null;
  const caching: { numKvHeads: number; headDim: number; valueDim: number; window: number }[] = [];
  for (const layer of layers) {
    const { kind, kvShared, numKvHeads, headDim, valueDim, window } = layer ?? {};
    if (kind === 'linear' || kvShared === true) continue;
    if (!isCount(numKvHeads) || !isCount(headDim) || !isCount(valueDim)) return null;
    if (window !== undefined && !isCount(window)) return null;
    caching.push({ numKvHeads, headDim, valueDim, window: window ?? Infinity });
  }
  return { caching, absorbedDim };
}

/**
 * Bytes of keys and values that one sequence of `contextLength` tokens keeps in all layers: sliding layers stop at
 * their window, linear and sharing layers keep none, latent attention keeps one vector per token and layer.
 * int8 adds a float32 scale per token and head, for k and v each.
 * @example kvCacheBytes(describeModel(presetConfig('llama3-8b')), 8192, 'bfloat16') / 2 ** 30; // 1
 */
export function kvCacheBytes(
  model: Pick<ModelDescription, 'layers' | 'absorbed'>,
  contextLength: number,
  dtype: CacheDType,
): number {
  const known = readModel(model);
  if (known === null) {
    throw new OptionError(
      `kvCacheBytes: model must be what describeModel returns; got ${formatValue(model)}`,
    );
  }
  if (typeof contextLength !== 'number' || !(contextLength >= 0)) {
    throw new OptionError(
      `kvCacheBytes: contextLength must be a number, at least 0; got ${formatValue(contextLength)}`,
    );
  }
  if (!CACHE_DTYPES.includes(dtype)) {
    throw new DTypeError(
      `kvCacheBytes: dtype must be one of ${CACHE_DTYPES.join(', ')}; got ${formatValue(dtype)}`,
    );
  }
  const vectorBytes = (dim: number) => (dtype === 'int8' ? int8RowBytes(dim) : dim * bytesPerElement(dtype));
  let bytes = 0;
  for (const { numKvHeads, headDim, valueDim, window } of known.caching) {
    const tokens = Math.min(contextLength, window);
    const tokenBytes =
      known.absorbedDim === null
        ? numKvHeads * (vectorBytes(headDim) + vectorBytes(valueDim))
        : vectorBytes(known.absorbedDim);
    bytes += tokens * tokenBytes;
  }
  return bytes;
}

const MAX_POSITION = [
  'max_position_embeddings',
  'n_positions',
  'max_target_positions',
  'n_ctx',
  'max_seq_len',
];

/** Beyond any model: a broken config.json must not ask for lists of a billion layers. */
const MAX_LAYERS = 10000;

/** Head counts and sizes as the plain fields state them. */
interface Heads {
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
}

function readDimensions(config: ModelConfig): { numLayers: number; hiddenSize: number } {
  // A decoder's own fields first: what num_hidden_layers means there differs from model to model.
  const statedLayers =
    config.optionalInteger('decoder_layers', 'num_decoder_layers') ??
    config.integer('num_hidden_layers', 'n_layer', 'n_layers', 'num_layers', 'encoder_layers');
  // LongCat's num_layers counts blocks of two attentions.
  const isBlocks = config.isOf('longcat') && (config.fields.num_hidden_layers ?? null) === null;
  const numLayers = isBlocks ? 2 * statedLayers : statedLayers;
  readNumHeads(config); // so that one error names all that is missing
  const hiddenSize = config.integer('hidden_size', 'n_embd', 'd_model', 'dim');
  config.refuseMissing();
  if (numLayers > MAX_LAYERS) {
    throw new OptionError(`describeModel: num_hidden_layers must be at most ${MAX_LAYERS}; got ${numLayers}`);
  }
  return { numLayers, hiddenSize };
}

const readNumHeads = (config: ModelConfig): number =>
  config.optionalInteger('decoder_attention_heads') ??
  config.integer('num_attention_heads', 'n_head', 'n_heads', 'num_heads', 'encoder_attention_heads');

function readHeads(config: ModelConfig, hiddenSize: number): Heads {
  const numHeads = readNumHeads(config);
  const headDim = config.optionalInteger('head_dim', 'kv_channels', 'd_kv') ?? hiddenSize / numHeads;
  if (!Number.isInteger(headDim) && config.optionalInteger('kv_lora_rank') === undefined) {
    throw new OptionError(
      `describeModel: head_dim is missing and hidden_size ${hiddenSize} is no multiple of num_attention_heads ${numHeads}`,
    );
  }
  return { numHeads, numKvHeads: readKvHeads(config, numHeads), headDim };
}

function readKvHeads(config: ModelConfig, numHeads: number): number {
  // Falcon's first generation says multi_query and keeps a num_kv_heads that it does not use.
  const isMultiQuery =
    (config.flag('multi_query') && !config.flag('new_decoder_architecture')) ||
    config.fields.attn_type === 'multiquery_attention';
  const names = words(
    'num_key_value_heads num_kv_heads n_kv_heads n_head_kv kv_n_heads multi_query_group_num',
  );
  const numKvHeads = isMultiQuery ? 1 : (config.optionalInteger(...names) ?? numHeads);
  if (numHeads % numKvHeads === 0) return numKvHeads;
  throw new OptionError(
    `describeModel: num_attention_heads ${numHeads} must be a multiple of num_key_value_heads ${numKvHeads}`,
  );
}

function describeLayer(
  config: ModelConfig,
  kind: LayerKind,
  heads: Heads,
  kvShared: boolean,
): LayerDescription {
  if (kind === 'linear') return describeLinearLayer(config);
  const shape =
    config.optionalInteger('kv_lora_rank') === undefined
      ? headsOf(config, kind, heads)
      : latentHeads(config, heads);
  const rotaryWidth =
    config.optionalInteger('kv_lora_rank') === undefined ? shape.headDim : config.integer('qk_rope_head_dim');
  const window = kind === 'sliding' ? { window: config.integer('sliding_window') } : {};
  const rope = layerRope(config, `${kind}_attention`, rotaryWidth);
  return { kind, ...window, ...shape, ...(kvShared ? { kvShared } : {}), rope };
}

/** Gemma 4's global layers have heads of their own, in fields of the model unless per_layer_config says all of it. */
function headsOf(config: ModelConfig, kind: LayerKind, heads: Heads) {
  const hasGlobalHeads = config.isOf('gemma4') && kind === 'full' && !config.object('per_layer_config');
  if (!hasGlobalHeads) return { ...heads, valueDim: heads.headDim };
  const headDim = config.optionalInteger('global_head_dim') ?? heads.headDim;
  const globalKvHeads = config.flag('attention_k_eq_v')
    ? config.optionalInteger('num_global_key_value_heads')
    : undefined;
  return {
    numHeads: heads.numHeads,
    numKvHeads: globalKvHeads ?? heads.numKvHeads,
    headDim,
    valueDim: headDim,
  };
}

/** Multi-head latent attention as prefill computes it: every head has its own key and value. */
function latentHeads(config: ModelConfig, { numHeads }: Heads) {
  const headDim = config.integer('qk_nope_head_dim') + config.integer('qk_rope_head_dim');
  return { numHeads, numKvHeads: numHeads, headDim, valueDim: config.integer('v_head_dim') };
}

function absorbedShape(config: ModelConfig): ModelDescription['absorbed'] {
  const rank = config.optionalInteger('kv_lora_rank');
  if (rank === undefined) return null;
  return { numKvHeads: 1, headDim: rank + config.integer('qk_rope_head_dim'), valueDim: rank };
}

function describeLinearLayer(config: ModelConfig): LayerDescription {
  return {
    kind: 'linear',
    numHeads: config.integer('linear_num_value_heads'),
    numKvHeads: config.integer('linear_num_key_heads'),
    headDim: config.integer('linear_key_head_dim'),
    valueDim: config.integer('linear_value_head_dim'),
    rope: null,
  };
}

function linearStateBytes(config: ModelConfig, layers: readonly LayerDescription[]): number {
  // float32 unless config.json says otherwise: the recurrence is kept in it whatever the weights' dtype.
  const bytes =
    config.fields.mamba_ssm_dtype === 'bfloat16' || config.fields.mamba_ssm_dtype === 'float16' ? 2 : 4;
  let sum = 0;
  for (const layer of layers) {
    if (layer.kind === 'linear') sum += layer.numHeads * layer.headDim * layer.valueDim * bytes;
  }
  return sum;
}

/**
 * The factor on q·k: 1/sqrt(headDim), unless the family has its own: Gemma 2 and 3 `query_pre_attn_scalar`, Gemma 3n,
 * Gemma 4 and T5 none, Granite `attention_multiplier`, MPT `softmax_scale`, DeepSeek the square of YaRN's mscale on top.
 */
function softmaxScale(config: ModelConfig, headDim: number): number {
  if (config.isOf('gemma3n', 'gemma4', 't5') || !config.flag('scale_attn_weights', true)) return 1;
  const multiplier = config.optionalNumber('attention_multiplier', 'softmax_scale');
  if (multiplier !== undefined) return multiplier;
  const scale = 1 / Math.sqrt(config.optionalNumber('query_pre_attn_scalar') ?? headDim);
  const scaling = config.object('rope_parameters') ?? config.object('rope_scaling');
  const mscale = scaling?.mscale_all_dim;
  if (config.optionalInteger('kv_lora_rank') === undefined || typeof mscale !== 'number' || mscale === 0)
    return scale;
  return scale * yarnMscale(Number(scaling?.factor ?? 1), mscale) ** 2;
}
