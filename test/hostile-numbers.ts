import type { DType } from '../lib/dtype.ts';
import type { AttentionOptions } from '../lib/options.ts';
import { Tensor } from '../lib/tensor.ts';
import { PATHS, type Problem, type Shape } from './hostile-paths.ts';

// Numbers that break arithmetic, in each place of a problem: a table that covers every pair of its columns.

/** The numbers, by name; what a 16-bit type cannot hold becomes what it rounds to. */
export const KINDS: Readonly<Record<string, number>> = {
  NaN,
  '+Infinity': Infinity,
  '-Infinity': -Infinity,
  '1e38': 1e38,
  '-1e38': -1e38,
  'smallest subnormal': 2 ** -149,
  'large subnormal': 2 ** -127,
  'float16 max': 65504,
  'bfloat16 max': 3.3895313892515355e38,
  '-0': -0,
};

export const DTYPES: readonly (readonly [DType, 'highest' | 'high' | 'medium'])[] = [
  ['float32', 'highest'],
  ['float32', 'high'],
  ['float32', 'medium'],
  ['float16', 'highest'],
  ['bfloat16', 'highest'],
];

/** Where the number stands. */
export const PLACES = ['q', 'k', 'v', 'q and k', 'k and v', 'bias', 'sinks', 'alibiSlopes'] as const;

/** What hides the key that holds it from some queries, or from all. */
const HIDDEN = [
  'no',
  'mask',
  'mask of some rows',
  'mask of all keys',
  'bias',
  'kvLengths',
  'future',
  'before the first key',
  'window',
] as const;

/** What else the scores go through. */
const PASSES = ['none', 'softcap', 'alibi', 'sinks', 'negative scale', 'scale 0'] as const;

/** A line of the table. */
export interface Row {
  readonly path: string;
  readonly kind: string;
  readonly place: (typeof PLACES)[number];
  readonly hidden: (typeof HIDDEN)[number];
  readonly pass: (typeof PASSES)[number];
  readonly dtype: number;
  readonly seed: number;
}

/** Where the cache has a dtype of its own, q is float32. */
function dtypeOf(row: Row): (typeof DTYPES)[number] {
  return DTYPES[PATHS[row.path].cacheDType === undefined ? row.dtype : row.dtype % 3];
}

export function nameOf(row: Row): string {
  const { path, kind, place, hidden, pass } = row;
  const [name, precision] = dtypeOf(row);
  return `${path}, ${name} ${precision}: ${kind} in ${place}, hidden: ${hidden}, ${pass}`;
}

/** Small whole numbers that depend on the seed and on n. */
function draw(seed: number, n: number, below: number): number {
  let x = Math.imul(seed * 31 + n + 1, 0x9e3779b1);
  x = Math.imul(x ^ (x >>> 15), 0x85ebca6b);
  return ((x ^ (x >>> 13)) >>> 0) % below;
}

/** The positions where tiles, panels and blocks begin and end. */
const EDGES = [0, 1, 7, 8, 15, 16, 31, 32, 47, 48, 63, 64, 127, 128, 255, 256];

/** The problem of a line, with its number in place. */
export function problemOf(row: Row): Problem {
  const path = PATHS[row.path];
  const { batch, numHeads, numKvHeads, qLen, kvLen, headDim, valueDim } = path.shape;
  const [dtype, precision] = dtypeOf(row);
  const { seed } = row;
  const make = (heads: number, length: number, dim: number, n: number): Tensor =>
    Tensor.randn([batch, heads, length, dim], { dtype, seed: 3 * seed + n });
  const q = make(numHeads, qLen, headDim, 0);
  const k = make(numKvHeads, kvLen, headDim, 1);
  const v = make(numKvHeads, kvLen, valueDim, 2);
  const edges = EDGES.concat(kvLen - 1).filter((j) => j < kvLen);
  const key = row.hidden === 'kvLengths' ? kvLen - 1 : edges[draw(seed, 0, edges.length)];
  const query = draw(seed, 1, qLen);
  const value = KINDS[row.kind];
  const put = (x: Tensor, at: number, channel: number): void => {
    for (let b = 0; b < batch; b++) {
      for (let h = 0; h < x.shape[1]; h++) {
        x.data[x.offset + b * x.strides[0] + h * x.strides[1] + at * x.strides[2] + channel] = stored(
          value,
          dtype,
        );
      }
    }
  };
  if (row.place === 'q' || row.place === 'q and k') put(q, query, draw(seed, 2, headDim));
  if (row.place === 'q and k') put(k, key, draw(seed, 2, headDim));
  if (row.place === 'k' || row.place === 'k and v') put(k, key, draw(seed, 3, headDim));
  if (row.place === 'v' || row.place === 'k and v') put(v, key, draw(seed, 4, valueDim));
  const options = { precision, ...passOf(row, numHeads), ...hide(row, path.shape, key) } as Record<
    string,
    unknown
  >;
  if (row.place === 'bias') {
    const bias = (options.bias as Tensor | undefined) ?? Tensor.zeros([1, 1, 1, kvLen]);
    const wide = Tensor.zeros([1, 1, qLen, kvLen]);
    for (let i = 0; i < qLen; i++) wide.data.set(bias.data, i * kvLen);
    // Of every query where it is hidden by -Infinity anyway, else of one.
    if (row.hidden !== 'bias') wide.data[query * kvLen + key] = value;
    options.bias = wide;
  }
  const perHead = (others: number): Float32Array =>
    Float32Array.from({ length: numHeads }, (_, h) => (h === 0 ? value : others));
  if (row.place === 'sinks') options.sinks = perHead(0.5);
  if (row.place === 'alibiSlopes') options.alibiSlopes = perHead(0.25);
  return { q, k, v, options: options as AttentionOptions, cacheDType: path.cacheDType ?? dtype };
}

function stored(value: number, dtype: DType): number {
  return Tensor.full([1], value, { dtype }).data[0];
}

function passOf({ pass }: Row, numHeads: number): AttentionOptions {
  if (pass === 'softcap') return { softcap: 2 };
  if (pass === 'alibi')
    return { alibiSlopes: Float32Array.from({ length: numHeads }, (_, h) => 2 ** -(h % 4) / 8) };
  if (pass === 'sinks') return { sinks: Float32Array.from({ length: numHeads }, (_, h) => h - 0.5) };
  if (pass === 'negative scale') return { scale: -0.3 };
  return pass === 'scale 0' ? { scale: 0 } : {};
}

function hide({ hidden }: Row, { batch, qLen, kvLen }: Shape, key: number): AttentionOptions {
  const others = (rows: number, visible: (i: number) => number): Tensor =>
    new Tensor(
      Uint8Array.from({ length: rows * kvLen }, (_, n) =>
        n % kvLen === key ? visible(Math.floor(n / kvLen)) : 1,
      ),
      [1, 1, rows, kvLen],
      { dtype: 'bool' },
    );
  if (hidden === 'mask') return { mask: others(1, () => 0) };
  if (hidden === 'mask of some rows') return { mask: others(qLen, (i) => i % 2) };
  if (hidden === 'bias')
    return {
      bias: new Tensor(
        Float32Array.from({ length: kvLen }, (_, j) => (j === key ? -Infinity : 0)),
        [1, 1, 1, kvLen],
      ),
    };
  if (hidden === 'kvLengths')
    return { kvLengths: new Int32Array(batch).fill(key), queryOffset: kvLen - qLen };
  if (hidden === 'mask of all keys') return { mask: Tensor.zeros([1, 1, 1, kvLen], { dtype: 'bool' }) };
  if (hidden === 'future') return { causal: true };
  if (hidden === 'before the first key') return { causal: true, queryOffset: -3 };
  return hidden === 'window' ? { causal: true, window: { left: 9, sinkTokens: 2 } } : {};
}

const AXES = {
  path: Object.keys(PATHS),
  kind: Object.keys(KINDS),
  place: PLACES,
  hidden: HIDDEN,
  pass: PASSES,
  dtype: DTYPES.map((_, n) => n),
};
const NAMES = Object.keys(AXES) as (keyof typeof AXES)[];

/** Lines in which every value of a column meets every value of every other, and `more` drawn at random. */
export function pairwiseRows(more = 0): Row[] {
  const rows: Row[] = [];
  const met = new Set<string>();
  const pairsOf = (row: Row): string[] =>
    NAMES.flatMap((a, i) => NAMES.slice(i + 1).map((b) => `${a} ${row[a]} ${b} ${row[b]}`));
  const total = NAMES.reduce(
    (sum, a, i) => sum + NAMES.slice(i + 1).reduce((n, b) => n + AXES[a].length * AXES[b].length, 0),
    0,
  );
  let seed = 0;
  const random = (): Row => {
    seed++;
    const values = NAMES.map((name, n) => [name, AXES[name][draw(seed, n, AXES[name].length)]]);
    return { ...Object.fromEntries(values), seed } as Row;
  };
  const news = (row: Row): number => pairsOf(row).filter((pair) => !met.has(pair)).length;
  while (met.size < total) {
    const drawn = Array.from({ length: 60 }, random);
    const best = drawn.reduce((a, b) => (news(b) > news(a) ? b : a));
    if (news(best) === 0) continue;
    for (const pair of pairsOf(best)) met.add(pair);
    rows.push(best);
  }
  return rows.concat(Array.from({ length: more }, random));
}
