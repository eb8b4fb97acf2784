import { copyInt32Array, typedArrayName } from './dtype.ts';
import { OptionError, ShapeError } from './errors.ts';
import { nearestName } from './nearest-name.ts';
import type { AttentionProblem } from './problem.ts';
import type { Tensor } from './tensor.ts';
import { copyList, formatShape, formatValue } from './tensor-layout.ts';
import { asTensor, type TensorLike } from './tensor-like.ts';

/** Whole numbers, one per batch entry or sequence: an Int32Array, an int32 tensor of rank 1, or a plain list. */
export type IntegerVector = Int32Array | TensorLike | readonly number[];

/** Real numbers, one per head: a Float32Array, a float tensor, or a plain list. Stored as float32. */
export type FloatVector = Float32Array | TensorLike | readonly number[];

/**
 * Visibility around the position p of a query: `p - left <= j <= p + right`. A side that is not given, null or
 * Infinity is open. The first `sinkTokens` keys stay visible on the left side.
 */
export interface AttentionWindow {
  readonly left?: number | null;
  readonly right?: number | null;
  readonly sinkTokens?: number | null;
}

/** The options of `attention`. undefined and null mean "not given". */
export interface AttentionOptions {
  /** Factor of q·k; 1/sqrt(headDim) by default; 0 means 0. */
  readonly scale?: number | null;
  /** Key j is visible to query i iff j <= queryOffset + i. */
  readonly causal?: boolean | null;
  /** Absolute position of the first query, a number or one per batch entry; kvLen - qLen by default. */
  readonly queryOffset?: number | IntegerVector | null;
  readonly window?: AttentionWindow | null;
  /** One per batch entry, [B]: keys at or beyond it do not exist. */
  readonly kvLengths?: IntegerVector | null;
  /** bool, true = attend; broadcast to [B, Hq, Lq, Lk] from the right. */
  readonly mask?: TensorLike | null;
  /** float, added to the scores; broadcast likewise; -Infinity masks. */
  readonly bias?: TensorLike | null;
  /** Of shape [Hq] or [B, Hq]: adds -slope * abs(p - j). */
  readonly alibiSlopes?: FloatVector | null;
  /** cap * tanh(score / cap); 0 means none, as in FlashAttention and ONNX. */
  readonly softcap?: number | null;
  /** One per head, [Hq]: logits added only to the softmax's denominator, and so to the lse. */
  readonly sinks?: FloatVector | null;
  /** Where the sequences of a packed ragged batch begin, and the last one ends: [B + 1]. */
  readonly cuSeqlensQ?: IntegerVector | null;
  readonly cuSeqlensK?: IntegerVector | null;
  readonly precision?: AttentionProblem['precision'] | null;
  /** Return { out, lse } instead of out. */
  readonly returnLse?: boolean | null;
  /** A tensor to write into, and to return. */
  readonly out?: Tensor | null;
  /** At most this many threads; all by default. */
  readonly threads?: number | null;
  readonly backend?: AttentionProblem['backend'] | null;
}

/** The options of the asynchronous forms. */
export interface AttentionAsyncOptions extends AttentionOptions {
  /** Aborting rejects the promise with `signal.reason`; what `out` then holds is not defined. */
  readonly signal?: AbortSignal | null;
}

/** Every option of `attention`, in the order of the documentation. */
export const ATTENTION_OPTIONS = [
  'scale',
  'causal',
  'queryOffset',
  'window',
  'kvLengths',
  'mask',
  'bias',
  'alibiSlopes',
  'softcap',
  'sinks',
  'cuSeqlensQ',
  'cuSeqlensK',
  'precision',
  'returnLse',
  'out',
  'threads',
  'backend',
] as const satisfies readonly (keyof AttentionOptions)[];

/** Those of its relatives, such as attentionAsync and attentionWeights: known, but not everywhere. */
const RELATED_OPTIONS: readonly string[] = ['signal', 'stage', 'queries', 'heads', 'massWindow'];

const DESCRIBES_KEYS: readonly string[] = ['kvLengths', 'cuSeqlensQ', 'cuSeqlensK'];

/** What the option `backend` may say. */
export const BACKENDS: readonly AttentionProblem['backend'][] = ['auto', 'native', 'reference'];

/** The options of attention over a KVCache: those of {@link ATTENTION_OPTIONS} that do not describe k and v. */
export const CACHE_OPTIONS: readonly string[] = ATTENTION_OPTIONS.filter(
  (name) => !DESCRIBES_KEYS.includes(name),
);

export const APPEND_OPTIONS: readonly string[] = ['lengths'];
export const STEP_OPTIONS: readonly string[] = [...CACHE_OPTIONS, ...APPEND_OPTIONS];

/** Elements of a list of numbers at most: more heads, queries or batch entries than a call can have (limits.ts). */
const MAX_LIST = 2 ** 24;

const WINDOW_OPTIONS = ['left', 'right', 'sinkTokens'] as const satisfies readonly (keyof AttentionWindow)[];
const NO_OPTIONS: object = Object.freeze({});

/**
 * `options` as a plain object whose every key is in `names`; {} for undefined and null.
 * @param what how messages name it, such as `options` or `window`
 * @throws OptionError for anything but a plain object, and for an unknown key (with the nearest name)
 */
export function checkOptions<T extends object>(
  caller: string,
  what: string,
  options: T | null | undefined,
  names: readonly string[],
): T {
  if (options === undefined || options === null) return NO_OPTIONS as T;
  if (!isPlainObject(options)) {
    throw new OptionError(`${caller}: ${what} must be a plain object; got ${formatValue(options)}`);
  }
  for (const name in options) {
    if (!names.includes(name)) throw unknownOption(caller, what, name, names);
  }
  return options;
}

/**
 * Options of attention over a cache: those of `attention` that do not describe k and v. `causal` defaults to true. A `mask`
 * that ends with [Lq, Lq] is about the newest Lq keys only (a draft tree); all earlier keys are visible.
 */
export type CacheAttentionOptions = Omit<AttentionOptions, 'kvLengths' | 'cuSeqlensQ' | 'cuSeqlensK'>;

/** How an append is done. */
export interface AppendOptions {
  /** How many of the T tokens each batch entry takes, from the first one on; one number per entry. Default: all of them. */
  readonly lengths?: IntegerVector | null;
}

/** Options of a step: those of an append and those of attention. */
export type CacheStepOptions = CacheAttentionOptions & AppendOptions;

/**
 * Options of attention over a KVCache as they stand at one moment: names checked, each property (of the window too) read
 * once. So a getter, or whoever writes to the object later, cannot answer two questions differently.
 */
export function readCacheOptions(
  caller: string,
  options: CacheAttentionOptions | null | undefined,
  names: readonly string[],
): CacheAttentionOptions {
  const given = checkOptions(caller, 'options', options, names);
  return {
    scale: given.scale,
    causal: given.causal,
    queryOffset: given.queryOffset,
    window: readSides(caller, given.window),
    mask: given.mask,
    bias: given.bias,
    alibiSlopes: given.alibiSlopes,
    softcap: given.softcap,
    sinks: given.sinks,
    precision: given.precision,
    returnLse: given.returnLse,
    out: given.out,
    threads: given.threads,
    backend: given.backend,
  };
}

function isPlainObject(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  const prototype = Object.getPrototypeOf(value);
  // The second test admits objects of another realm.
  return prototype === null || prototype === Object.prototype || isRootPrototype(prototype);
}

function isRootPrototype(prototype: object): boolean {
  return Object.getPrototypeOf(prototype) === null && Object.hasOwn(prototype, 'isPrototypeOf');
}

function unknownOption(caller: string, what: string, name: string, names: readonly string[]): OptionError {
  const known = `known: ${names.join(', ')}`;
  if ((ATTENTION_OPTIONS as readonly string[]).includes(name) || RELATED_OPTIONS.includes(name)) {
    return new OptionError(`${caller}: option '${name}' does not apply here; leave it out (${known})`);
  }
  const nearest = nearestName(name, names);
  const hint = nearest === undefined ? '' : `did you mean '${nearest}'? `;
  return new OptionError(`${caller}: unknown name ${formatValue(name)} in ${what}; ${hint}${known}`);
}

/** A finite number, or `fallback` where none is given. */
export function readNumber(caller: string, name: string, value: unknown, fallback: number): number {
  if (value === undefined || value === null) return fallback;
  if (typeof value === 'number' && Number.isFinite(value)) return value;
  throw new OptionError(`${caller}: ${name} must be a finite number; got ${formatValue(value)}`);
}

/** A whole number of at least `least`, or `fallback` where none is given. */
export function readCount(
  caller: string,
  name: string,
  value: unknown,
  least: number,
  fallback: number,
): number {
  if (value === undefined || value === null) return fallback;
  if (Number.isSafeInteger(value) && (value as number) >= least) return value as number;
  throw new OptionError(
    `${caller}: ${name} must be a whole number, at least ${least}; got ${formatValue(value)}`,
  );
}

/** A boolean, or `fallback` where none is given. */
export function readBoolean(caller: string, name: string, value: unknown, fallback: boolean): boolean {
  if (value === undefined || value === null) return fallback;
  if (typeof value === 'boolean') return value;
  throw new OptionError(`${caller}: ${name} must be true or false; got ${formatValue(value)}`);
}

/** One of `words`; the first where none is given. */
export function readWord<T extends string>(
  caller: string,
  name: string,
  value: unknown,
  words: readonly T[],
): T {
  if (value === undefined || value === null) return words[0] as T;
  if (words.includes(value as T)) return value as T;
  const list = words.map((word) => `'${word}'`).join(', ');
  throw new OptionError(`${caller}: ${name} must be one of ${list}; got ${formatValue(value)}`);
}

/** The factor of the scores, which kernels hold as float32. */
export function readScale(caller: string, value: unknown, fallback: number): number {
  const scale = readNumber(caller, 'scale', value, fallback);
  if (Number.isFinite(Math.fround(scale))) return scale;
  throw new OptionError(`${caller}: scale must be a number that float32 can hold; got ${scale}`);
}

/** Non-negative softcap; 0, null and undefined mean none. */
export function readSoftcap(caller: string, value: unknown): number {
  const softcap = readNumber(caller, 'softcap', value, 0);
  if (softcap === 0 || (softcap >= SMALLEST_NORMAL && Number.isFinite(Math.fround(softcap)))) return softcap;
  const remedy = softcap > 0 ? ', and a normal number of float32' : '';
  throw new OptionError(`${caller}: softcap must be positive, or 0 for none${remedy}; got ${softcap}`);
}

/** Of float32: below it a division loses digits. */
const SMALLEST_NORMAL = 2 ** -126;

/** A window with every side resolved. */
export interface ResolvedWindow {
  readonly windowLeft: number;
  readonly windowRight: number;
  readonly sinkTokens: number;
}

const OPEN: ResolvedWindow = { windowLeft: Infinity, windowRight: Infinity, sinkTokens: 0 };
const CAUSAL: ResolvedWindow = { windowLeft: Infinity, windowRight: 0, sinkTokens: 0 };

/** What messages call the parts of an option that is a window. */
const PART_NAMES = {
  window: { left: 'window.left', right: 'window.right', sinkTokens: 'window.sinkTokens' },
  massWindow: { left: 'massWindow.left', right: 'massWindow.right', sinkTokens: 'massWindow.sinkTokens' },
} as const;

/** A copy of the window, its properties read once; null where none is given. */
function readSides(
  caller: string,
  window: unknown,
  name: keyof typeof PART_NAMES = 'window',
): AttentionWindow | null {
  if (window === undefined || window === null) return null;
  if (typeof window === 'number') {
    throw new OptionError(
      `${caller}: ${name} must be { left?, right?, sinkTokens? }; got ${window}; ` +
        `a model's sliding_window of N is { left: N - 1 }`,
    );
  }
  const { left, right, sinkTokens } = checkOptions<AttentionWindow>(caller, name, window, WINDOW_OPTIONS);
  return { left, right, sinkTokens };
}

/** The window with causality folded into its right side; `name` is the option's. */
export function readWindow(
  caller: string,
  window: unknown,
  causal: boolean,
  name: keyof typeof PART_NAMES = 'window',
): ResolvedWindow {
  const sides = readSides(caller, window, name);
  if (sides === null) return causal ? CAUSAL : OPEN;
  const parts = PART_NAMES[name];
  const windowRight = readSide(caller, parts.right, sides.right);
  return {
    windowLeft: readSide(caller, parts.left, sides.left),
    windowRight: causal ? Math.min(windowRight, 0) : windowRight,
    sinkTokens: readCount(caller, parts.sinkTokens, sides.sinkTokens, 0, 0),
  };
}

function readSide(caller: string, name: string, value: unknown): number {
  if (value === undefined || value === null || value === Infinity) return Infinity;
  if (Number.isSafeInteger(value) && (value as number) >= 0) return value as number;
  throw new OptionError(
    `${caller}: ${name} must be a whole number, at least 0; got ${formatValue(value)}; ` +
      'an open side is Infinity, or is left out',
  );
}

/**
 * An {@link IntegerVector} as a list; every element a 32-bit integer.
 * @param length how many elements it must have; -1 for any number
 */
export function readIntegers(
  caller: string,
  name: string,
  value: unknown,
  length: number,
): ArrayLike<number> {
  const list = integerList(caller, name, value);
  if (length >= 0 && list.length !== length) {
    throw new ShapeError(
      `${caller}: ${name} must have one element a batch entry, shape [${length}]; got [${list.length}]`,
    );
  }
  return list;
}

function integerList(caller: string, name: string, value: unknown): ArrayLike<number> {
  // Copies, all of them: what is validated must be what is executed, whoever writes to the caller's array.
  if (typedArrayName(value) === 'Int32Array') {
    return copyInt32Array(value as Int32Array);
  }
  const kind = `${caller}: ${name} must be an Int32Array, an int32 tensor of rank 1 or a list of integers`;
  if (Array.isArray(value)) {
    const list = copyList(value, MAX_LIST);
    if (list === null) throw new OptionError(`${kind}; got one of more than ${MAX_LIST} elements`);
    const wrong = list.findIndex((item) => typeof item !== 'number' || (item | 0) !== item);
    if (wrong < 0) return list as number[];
    throw new OptionError(`${kind}; element ${wrong} is ${formatValue(list[wrong])}`);
  }
  if (typeof value !== 'object' || value === null || typedArrayName(value) !== undefined) {
    throw new OptionError(`${kind}; got ${formatValue(value)}`);
  }
  const tensor = asTensor(caller, name, value);
  if (tensor.dtype === 'int32' && tensor.rank === 1) return tensor.toArray() as number[];
  throw new OptionError(`${kind}; got ${tensor.dtype} ${formatShape(tensor.shape)}`);
}
