import { copyList } from '../tensor-layout.ts';
import { type ModelConfig, words } from './model-config.ts';
import type { LayerDescription } from './model-layers.ts';
import { hasRope } from './model-rope.ts';

/** Numbers of weights in the projections of all softmax attention layers, biases and norms left out. */
export interface AttentionParameters {
  readonly q: number;
  readonly k: number;
  readonly v: number;
  readonly o: number;
  readonly total: number;
}

/** Model types that share the embedding with the output where config.json does not say. */
const TIED = words('gemma gpt2 gpt_bigcode minimind falcon bloom opt mpt cohere starcoder2 biogpt');
/** Model types whose feed-forward is a gated one, of three matrices; a config.json without a type is taken for Llama's. */
const GATED = words(`
  llama mistral mixtral ministral qwen gemma phi3 phi4 phimoe deepseek kimi_k2 gpt_oss cohere olmo
  granite glm smollm3 internlm exaone stablelm seed_oss minimind minicpm baichuan ernie4_5
  unknown`);
/** Model types whose feed-forward has two matrices. */
const UNGATED = words(`
  bert roberta xlm-roberta distilbert electra camembert mpnet esm gpt2 gpt_bigcode gpt_neox gptj
  codegen bloom opt mpt falcon phi starcoder2 biogpt nemotron arcee persimmon`);
/** Of these families, those whose experts or widths have other fields than the ones that are read here. */
const UNCOUNTED = ['llama4', 'granitemoe', 'ernie4_5_moe', 'ernie4_5_vl', 'exaone_moe', 'esmc'];

/**
 * Weights of the q, k, v and o projections. An output gate (Qwen3-Next and later) doubles q; multi-head latent
 * attention counts its down- and up-projections, the shared latent and rotary key with k (DeepSeek-V2 §2.1);
 * layers that share another's keys and values have neither; Gemma 4's K = V layers have no v; ALBERT's layers are
 * one group again and again.
 */
export function countAttention(config: ModelConfig, hidden: number, layers: readonly LayerDescription[]) {
  const sums = { q: 0, k: 0, v: 0, o: 0 };
  const gate = config.flag('attn_output_gate') ? 2 : 1;
  const kvLoraRank = config.optionalInteger('kv_lora_rank');
  const keyIsValue = config.isOf('gemma4') && config.flag('attention_k_eq_v');
  const distinct = config.isOf('albert') ? (config.optionalInteger('num_hidden_groups') ?? 1) : layers.length;
  for (const layer of layers.slice(0, distinct)) {
    if (layer.kind === 'linear') continue;
    const { numHeads, numKvHeads, headDim, valueDim } = layer;
    sums.o += numHeads * valueDim * hidden;
    if (kvLoraRank !== undefined) {
      const rotary = config.integer('qk_rope_head_dim');
      const qLoraRank = config.optionalInteger('q_lora_rank');
      const qOut = numHeads * headDim;
      sums.q += qLoraRank === undefined ? hidden * qOut : hidden * qLoraRank + qLoraRank * qOut;
      sums.k += hidden * (kvLoraRank + rotary) + kvLoraRank * numHeads * (headDim - rotary);
      sums.v += kvLoraRank * numHeads * valueDim;
      continue;
    }
    sums.q += hidden * numHeads * headDim * gate;
    if (layer.kvShared) continue;
    sums.k += hidden * numKvHeads * headDim;
    if (!(keyIsValue && layer.kind === 'full')) sums.v += hidden * numKvHeads * valueDim;
  }
  return { ...sums, total: sums.q + sums.k + sums.v + sums.o };
}

/**
 * Weights of the whole (text) model: embeddings, attention, linear attention, feed-forward with all experts;
 * biases and norms left out, and a sparse indexer or what an encoder has on top: below 1 % of it. Null where
 * config.json does not say enough, the family is not known, or the model has parts unknown here (a decoder's cross
 * attention, per-layer embeddings, hyper-connections).
 */
export function countModel(
  config: ModelConfig,
  hidden: number,
  layers: readonly LayerDescription[],
  attention: AttentionParameters,
): number | null {
  const { fields } = config;
  const hasUnknownParts =
    config.flag('is_encoder_decoder') ||
    config.isOf('whisper', 't5') ||
    fields.hc_count != null ||
    fields.ple_layer_ids != null ||
    (config.optionalInteger('embedding_size', 'word_embed_proj_dim') ?? hidden) !== hidden;
  const perLayerInput = config.optionalNumber('hidden_size_per_layer_input') ?? 0;
  const vocab = config.optionalInteger('vocab_size');
  const feedForward = countFeedForward(config, hidden, layers.length);
  if (hasUnknownParts || perLayerInput > 0 || vocab === undefined || feedForward === null) return null;
  const isTied = config.flag('tie_word_embeddings', config.isOf(...TIED));
  const hasOutput = !isTied && !config.isEncoder;
  const learned = hasRope(config)
    ? 0
    : (config.optionalInteger('max_position_embeddings', 'n_positions') ?? 0);
  const tokenTypes = config.optionalNumber('type_vocab_size') ?? 0;
  const embeddings = hidden * (vocab * (hasOutput ? 2 : 1) + learned + tokenTypes);
  return embeddings + attention.total + countLinear(config, hidden, layers) + feedForward;
}

/** Gated delta rule (Qwen3-Next): q, k, v, z, the two gates, the short convolution and the output. */
function countLinear(config: ModelConfig, hidden: number, layers: readonly LayerDescription[]): number {
  const kernel = config.optionalInteger('linear_conv_kernel_dim') ?? 4;
  let sum = 0;
  for (const { kind, numHeads, numKvHeads, headDim, valueDim } of layers) {
    if (kind !== 'linear') continue;
    const convolved = 2 * numKvHeads * headDim + numHeads * valueDim;
    sum +=
      hidden * (convolved + numHeads * valueDim + 2 * numHeads) +
      convolved * kernel +
      numHeads * valueDim * hidden;
  }
  return sum;
}

function countFeedForward(config: ModelConfig, hidden: number, numLayers: number): number | null {
  const gated = config.isOf(...GATED);
  const isKnown = (gated || config.isOf(...UNGATED)) && !config.isOf(...UNCOUNTED);
  if (!isKnown || Array.isArray(config.fields.intermediate_size)) return null;
  const matrices = gated ? 3 : 2;
  const stated = config.optionalInteger('intermediate_size', 'n_inner', 'ffn_hidden_size', 'ffn_dim');
  // The first Qwen's is that of both gated halves together.
  const inner =
    stated !== undefined && config.textType === 'qwen'
      ? stated / 2
      : (stated ?? (gated ? undefined : 4 * hidden));
  const numExperts = config.optionalNumber('num_experts', 'num_local_experts', 'n_routed_experts') ?? 0;
  const types = config.fields.mlp_layer_types ?? null;
  const listed = types === null ? null : copyList(types, numLayers);
  const isUnderstood = listed?.every((type) => type === 'dense' || type === 'sparse');
  if (types !== null && !(isUnderstood && listed?.length === numLayers)) return null;
  let sum = 0;
  for (let i = 0; i < numLayers; i++) {
    const isSparse = numExperts > 0 && (listed === null ? hasExperts(config, i) : listed[i] === 'sparse');
    if (isSparse) {
      const size = config.optionalInteger('moe_intermediate_size') ?? inner;
      if (size === undefined) return null;
      const shared =
        (config.optionalNumber('n_shared_experts') ?? 0) * size +
        (config.optionalNumber('shared_expert_intermediate_size') ?? 0);
      sum += hidden * (numExperts * (matrices * size + 1) + matrices * shared);
    }
    // Gemma 4 runs a dense feed-forward beside the experts of a layer.
    if (isSparse && !config.isOf('gemma4')) continue;
    if (inner === undefined) return null;
    sum += matrices * hidden * inner;
  }
  return sum;
}

/** Whether layer i has experts: DeepSeek's first layers are dense, Qwen and others may thin them out. */
function hasExperts(config: ModelConfig, i: number): boolean {
  const dense = config.fields.mlp_only_layers;
  return (
    i >= (config.optionalNumber('first_k_dense_replace') ?? 0) &&
    i % (config.optionalInteger('moe_layer_freq') ?? 1) === 0 &&
    (i + 1) % (config.optionalInteger('decoder_sparse_step') ?? 1) === 0 &&
    !(Array.isArray(dense) && Array.prototype.includes.call(dense, i))
  );
}
