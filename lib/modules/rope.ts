import { isFloatDType } from '../dtype.ts';
import { DTypeError, OptionError, ShapeError } from '../errors.ts';
import { checkOptions, type IntegerVector, readBoolean } from '../options.ts';
import { Tensor } from '../tensor.ts';
import { decodeAll, encoderOf, gather } from '../tensor-convert.ts';
import { formatShape, formatValue } from '../tensor-layout.ts';
import { asTensor, type TensorLike } from '../tensor-like.ts';
import { readPositions } from './rope-positions.ts';
import { type RopeScaling, resolveRope, ropeFrequencies } from './rope-scaling.ts';

/** The options of {@link rope}. undefined and null mean "not given". */
export interface RopeOptions {
  /** Of each token: L of them, shared by the batch, or B·L (a tensor [B, L] too). Not together with offset. */
  readonly positions?: IntegerVector | null;
  /** The first token's position, 0 by default; the others follow. */
  readonly offset?: number | null;
  /** Base of the frequencies; by default scaling.rope_theta, else 10000. */
  readonly theta?: number | null;
  /** The first `dim` channels rotate (even); by default headDim × scaling.partial_rotary_factor, else headDim. */
  readonly dim?: number | null;
  /** false: channel i pairs with i + dim/2 (GPT-NeoX, Llama); true: 2i pairs with 2i + 1 (GPT-J, RoFormer). */
  readonly interleaved?: boolean | null;
  /** config.json's rope_scaling or rope_parameters. */
  readonly scaling?: RopeScaling | null;
  /** Tables float32 [maxPosition, dim / 2] in place of theta and scaling. */
  readonly cos?: TensorLike | null;
  readonly sin?: TensorLike | null;
}

/** The options of {@link ropeTables}. */
export interface RopeTableOptions {
  readonly dim: number;
  readonly maxPosition: number;
  readonly theta?: number | null;
  readonly scaling?: RopeScaling | null;
}

/** Writes the cosines and sines of all pairs at one position. */
type FillAngles = (position: number, cos: Float64Array, sin: Float64Array) => void;

/** Channels, and elements of a table, at most: more take minutes to compute. */
const MAX_DIM = 2 ** 20;
const MAX_TABLE = 2 ** 31;
/** Tokens of x: positions are listed. */
const MAX_TOKENS = 2 ** 24;

const ROPE_OPTIONS = ['positions', 'offset', 'theta', 'dim', 'interleaved', 'scaling', 'cos', 'sin'];
const TABLE_OPTIONS = ['dim', 'maxPosition', 'theta', 'scaling'];

/**
 * Rotary position embedding (Su et al. 2021, RoFormer §3.2.2) of x [B, H, L, D], or [H, L, D] with B = 1: each
 * pair of channels is rotated by position × its frequency. Channels beyond `dim` are copied bit for bit. x is of any
 * float dtype and any strides, and is not written; the result is a fresh row-major Tensor of its shape and dtype.
 * Computed in float64 and rounded once. Positions may be negative; with tables they must be rows of them.
 * Under dynamic and longrope scaling the sequence length is max(positions) + 1.
 *
 * @throws ShapeError, DTypeError, OptionError
 * @example
 * const turned = rope(q, { offset: 992, theta: 500000 }); // [1, 8, 32, 64]
 * const stretched = rope(q, { scaling: { rope_type: 'linear', factor: 8 } });
 */
export function rope(x: TensorLike, options?: RopeOptions | null): Tensor {
  const given = checkOptions<RopeOptions>('rope', 'options', options, ROPE_OPTIONS);
  const input = asTensor('rope', 'x', x);
  if (input.rank !== 3 && input.rank !== 4) {
    throw new ShapeError(`rope: x must be [B, H, L, D] or [H, L, D]; got ${formatShape(input.shape)}`);
  }
  if (!isFloatDType(input.dtype)) {
    throw new DTypeError(
      `rope: x must be float32, float16 or bfloat16; got ${input.dtype}; convert it with .to('float32')`,
    );
  }
  const [batch, numHeads, length, headDim] = input.rank === 4 ? input.shape : [1, ...input.shape];
  if (length > MAX_TOKENS || headDim > MAX_DIM) {
    throw new ShapeError(
      `rope: x may have at most ${MAX_TOKENS} tokens and ${MAX_DIM} channels; x ${formatShape(input.shape)}`,
    );
  }
  const positions = readPositions('rope', given, batch, length);
  const interleaved = readBoolean('rope', 'interleaved', given.interleaved, false);
  const { dim, fill } = readAngles(given, headDim, positions);

  const out = Tensor.wrap(gather('rope', input), input.shape, input.dtype);
  const values = decodeAll('rope', out.data, out.dtype);
  const encode = encoderOf(out.dtype);
  const half = dim / 2;
  const step = interleaved ? 2 : 1;
  const partner = interleaved ? 1 : half;
  const cos = new Float64Array(half);
  const sin = new Float64Array(half);
  // Each set of positions' angles are computed once, for all heads and all batch entries that share them.
  for (let i = 0; i < positions.length; i++) {
    fill(positions[i], cos, sin);
    const token = i % length;
    const firstBatch = positions.length === length ? 0 : Math.floor(i / length);
    const endBatch = positions.length === length ? batch : firstBatch + 1;
    for (let row = firstBatch * numHeads; row < endBatch * numHeads; row++) {
      const begin = (row * length + token) * headDim;
      for (let pair = 0; pair < half; pair++) {
        const a = begin + pair * step;
        const b = a + partner;
        const first = values[a];
        const second = values[b];
        out.data[a] = encode(first * cos[pair] - second * sin[pair]);
        out.data[b] = encode(second * cos[pair] + first * sin[pair]);
      }
    }
  }
  return out;
}

/**
 * The tables behind {@link rope}, float32: invFreq [dim / 2], cos and sin [maxPosition, dim / 2] at positions
 * 0 … maxPosition - 1, with yarn's and longrope's attention factor in them. Computed in float64 and rounded once,
 * where transformers computes inv_freq and the angles in float32: its angles are off by up to about position × 2^-24
 * (0.008 rad at 131072), ours only by the table's own rounding.
 *
 * @throws OptionError
 * @example
 * const { cos, sin } = ropeTables({ dim: 64, maxPosition: 4096, theta: 500000 });
 * const turned = rope(q, { offset: 100, cos, sin });
 */
export function ropeTables(options: RopeTableOptions): { invFreq: Tensor; cos: Tensor; sin: Tensor } {
  const given = checkOptions<RopeTableOptions>('ropeTables', 'options', options, TABLE_OPTIONS);
  const dim = readEven('ropeTables', given.dim, Infinity);
  const { maxPosition } = given;
  if (!Number.isSafeInteger(maxPosition) || maxPosition < 0) {
    throw new OptionError(
      `ropeTables: maxPosition must be a whole number, at least 0; got ${formatValue(maxPosition)}`,
    );
  }
  if (dim > MAX_DIM || maxPosition * Math.max(1, dim) > MAX_TABLE) {
    throw new OptionError(
      `ropeTables: dim may be at most ${MAX_DIM}, and maxPosition × dim at most ${MAX_TABLE}; got ${maxPosition} and ${dim}`,
    );
  }
  const theta = readTheta('ropeTables', given.theta);
  const resolved = resolveRope('ropeTables', dim, { dim, theta, scaling: given.scaling });
  const { invFreq, attentionFactor } = ropeFrequencies(
    'ropeTables',
    dim,
    resolved.theta,
    maxPosition,
    given.scaling,
  );
  const half = dim / 2;
  const cos = Tensor.empty([maxPosition, half]);
  const sin = Tensor.empty([maxPosition, half]);
  for (let position = 0, i = 0; half > 0 && position < maxPosition; position++) {
    for (let pair = 0; pair < half; pair++, i++) {
      cos.data[i] = Math.cos(position * invFreq[pair]) * attentionFactor;
      sin.data[i] = Math.sin(position * invFreq[pair]) * attentionFactor;
    }
  }
  return { invFreq: new Tensor(Float32Array.from(invFreq), [half]), cos, sin };
}

/** How many channels rotate, and where their angles come from: the caller's tables, or theta and scaling. */
function readAngles(
  options: RopeOptions,
  headDim: number,
  positions: ArrayLike<number>,
): { dim: number; fill: FillAngles } {
  if (options.cos != null || options.sin != null) return readTables(options, headDim, positions);
  const scaling = options.scaling ?? null;
  const theta = readTheta('rope', options.theta);
  const explicitDim = options.dim == null ? undefined : readEven('rope', options.dim, headDim);
  const resolved = resolveRope('rope', headDim, { dim: explicitDim, theta, scaling });
  const dim = readEven('rope', resolved.dim, headDim);
  let seqLen = 0;
  for (let i = 0; i < positions.length; i++) seqLen = Math.max(seqLen, positions[i] + 1);
  const { invFreq, attentionFactor } = ropeFrequencies('rope', dim, resolved.theta, seqLen, scaling);
  const fill: FillAngles = (position, cos, sin) => {
    for (let pair = 0; pair < invFreq.length; pair++) {
      cos[pair] = Math.cos(position * invFreq[pair]) * attentionFactor;
      sin[pair] = Math.sin(position * invFreq[pair]) * attentionFactor;
    }
  };
  return { dim, fill };
}

function readTables(
  options: RopeOptions,
  headDim: number,
  positions: ArrayLike<number>,
): { dim: number; fill: FillAngles } {
  if (options.cos == null || options.sin == null) {
    throw new OptionError(
      `rope: cos and sin belong together; ${options.cos == null ? 'cos' : 'sin'} is missing`,
    );
  }
  const replaced = options.theta != null ? 'theta' : options.scaling != null ? 'scaling' : undefined;
  if (replaced !== undefined) {
    throw new OptionError(
      `rope: cos and sin replace theta and scaling; leave out either them or ${replaced}`,
    );
  }
  const cosTable = asTensor('rope', 'cos', options.cos);
  const sinTable = asTensor('rope', 'sin', options.sin);
  const shapes = `cos ${formatShape(cosTable.shape)}, sin ${formatShape(sinTable.shape)}`;
  for (const [name, table] of [['cos', cosTable] as const, ['sin', sinTable] as const]) {
    if (table.dtype === 'float32') continue;
    throw new DTypeError(`rope: ${name} must be float32; got ${table.dtype}; convert it with .to('float32')`);
  }
  const isPair =
    cosTable.rank === 2 && sinTable.rank === 2 && cosTable.shape.every((n, i) => n === sinTable.shape[i]);
  if (!isPair) throw new ShapeError(`rope: cos and sin must both be [maxPosition, dim / 2]; got ${shapes}`);
  const [maxPosition, half] = cosTable.shape;
  const dim = options.dim == null ? 2 * half : readEven('rope', options.dim, headDim);
  if (dim !== 2 * half || dim > headDim) {
    throw new ShapeError(
      `rope: cos and sin must be [maxPosition, dim / 2] with dim ${options.dim == null ? 'at most headDim' : dim}; ` +
        `got ${shapes} for headDim ${headDim}; pass half of tables that repeat every angle`,
    );
  }
  for (let i = 0; i < positions.length; i++) {
    if (positions[i] >= 0 && positions[i] < maxPosition) continue;
    throw new OptionError(
      `rope: position ${positions[i]} (of token ${i}) is not a row of the tables; ${shapes}; make them longer`,
    );
  }
  const cosRows = cosTable.toFloat32Array();
  const sinRows = sinTable.toFloat32Array();
  const fill: FillAngles = (position, cos, sin) => {
    for (let pair = 0; pair < half; pair++) {
      cos[pair] = cosRows[position * half + pair];
      sin[pair] = sinRows[position * half + pair];
    }
  };
  return { dim, fill };
}

function readEven(caller: string, dim: unknown, headDim: number): number {
  if (
    Number.isSafeInteger(dim) &&
    (dim as number) >= 0 &&
    (dim as number) % 2 === 0 &&
    (dim as number) <= headDim
  ) {
    return dim as number;
  }
  const bound = headDim === Infinity ? '' : `, at most headDim ${headDim}`;
  throw new OptionError(`${caller}: dim must be an even number of channels${bound}; got ${formatValue(dim)}`);
}

function readTheta(caller: string, theta: unknown): number | undefined {
  if (theta === undefined || theta === null) return undefined;
  if (typeof theta === 'number' && theta > 0 && theta < Infinity) return theta;
  throw new OptionError(`${caller}: theta must be a positive number; got ${formatValue(theta)}`);
}
