import { OptionError } from '../errors.ts';
import { copyList, formatValue } from '../tensor-layout.ts';

/** The parsed fields of a config.json, under their real names. */
export type ConfigFields = Readonly<Record<string, unknown>>;

/** The words of a text: a long list in a few lines. */
export function words(text: string): string[] {
  return text.trim().split(/\s+/);
}

/** Where composite models (vision, audio) keep the configuration of their language model. */
const NESTED = ['text_config', 'llm_config', 'language_config'];

/** Fields that may stand outside of that, and hold for the language model. */
const SHARED = words('tie_word_embeddings vocab_size architectures is_encoder_decoder');

/**
 * What transformers' configuration classes assume where a config.json leaves a field out, by the beginning of
 * model_type (the first that fits). Only what published files do leave out.
 */
const FAMILY_DEFAULTS: readonly (readonly [family: string, fields: ConfigFields])[] = [
  [
    'gemma2',
    { head_dim: 256, query_pre_attn_scalar: 256, attn_logit_softcapping: 50, sliding_window_pattern: 2 },
  ],
  ['gemma3n', { head_dim: 256, sliding_window_pattern: 5, rope_theta: 1e6, rope_local_base_freq: 1e4 }],
  [
    'gemma3',
    {
      num_attention_heads: 8,
      num_key_value_heads: 4,
      head_dim: 256,
      query_pre_attn_scalar: 256,
      sliding_window_pattern: 6,
      rope_theta: 1e6,
      rope_local_base_freq: 1e4,
      max_position_embeddings: 131072,
    },
  ],
  ['gemma4', { head_dim: 256, global_head_dim: 512, sliding_window_pattern: 6 }],
  ['gemma', { head_dim: 256 }],
  ['cohere2', { sliding_window_pattern: 4 }],
  ['olmo3', { sliding_window_pattern: 4 }],
  ['smollm3', { no_rope_layer_interval: 4 }],
  ['chatglm', { partial_rotary_factor: 0.5 }],
  ['gpt_oss', { head_dim: 64, sliding_window: 128, sliding_window_pattern: 2 }],
  ...['qwen3_next', 'qwen3_5', 'qwen4'].map(
    (family) =>
      [
        family,
        { head_dim: 256, full_attention_interval: 4, partial_rotary_factor: 0.25, attn_output_gate: true },
      ] as const,
  ),
  ['qwen', { use_sliding_window: false, max_window_layers: 28 }],
  ['gpt_neox', { rotary_pct: 0.25 }],
  ['phi3', { original_max_position_embeddings: 4096 }],
];

/** Families in which a token sees those after it too. */
const ENCODERS = words(`
  bert roberta xlm-roberta distilbert electra albert camembert mpnet deberta esm modernbert nomic_bert
  eurobert neomme tapas vit clip_vision_model siglip`);

/**
 * Reads fields of a config.json and remembers which of them were asked for in vain, so that one error can name
 * them all.
 */
export class ModelConfig {
  readonly fields: ConfigFields;
  /** `model_type` of the whole model, e.g. 'qwen3_5', and of its text part, e.g. 'qwen3_5_text'. */
  readonly modelType: string;
  readonly textType: string;
  readonly #missing: string[] = [];

  constructor(config: unknown) {
    const outer = parseConfig(config);
    const nested = NESTED.map((name) => outer[name]).find(isObject);
    const inner = nested && { ...nested };
    this.modelType = typeName(outer) ?? typeName(inner ?? {}) ?? 'unknown';
    this.textType = typeName(inner ?? {}) ?? this.modelType;
    const defaults = FAMILY_DEFAULTS.find(([family]) => this.isOf(family))?.[1];
    // The text part wins; of what stands outside, which may speak of images or sounds, a little holds for it too. An
    // explicit null overrides a default: it switches the feature off.
    const around = Object.entries(outer).filter(([name]) => !inner || SHARED.includes(name));
    const fields: ConfigFields = { ...defaults, ...Object.fromEntries(around), ...inner };
    // MPT and DBRX keep what concerns attention in an object of its own.
    this.fields = isObject(fields.attn_config) ? { ...fields, ...fields.attn_config } : fields;
  }

  /** Whether the model is an encoder: of a known family, with segments as BERT's, or trained to fill in masked tokens. */
  get isEncoder(): boolean {
    const architectures = copyList(this.fields.architectures, 1);
    const isMasked = architectures?.some((name) => typeof name === 'string' && name.endsWith('ForMaskedLM'));
    const isKnown = this.isOf(...ENCODERS) && !this.isOf('modernbert-decoder');
    return isMasked || isKnown || this.hasSegments;
  }

  /** Whether a token belongs to a segment, as in BERT and its kin. */
  get hasSegments(): boolean {
    return (this.fields.type_vocab_size ?? null) !== null;
  }

  /** The same model with these fields in place of its own. */
  withFields(replaced: ConfigFields): ModelConfig {
    const isRead = Object.fromEntries([...NESTED, 'attn_config'].map((name) => [name, null]));
    return new ModelConfig({ ...this.fields, ...isRead, ...replaced, model_type: this.textType });
  }

  /** Whether the text part's model_type begins with one of these. */
  isOf(...families: string[]): boolean {
    return families.some((family) => this.textType.startsWith(family));
  }

  /** The first of these fields that is present as a positive integer; undefined when none is. */
  optionalInteger(...names: string[]): number | undefined {
    const name = this.#present(names);
    if (name === undefined) return undefined;
    const value = this.fields[name];
    if (Number.isSafeInteger(value) && (value as number) > 0) return value as number;
    throw new OptionError(`describeModel: ${name} must be a positive integer; got ${formatValue(value)}`);
  }

  /** As optionalInteger; an absent field is noted, to be thrown by `refuseMissing` (the result is then NaN). */
  integer(...names: string[]): number {
    const value = this.optionalInteger(...names);
    if (value === undefined) this.noteMissing(...names);
    return value ?? Number.NaN;
  }

  /** The first of these fields that is present as a finite number; undefined when none is. */
  optionalNumber(...names: string[]): number | undefined {
    const name = this.#present(names);
    if (name === undefined) return undefined;
    const value = this.fields[name];
    if (typeof value === 'number' && Number.isFinite(value)) return value;
    throw new OptionError(`describeModel: ${name} must be a number; got ${formatValue(value)}`);
  }

  /** A flag; absent or null counts as `fallback`. */
  flag(name: string, fallback = false): boolean {
    const value = this.fields[name] ?? fallback;
    if (typeof value === 'boolean') return value;
    throw new OptionError(`describeModel: ${name} must be true or false; got ${formatValue(value)}`);
  }

  /** An object field; undefined where it is absent or null. */
  object(name: string): ConfigFields | undefined {
    const value = this.fields[name];
    if (value === undefined || value === null) return undefined;
    if (isObject(value)) return value;
    throw new OptionError(`describeModel: ${name} must be an object; got ${formatValue(value)}`);
  }

  /** Notes that one of these alternative fields is needed. */
  noteMissing(...names: string[]): void {
    const [first, ...others] = names;
    this.#missing.push(others.length === 0 ? first : `${first} (or ${others.join(', ')})`);
  }

  /** Throws one OptionError that names every field asked for in vain so far. */
  refuseMissing(): void {
    if (this.#missing.length === 0) return;
    const fields = [...new Set(this.#missing)].join('; ');
    throw new OptionError(
      `describeModel: config.json (model_type ${formatValue(this.modelType)}) lacks ${fields}; ` +
        'give the config.json of a transformer in the layout of Hugging Face transformers',
    );
  }

  #present(names: string[]): string | undefined {
    return names.find((name) => this.fields[name] !== undefined && this.fields[name] !== null);
  }
}

function parseConfig(config: unknown): ConfigFields {
  let parsed = config;
  if (typeof config === 'string') {
    try {
      parsed = JSON.parse(config);
    } catch (error) {
      // The parser's message quotes the text, line breaks included.
      const reason = (error as Error).message.replace(/\s+/g, ' ');
      throw new OptionError(`describeModel: configJson is not valid JSON: ${reason}`);
    }
  }
  if (isObject(parsed)) return { ...parsed }; // each field is read once: a getter must not change its mind
  throw new OptionError(
    `describeModel: configJson must be the object of a config.json, or its text; got ${formatValue(parsed)}`,
  );
}

function isObject(value: unknown): value is ConfigFields {
  return typeof value === 'object' && value !== null && !Array.isArray(value) && !ArrayBuffer.isView(value);
}

function typeName(fields: ConfigFields): string | undefined {
  return typeof fields.model_type === 'string' ? fields.model_type : undefined;
}
