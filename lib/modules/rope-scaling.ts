import { OptionError } from '../errors.ts';
import { nearestName } from '../nearest-name.ts';
import { readBoolean } from '../options.ts';
import { copyList, formatValue } from '../tensor-layout.ts';

/**
 * config.json's `rope_scaling`, or its successor `rope_parameters` (of one layer type). Fields that a kind does
 * not read are ignored, as transformers ignores them.
 */
export interface RopeScaling {
  /** default, linear, dynamic, yarn, llama3, longrope or proportional; `type` is its older name. */
  readonly rope_type?: string;
  readonly type?: string;
  readonly rope_theta?: number | null;
  readonly partial_rotary_factor?: number | null;
  readonly factor?: number | null;
  readonly alpha?: number | null;
  /** The context the model was trained on, and the one it was extended to; the former defaults to the latter. */
  readonly original_max_position_embeddings?: number | null;
  readonly max_position_embeddings?: number | null;
  readonly attention_factor?: number | null;
  readonly beta_fast?: number | null;
  readonly beta_slow?: number | null;
  readonly mscale?: number | null;
  readonly mscale_all_dim?: number | null;
  readonly truncate?: boolean | null;
  readonly low_freq_factor?: number | null;
  readonly high_freq_factor?: number | null;
  readonly short_factor?: readonly number[] | null;
  readonly long_factor?: readonly number[] | null;
  readonly [field: string]: unknown;
}

/** The angle of pair i at position p is p · invFreq[i]; attentionFactor multiplies every cos and sin. */
export interface RopeFrequencies {
  readonly invFreq: Float64Array;
  readonly attentionFactor: number;
}

/** What a kind of scaling works on: `dim` channels rotate, `seqLen` tokens are in use. */
interface RopeProblem {
  readonly caller: string;
  readonly dim: number;
  readonly theta: number;
  readonly seqLen: number;
  readonly scaling: RopeScaling;
}

const DEFAULT_THETA = 10000;

const KINDS: Readonly<Record<string, (problem: RopeProblem) => RopeFrequencies>> = {
  default: unscaled,
  linear,
  dynamic,
  yarn,
  llama3,
  longrope,
  proportional,
};

/** Other names that published config.json files use: Phi-3 says su, Qwen2-VL says mrope (of text: default). */
const ALIASES: Readonly<Record<string, string>> = { su: 'longrope', mrope: 'default' };

/**
 * Which channels rotate and how fast where the caller did not say: theta, then `scaling.rope_theta`, then 10000;
 * dim, then headDim × `scaling.partial_rotary_factor` (rounded down), then headDim. Proportional scaling has its
 * partial_rotary_factor in the frequencies instead.
 */
export function resolveRope(
  caller: string,
  headDim: number,
  options: { readonly dim?: number; readonly theta?: number; readonly scaling?: RopeScaling | null },
): { dim: number; theta: number } {
  const scaling = options.scaling ?? {};
  const theta = options.theta ?? optionalField(caller, scaling, 'rope_theta') ?? DEFAULT_THETA;
  const share =
    scalingKind(caller, scaling) === 'proportional'
      ? 1
      : (optionalField(caller, scaling, 'partial_rotary_factor') ?? 1);
  return { dim: options.dim ?? Math.floor(headDim * share), theta };
}

/**
 * The inverse frequencies [dim / 2] and the attention factor of rotary embeddings under config.json's scaling
 * (null or absent: Su et al. 2021, RoFormer §3.2: theta^(-2i / dim)). Float64 throughout. The kinds are those of
 * transformers' modeling_rope_utils; dynamic and longrope depend on seqLen, the number of tokens in use.
 *
 * @throws OptionError for an unknown kind (with those known), a missing or senseless field, angles beyond any number.
 */
export function ropeFrequencies(
  caller: string,
  dim: number,
  theta: number,
  seqLen: number,
  scaling?: RopeScaling | null,
): RopeFrequencies {
  const kind = KINDS[scalingKind(caller, scaling ?? {})];
  const frequencies = kind({ caller, dim, theta, seqLen, scaling: scaling ?? {} });
  const numbers = [frequencies.attentionFactor, ...frequencies.invFreq];
  if (numbers.every((value) => Number.isFinite(Math.fround(value)))) return frequencies;
  throw new OptionError(
    `${caller}: theta ${theta} and scaling give frequencies that are not finite in float32; give other numbers`,
  );
}

/** The kind of scaling under its present name. */
function scalingKind(caller: string, scaling: RopeScaling): string {
  if (typeof scaling !== 'object' || Array.isArray(scaling)) {
    throw new OptionError(
      `${caller}: scaling must be the rope_scaling object of a config.json; got ${formatValue(scaling)}`,
    );
  }
  const known = Object.keys(KINDS);
  const given = scaling.rope_type ?? scaling.type;
  if (given === undefined || given === null) {
    // Without a kind nothing would scale: only an object that asks for no scaling may leave it out.
    const nested = Object.keys(scaling).find((key) => key.endsWith('_attention'));
    if (nested !== undefined) {
      throw new OptionError(
        `${caller}: scaling is keyed by layer type; pass one of its entries, e.g. scaling.${nested}`,
      );
    }
    const field = ['factor', 'short_factor', 'long_factor'].find((key) => scaling[key] != null);
    if (field === undefined) return 'default';
    throw new OptionError(
      `${caller}: scaling.rope_type is missing (scaling.${field} is given); known are ${known.join(', ')}`,
    );
  }
  if (typeof given !== 'string') {
    throw new OptionError(
      `${caller}: scaling.rope_type must be one of ${known.join(', ')}; got ${formatValue(given)}`,
    );
  }
  const name = Object.hasOwn(ALIASES, given) ? ALIASES[given] : given;
  if (Object.hasOwn(KINDS, name)) return name;
  const nearest = nearestName(given, known);
  const hint = nearest === undefined ? '' : `; did you mean '${nearest}'?`;
  throw new OptionError(
    `${caller}: scaling.rope_type ${formatValue(given)} is unknown; known are ${known.join(', ')}${hint}`,
  );
}

/** A positive number of the scaling object, or undefined where it is absent or null. */
function optionalField(caller: string, scaling: RopeScaling, field: string): number | undefined {
  const value = scaling[field];
  if (value === undefined || value === null) return undefined;
  if (typeof value === 'number' && value > 0 && value < Infinity) return value;
  throw new OptionError(`${caller}: scaling.${field} must be a positive number; got ${formatValue(value)}`);
}

function requiredField(problem: RopeProblem, field: string, alternative?: string): number {
  const value =
    optionalField(problem.caller, problem.scaling, field) ??
    (alternative === undefined ? undefined : optionalField(problem.caller, problem.scaling, alternative));
  if (value !== undefined) return value;
  const kind = problem.scaling.rope_type ?? problem.scaling.type;
  const names = alternative === undefined ? field : `${field} (or ${alternative})`;
  throw new OptionError(`${problem.caller}: scaling of rope_type '${kind}' needs ${names}`);
}

/** How many times longer the context has become: `factor`, or the ratio of the two context lengths. */
function extension(problem: RopeProblem, originalLength: number): number {
  const factor = optionalField(problem.caller, problem.scaling, 'factor');
  if (factor !== undefined) return factor;
  if (problem.scaling.max_position_embeddings == null) return requiredField(problem, 'factor');
  return requiredField(problem, 'max_position_embeddings') / originalLength;
}

function baseFrequencies(dim: number, theta: number): Float64Array {
  return Float64Array.from({ length: dim / 2 }, (_, i) => theta ** ((-2 * i) / dim));
}

function unscaled({ dim, theta }: RopeProblem): RopeFrequencies {
  return { invFreq: baseFrequencies(dim, theta), attentionFactor: 1 };
}

/** Position interpolation (Chen et al. 2023): every frequency is divided by factor. */
function linear(problem: RopeProblem): RopeFrequencies {
  const factor = requiredField(problem, 'factor');
  const invFreq = baseFrequencies(problem.dim, problem.theta).map((frequency) => frequency / factor);
  return { invFreq, attentionFactor: 1 };
}

/**
 * Dynamic NTK-aware scaling: theta grows with the sequence once it is longer than the model's context; with HunYuan's
 * `alpha` by that, whatever the length.
 */
function dynamic(problem: RopeProblem): RopeFrequencies {
  const { dim, theta } = problem;
  if (dim <= 2)
    throw new OptionError(`${problem.caller}: scaling of rope_type 'dynamic' needs dim > 2; got ${dim}`);
  const growth = optionalField(problem.caller, problem.scaling, 'alpha') ?? lengthGrowth(problem);
  return { invFreq: baseFrequencies(dim, theta * growth ** (dim / (dim - 2))), attentionFactor: 1 };
}

function lengthGrowth(problem: RopeProblem): number {
  const factor = requiredField(problem, 'factor');
  const context = requiredField(problem, 'max_position_embeddings', 'original_max_position_embeddings');
  return factor * (Math.max(problem.seqLen, context) / context) - (factor - 1);
}

/**
 * YaRN (Peng et al. 2023, §3.2-3.4): pairs that turn more than beta_fast times within the original context keep
 * their frequency, those that turn less than beta_slow times are interpolated, a linear ramp lies between.
 */
function yarn(problem: RopeProblem): RopeFrequencies {
  const { caller, dim, theta, scaling } = problem;
  const context = requiredField(problem, 'original_max_position_embeddings', 'max_position_embeddings');
  const factor = extension(problem, context);
  // The (fractional) pair index that turns `rotations` times within the original context.
  const pairOf = (rotations: number) =>
    (dim * Math.log(context / (rotations * 2 * Math.PI))) / (2 * Math.log(theta));
  const truncate = readBoolean(caller, 'scaling.truncate', scaling.truncate, true);
  let low = pairOf(optionalField(caller, scaling, 'beta_fast') ?? 32);
  let high = pairOf(optionalField(caller, scaling, 'beta_slow') ?? 1);
  low = Math.max(truncate ? Math.floor(low) : low, 0);
  high = Math.min(truncate ? Math.ceil(high) : high, dim - 1);
  if (low === high) high += 0.001; // transformers' guard against 0 / 0: the ramp becomes a step
  const invFreq = baseFrequencies(dim, theta).map((frequency, i) => {
    const interpolated = Math.min(Math.max((i - low) / (high - low), 0), 1);
    return (frequency / factor) * interpolated + frequency * (1 - interpolated);
  });
  const given = optionalField(caller, scaling, 'attention_factor');
  return { invFreq, attentionFactor: given ?? yarnAttentionFactor(caller, factor, scaling) };
}

/** YaRN's default temperature; DeepSeek's mscale and mscale_all_dim move a part of it into the softmax scale. */
function yarnAttentionFactor(caller: string, factor: number, scaling: RopeScaling): number {
  // 0 is none, as in transformers.
  const read = (field: string) => (scaling[field] === 0 ? undefined : optionalField(caller, scaling, field));
  const [mscale, mscaleAllDim] = [read('mscale'), read('mscale_all_dim')];
  if (mscale !== undefined && mscaleAllDim !== undefined)
    return yarnMscale(factor, mscale) / yarnMscale(factor, mscaleAllDim);
  return yarnMscale(factor, 1);
}

/** 0.1 · mscale · ln(factor) + 1, and 1 where nothing was extended (Peng et al. 2023, eq. 22; DeepSeek-V2). */
export function yarnMscale(factor: number, mscale: number): number {
  return factor <= 1 ? 1 : 0.1 * mscale * Math.log(factor) + 1;
}

/** Llama 3.1: long waves are divided by factor, short ones kept, a smooth blend of both lies between. */
function llama3(problem: RopeProblem): RopeFrequencies {
  const factor = requiredField(problem, 'factor');
  const lowFactor = requiredField(problem, 'low_freq_factor');
  const highFactor = requiredField(problem, 'high_freq_factor');
  const context = requiredField(problem, 'original_max_position_embeddings', 'max_position_embeddings');
  const invFreq = baseFrequencies(problem.dim, problem.theta).map((frequency) => {
    const turns = (context * frequency) / (2 * Math.PI); // the original context holds this many wavelengths
    if (turns >= highFactor) return frequency;
    if (turns < lowFactor) return frequency / factor;
    const kept = (turns - lowFactor) / (highFactor - lowFactor);
    return (1 - kept) * (frequency / factor) + kept * frequency;
  });
  return { invFreq, attentionFactor: 1 };
}

/** LongRoPE (Ding et al. 2024): a divisor for each pair, of one list within the original context, of another beyond. */
function longrope(problem: RopeProblem): RopeFrequencies {
  const { caller, dim, theta, scaling } = problem;
  const context = requiredField(problem, 'original_max_position_embeddings', 'max_position_embeddings');
  const short = divisors(problem, 'short_factor');
  const long = divisors(problem, 'long_factor');
  const chosen = problem.seqLen > context ? long : short;
  const invFreq = baseFrequencies(dim, theta).map((frequency, i) => frequency / chosen[i]);
  const given = optionalField(caller, scaling, 'attention_factor');
  if (given !== undefined) return { invFreq, attentionFactor: given };
  const factor = extension(problem, context);
  return { invFreq, attentionFactor: factor <= 1 ? 1 : Math.sqrt(1 + Math.log(factor) / Math.log(context)) };
}

function divisors(problem: RopeProblem, field: 'short_factor' | 'long_factor'): readonly number[] {
  const list = problem.scaling[field];
  if (list === undefined || list === null) {
    throw new OptionError(`${problem.caller}: scaling of rope_type 'longrope' needs ${field}`);
  }
  const divisors = copyList(list, problem.dim / 2);
  const valid = divisors?.every((value) => typeof value === 'number' && value > 0);
  if (valid && divisors?.length === problem.dim / 2) return divisors as number[];
  throw new OptionError(
    `${problem.caller}: scaling.${field} must list dim / 2 = ${problem.dim / 2} positive numbers; ` +
      `got ${Array.isArray(list) ? `${formatValue(list.length)} values` : formatValue(list)}`,
  );
}

/** Gemma 4: the first partial_rotary_factor of all pairs turns, the rest stands still (frequency 0). */
function proportional(problem: RopeProblem): RopeFrequencies {
  const { caller, dim, theta, scaling } = problem;
  const share = optionalField(caller, scaling, 'partial_rotary_factor') ?? 1;
  const factor = optionalField(caller, scaling, 'factor') ?? 1;
  const turning = Math.floor((share * dim) / 2);
  const invFreq = baseFrequencies(dim, theta).map((frequency, i) => (i < turning ? frequency / factor : 0));
  return { invFreq, attentionFactor: 1 };
}
