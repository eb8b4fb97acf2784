import type { DType } from '../lib/dtype.ts';
import type { AttentionOptions } from '../lib/options.ts';
import { Tensor } from '../lib/tensor.ts';

/** The sizes of a case. A ragged case has `lengths`: [qLen, kvLen] of each sequence, and batch, qLen, kvLen follow. */
export interface Shape {
  readonly batch: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly qLen: number;
  readonly kvLen: number;
  readonly headDim: number;
  readonly valueDim: number;
  readonly lengths?: readonly (readonly [number, number])[];
}

/** What a case is run on. */
export interface Inputs {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly options: AttentionOptions;
}

/** A named problem that every backend and ISA must solve as the oracle does. */
export interface Case {
  readonly name: string;
  /** What would go wrong unseen without it. */
  readonly why: string;
  readonly shape: Shape;
  readonly seed: number;
  readonly dtype?: DType;
  /** Memory order of q, k, v, or of those and of out. */
  readonly layout?: 'BHLD' | 'BLHD' | 'BLHD and out';
  /** The options beyond cuSeqlens and out. */
  readonly options?: (shape: Shape, seed: number) => AttentionOptions;
  /** Changes the random inputs in place. */
  readonly spoil?: (inputs: Inputs) => void;
}

const SMALL: Shape = { batch: 2, numHeads: 4, numKvHeads: 2, qLen: 37, kvLen: 70, headDim: 24, valueDim: 24 };
const DECODE: Shape = {
  batch: 2,
  numHeads: 6,
  numKvHeads: 2,
  qLen: 2,
  kvLen: 301,
  headDim: 24,
  valueDim: 24,
};

/** A ragged shape of these [qLen, kvLen]. */
function ragged(lengths: Shape['lengths'] & object, rest: Partial<Shape> = {}): Shape {
  const longest = (axis: 0 | 1): number => Math.max(0, ...lengths.map((pair) => pair[axis]));
  return { ...SMALL, ...rest, lengths, batch: lengths.length, qLen: longest(0), kvLen: longest(1) };
}

const RAGGED = ragged([
  [5, 9],
  [0, 4],
  [33, 33],
  [7, 0],
  [1, 40],
  [20, 3],
]);

/** The inputs of a case: fresh, and the same at every call. */
export function build({ shape, seed, dtype = 'float32', layout = 'BHLD', options, spoil }: Case): Inputs {
  const { batch, numHeads, numKvHeads, qLen, kvLen, headDim, valueDim, lengths } = shape;
  const total = (axis: 0 | 1): number => lengths!.reduce((sum, pair) => sum + pair[axis], 0);
  const make = (heads: number, length: number, dim: number, n: number): Tensor => {
    const order = { dtype, seed: seed + n };
    if (lengths !== undefined) return Tensor.randn([heads, length, dim], order);
    if (layout === 'BHLD') return Tensor.randn([batch, heads, length, dim], order);
    return Tensor.randn([batch, length, heads, dim], order).transpose(1, 2);
  };
  const q = make(numHeads, lengths === undefined ? qLen : total(0), headDim, 0);
  const k = make(numKvHeads, lengths === undefined ? kvLen : total(1), headDim, 1);
  const v = make(numKvHeads, lengths === undefined ? kvLen : total(1), valueDim, 2);
  const packed = lengths === undefined ? {} : { cuSeqlensQ: ends(lengths, 0), cuSeqlensK: ends(lengths, 1) };
  const out =
    layout === 'BLHD and out'
      ? { out: Tensor.full([batch, qLen, numHeads, valueDim], NaN, { dtype }).transpose(1, 2) }
      : {};
  const inputs = { q, k, v, options: { ...options?.(shape, seed + 3), ...packed, ...out } };
  spoil?.(inputs);
  return inputs;
}

function ends(lengths: Shape['lengths'] & object, axis: 0 | 1): Int32Array {
  let end = 0;
  return Int32Array.from([0, ...lengths.map((pair) => (end += pair[axis]))]);
}

/** Rows of a bool mask of `shape`, about `share` of it true. */
export function randomMask(shape: readonly number[], seed: number, share = 0.7): Tensor {
  const noise = Tensor.randn(shape, { seed }).data;
  // P(x < 0.524) = 0.7 for a standard normal x.
  const limit = share === 0.7 ? 0.524 : 0;
  return new Tensor(
    Uint8Array.from(noise, (x) => (x < limit ? 1 : 0)),
    shape,
    { dtype: 'bool' },
  );
}

/** A random bias, a tenth of it -Infinity. */
export function randomBias(shape: readonly number[], seed: number, dtype: DType = 'float32'): Tensor {
  const noise = Tensor.randn(shape, { seed });
  return new Tensor(
    (noise.data as Float32Array).map((x) => (x < -1.28 ? -Infinity : x)),
    shape,
  ).to(dtype);
}

const slopes = (count: number): Float32Array =>
  Float32Array.from({ length: count }, (_, h) => 2 ** -(h % 8) / 2);
const perEntry = ({ batch }: Shape, at: (b: number) => number): Int32Array =>
  Int32Array.from({ length: batch }, (_, b) => at(b));
const scoresOf = (s: Shape): number[] => [s.batch, s.numHeads, s.qLen, s.kvLen];
const capacity = (s: Shape, b: number): number => (s.lengths === undefined ? s.kvLen : s.lengths[b][1]);

/** Every option of the contract that changes a result, alone; pairs of them are generated. */
const FEATURES: Readonly<Record<string, NonNullable<Case['options']>>> = {
  scale: () => ({ scale: 0.31 }),
  causal: () => ({ causal: true }),
  topLeft: () => ({ causal: true, queryOffset: 0 }),
  negativeOffset: () => ({ causal: true, queryOffset: -9 }),
  offsetPerEntry: (s) => ({ causal: true, queryOffset: perEntry(s, (b) => 11 * b - 4) }),
  windowLeft: () => ({ window: { left: 12 } }),
  windowBoth: () => ({ window: { left: 5, right: 3 } }),
  windowOfOne: () => ({ window: { left: 0, right: 0 } }),
  sinkTokens: () => ({ causal: true, window: { left: 7, sinkTokens: 3 } }),
  kvLengths: (s) => ({ kvLengths: perEntry(s, (b) => Math.max(0, capacity(s, b) - 5 * b - 3)) }),
  mask: (s, seed) => ({ mask: randomMask(scoresOf(s), seed) }),
  keyMask: (s, seed) => ({ mask: randomMask([s.batch, 1, 1, s.kvLen], seed) }),
  bias: (s, seed) => ({ bias: randomBias(scoresOf(s), seed) }),
  biasOfHeads: (s, seed) => ({ bias: randomBias([s.numHeads, s.qLen, s.kvLen], seed) }),
  halfBias: (s, seed) => ({ bias: randomBias([s.qLen, s.kvLen], seed, 'bfloat16') }),
  alibi: (s) => ({ alibiSlopes: slopes(s.numHeads) }),
  alibiPerEntry: (s) => ({ alibiSlopes: new Tensor(slopes(s.batch * s.numHeads), [s.batch, s.numHeads]) }),
  softcap: () => ({ softcap: 1.5 }),
  sinks: (s) => ({ sinks: Float32Array.from({ length: s.numHeads }, (_, h) => h - 1.5) }),
  oneThread: () => ({ threads: 1 }),
};

/** Tile sizes of all kernels, one less, one more, and primes that are no multiple of anything. */
const EDGES = [
  1, 7, 8, 15, 16, 17, 23, 24, 25, 31, 47, 48, 49, 63, 64, 65, 97, 127, 128, 129, 255, 256, 257, 511, 513,
];

const list: Case[] = [];
function add(name: string, why: string, shape: Partial<Shape>, rest: Partial<Case> = {}): void {
  list.push({ name, why, shape: { ...SMALL, ...shape }, seed: 1000 + 10 * list.length, ...rest });
}

const tile = { batch: 1, numHeads: 2, numKvHeads: 1, headDim: 16, valueDim: 16 };
for (const length of EDGES) {
  const why = 'the last tile of rows or of keys is partial, full, or alone';
  add(`qLen ${length}`, why, { ...tile, qLen: length, kvLen: 97 });
  add(`qLen ${length} causal`, why, { ...tile, qLen: length, kvLen: 130 }, { options: FEATURES.causal });
  add(`kvLen ${length}`, why, { ...tile, qLen: 33, kvLen: length });
  add(`kvLen ${length} causal`, why, { ...tile, qLen: 40, kvLen: length }, { options: FEATURES.causal });
  if (length < 300)
    add(
      `square ${length} causal`,
      why,
      { ...tile, qLen: length, kvLen: length },
      { options: FEATURES.causal },
    );
}
for (const headDim of [1, 2, 3, 5, 8, 16, 17, 40, 64, 80, 96, 128, 192, 256, 512]) {
  const why = 'loops over channels have tails, and panels of their own at large sizes';
  add(`headDim ${headDim}`, why, { ...tile, qLen: 35, kvLen: 67, headDim, valueDim: headDim });
  add(`headDim ${headDim}, decode`, why, { ...tile, qLen: 1, kvLen: 259, headDim, valueDim: headDim });
}
for (const [headDim, valueDim] of [
  [64, 1],
  [1, 64],
  [24, 40],
  [192, 128],
  [40, 24],
  [576, 512],
  [16, 7],
]) {
  add(`headDim ${headDim}, valueDim ${valueDim}`, 'v is wider or narrower than q and k', {
    ...tile,
    qLen: 19,
    kvLen: 50,
    headDim,
    valueDim,
  });
  add(`headDim ${headDim}, valueDim ${valueDim}, decode`, 'the same', {
    ...tile,
    qLen: 1,
    kvLen: 150,
    headDim,
    valueDim,
  });
}
for (const group of [1, 2, 3, 4, 6, 7, 8, 16, 17]) {
  const why = 'query heads of a group share packed keys, and rows of a decode tile';
  const heads = { batch: 2, numHeads: 2 * group, numKvHeads: 2 };
  add(`group of ${group}`, why, { ...heads, qLen: 18, kvLen: 40 }, { options: FEATURES.causal });
  for (const qLen of [1, 3])
    add(
      `group of ${group}, decode of ${qLen}`,
      why,
      { ...heads, qLen, kvLen: 140 },
      { options: FEATURES.causal },
    );
}
for (const kvLen of [1000, 1023, 1024, 1025, 2047, 2048, 2049, 4097]) {
  for (const qLen of [1, 2, 5]) {
    const shape = { batch: 1, numHeads: 4, numKvHeads: 2, qLen, kvLen, headDim: 32, valueDim: 32 };
    add(`decode ${qLen} of ${kvLen}`, 'long caches are split into chunks and merged', shape, {
      options: FEATURES.causal,
    });
  }
}
for (const qLen of [4, 8, 15, 16, 17]) {
  const shape = { batch: 1, numHeads: 8, numKvHeads: 2, qLen, kvLen: 700, headDim: 64, valueDim: 64 };
  add(`${qLen} queries of a cache`, 'between decode and prefill one driver hands over to the other', shape, {
    options: FEATURES.causal,
  });
}

const names = Object.keys(FEATURES);
for (const [at, base] of Object.entries({ prefill: SMALL, decode: DECODE, ragged: RAGGED })) {
  add(at, 'no option at all', base);
  names.forEach((first, n) => {
    add(`${at}: ${first}`, 'the option alone', base, { options: FEATURES[first] });
    if (at === 'ragged' && n % 3 !== 0) return;
    for (const second of names.slice(n + 1)) {
      const [a, b] = [FEATURES[first], FEATURES[second]];
      const clash = Object.keys(a(base, 0)).some((key) => key !== 'causal' && key in b(base, 0));
      if (!clash)
        add(`${at}: ${first}, ${second}`, 'two options meet', base, {
          options: (s, seed) => ({ ...a(s, seed), ...b(s, seed + 5) }),
        });
    }
  });
}

for (const shape of [
  [],
  [1],
  [70],
  [37, 1],
  [37, 70],
  [1, 70],
  [4, 37, 70],
  [1, 37, 70],
  [4, 1, 1],
  [2, 1, 37, 70],
  [1, 4, 1, 70],
  [2, 4, 37, 1],
  [1, 1, 1, 1],
]) {
  const why = 'masks and biases broadcast from the right, on any set of axes';
  add(`mask [${shape}]`, why, {}, { options: (_, seed) => ({ mask: randomMask(shape, seed) }) });
  add(`bias [${shape}]`, why, {}, { options: (_, seed) => ({ bias: randomBias(shape, seed) }) });
}
add(
  'mask transposed',
  'rows of a mask need not follow each other',
  {},
  {
    options: (s, seed) => ({
      mask: randomMask([s.batch, s.qLen, s.numHeads, s.kvLen], seed).transpose(1, 2),
    }),
  },
);

for (const layout of ['BLHD', 'BLHD and out'] as const) {
  add(
    `${layout}, prefill`,
    'strided tensors are read and written in place',
    {},
    { layout, options: FEATURES.causal },
  );
  add(`${layout}, decode`, 'strided tensors are read and written in place', DECODE, {
    layout,
    options: FEATURES.causal,
  });
}
for (const dtype of ['float16', 'bfloat16'] as const) {
  add(
    `${dtype}, prefill`,
    '16-bit inputs are converted exactly, the result rounded once',
    {},
    { dtype, options: FEATURES.causal },
  );
  add(`${dtype}, decode`, '16-bit inputs are converted exactly, the result rounded once', DECODE, {
    dtype,
    options: FEATURES.causal,
  });
}

for (const [name, shape] of Object.entries({
  'no queries': { qLen: 0 },
  'no keys': { kvLen: 0 },
  'no batch': { batch: 0 },
  'no values': { valueDim: 0 },
})) {
  add(name, 'an axis of length zero is legal', shape);
  add(
    `${name}, decode, sinks`,
    'an axis of length zero is legal',
    { ...DECODE, ...shape },
    { options: FEATURES.sinks },
  );
}
add(
  'all ragged sequences empty',
  'packed tensors may hold nothing',
  ragged([
    [0, 0],
    [0, 0],
  ]),
);
add('no ragged sequences', 'packed tensors may hold nothing', ragged([]));
add('one ragged sequence', 'a batch of one is no special case', ragged([[30, 41]]), {
  options: FEATURES.causal,
});
add(
  'ragged decode',
  'each sequence splits its keys at its own boundaries',
  ragged([
    [1, 700],
    [1, 3],
    [1, 1025],
    [2, 64],
  ]),
  { options: FEATURES.causal },
);
add(
  'more queries than keys, causal',
  'the first rows see no key: 0 and -Infinity',
  { qLen: 70, kvLen: 30 },
  { options: FEATURES.causal },
);
add(
  'more queries than keys, sinks',
  'empty rows give 0 and the sink',
  { qLen: 70, kvLen: 30 },
  { options: (s) => ({ causal: true, ...FEATURES.sinks(s, 0) }) },
);
add(
  'window beyond the keys',
  'all rows are empty',
  {},
  { options: () => ({ queryOffset: 500, window: { left: 3, right: 3 } }) },
);
add(
  'offset far beyond the keys',
  'positions need not be near the keys',
  {},
  { options: () => ({ causal: true, queryOffset: 100_000 }) },
);
add(
  'offset far before the keys',
  'no row sees a key',
  {},
  { options: () => ({ causal: true, queryOffset: -100_000 }) },
);
add(
  'nothing attends',
  'a mask that is all false',
  {},
  { options: (s) => ({ mask: Tensor.zeros([s.qLen, s.kvLen], { dtype: 'bool' }) }) },
);
add(
  'bias all -Infinity',
  'a bias that masks all',
  {},
  { options: () => ({ bias: Tensor.full([1], -Infinity) }) },
);
add('scale 0', 'all scores are equal: the mean of v', {}, { options: () => ({ scale: 0 }) });
add('negative scale', 'a scale is any number', {}, { options: () => ({ scale: -0.2 }) });
add(
  'sinks of -Infinity',
  'a sink that is none',
  {},
  { options: (s) => ({ sinks: new Float32Array(s.numHeads).fill(-Infinity) }) },
);
add(
  'sinks that win',
  // 44 and its multiple by log2(e) lie in one binade, so that base 2 rounds no worse than the naive evaluation.
  'a sink above every score',
  {},
  { options: (s) => ({ sinks: new Float32Array(s.numHeads).fill(44) }) },
);
const lowest = -3.4028234663852886e38;
add(
  'bias of the lowest float32',
  'many models mask so: such keys weigh the same where there are no others',
  {},
  {
    options: (s) => ({
      bias: new Tensor(
        Float32Array.from({ length: s.qLen * s.kvLen }, (_, n) =>
          n < 3 * s.kvLen || n % 3 === 0 ? lowest : 0,
        ),
        [s.qLen, s.kvLen],
      ),
    }),
  },
);
add('bias of the lowest float32, decode', 'the same', DECODE, {
  options: () => ({ bias: Tensor.full([1], lowest) }),
});

/** Makes q (1, 0, 0, …), so that the score of key j, unscaled, is its first channel: what `size` says. */
const setScores =
  (size: (j: number, kvLen: number) => number) =>
  ({ q, k }: Inputs): void => {
    const one = Tensor.full([1], 1, { dtype: q.dtype }).data[0];
    q.data.fill(0);
    for (let i = 0; i < q.size; i += q.shape[3]) q.data[i] = one;
    const { data } = new Tensor(
      Float32Array.from({ length: k.shape[2] }, (_, j) => size(j, k.shape[2])),
      [k.shape[2]],
    ).to(k.dtype);
    for (let i = 0; i < k.size; i += k.shape[3]) k.data[i] = data[Math.floor(i / k.shape[3]) % k.shape[2]];
  };

/** Sets all channels of key j of every entry and head. */
function fillRow(x: Tensor, j: number, value: number): void {
  const [batch, heads, , dim] = x.shape;
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      const at = x.offset + b * x.strides[0] + h * x.strides[1] + j * x.strides[2];
      for (let d = 0; d < dim; d++) x.data[at + d] = value;
    }
  }
}

for (const [at, base] of Object.entries({ prefill: SMALL, decode: DECODE })) {
  for (const value of [NaN, Infinity, -Infinity]) {
    const why = 'what is masked contributes nothing, whatever bytes it holds';
    const last = base.kvLen - 1;
    const hide =
      (hidden: readonly number[]) =>
      (inputs: Inputs): void => {
        for (const j of hidden) for (const x of [inputs.k, inputs.v]) fillRow(x, j, value);
      };
    const mask = (s: Shape): AttentionOptions => ({
      mask: new Tensor(
        Uint8Array.from({ length: s.kvLen }, (_, j) => (j % 7 === 3 ? 0 : 1)),
        [s.kvLen],
        { dtype: 'bool' },
      ),
    });
    const bias = (s: Shape): AttentionOptions => ({
      bias: new Tensor(
        Float32Array.from({ length: s.kvLen }, (_, j) => (j % 7 === 3 ? -Infinity : 0)),
        [s.kvLen],
      ),
    });
    add(`${at}: ${value} behind a mask`, why, base, { options: mask, spoil: hide([3, 10, 66]) });
    add(`${at}: ${value} behind a bias of -Infinity`, why, base, { options: bias, spoil: hide([3, 10, 66]) });
    add(`${at}: ${value} beyond kvLengths`, why, base, {
      options: (s) => ({ kvLengths: perEntry(s, () => last) }),
      spoil: hide([last]),
    });
    add(
      `${at}: ${value} in the future`,
      'causality holds for NaN: only the last row sees the last key',
      base,
      { options: FEATURES.causal, spoil: hide([last]) },
    );
    add(`${at}: ${value} before the window`, why, base, {
      options: () => ({ causal: true, window: { left: 4 } }),
      spoil: hide([0, 1, 20]),
    });
    add(`${at}: ${value} in q`, 'a bad query spoils its own row only', base, {
      spoil: ({ q }) => fillRow(q, 1, value),
    });
    add(`${at}: ${value} in a visible v`, 'what is visible propagates', base, {
      spoil: ({ v }) => fillRow(v, 5, value),
    });
    add(`${at}: ${value} in one visible k`, 'what is visible propagates', base, {
      spoil: ({ k }) => {
        k.data[k.offset + 5 * k.strides[2]] = value;
      },
    });
  }
  const raw = (): AttentionOptions => ({ scale: 1 });
  add(`${at}: growing maxima`, 'each tile of keys rescales all before it', base, {
    options: raw,
    spoil: setScores((j) => 3 * j),
  });
  add(`${at}: falling maxima`, 'the first key wins', base, { options: raw, spoil: setScores((j) => -3 * j) });
  add(`${at}: one huge late score`, 'all that was summed up vanishes', base, {
    options: raw,
    spoil: setScores((j, n) => (j === n - 2 ? 300 : 0)),
  });
  add(`${at}: all scores equal`, 'the mean of v', base, { options: raw, spoil: setScores(() => 2) });
  add(`${at}: scores of ±1e4`, 'exp of the difference to the maximum only', base, {
    options: raw,
    spoil: setScores((j) => (j % 2 === 0 ? 1e4 : -1e4) + j / 64),
  });
  add(`${at}: scores of -1e30`, 'a very low score is not a masked one', base, {
    options: raw,
    spoil: setScores(() => -1e30),
  });
  add(`${at}: scores 60 times larger`, 'a lazy maximum is not enough', base, {
    options: () => ({ scale: 60 / Math.sqrt(24) }),
  });
}

/** Each way of multiplying that an ISA may have. */
const PATHS = [
  ['float32', 'highest'],
  ['float32', 'high'],
  ['float32', 'medium'],
  ['float16', 'highest'],
  ['bfloat16', 'highest'],
] as const;

/** Numbers at the edges of what a kernel that cuts its inputs into bfloat16 slices can hold, in each tensor. */
function addRanges(): void {
  const base: Shape = { ...SMALL, batch: 1, qLen: 60, kvLen: 300, valueDim: 33 };
  const why = 'slices underflow, overflow or are flushed to zero';
  const put = (tensor: 'q' | 'k' | 'v', value: number) => (inputs: Inputs) => {
    const x = inputs[tensor];
    x.data[x.offset + 5 * x.strides[2] + 3] = Tensor.full([1], value, { dtype: x.dtype }).data[0];
  };
  for (const [dtype, precision] of PATHS) {
    const edges = dtype === 'float16' ? [65504, 6e-8] : [2 ** 60, 2 ** 61, 2 ** -100, 2 ** -101, 1e-40];
    const options = (): AttentionOptions => ({ causal: true, precision });
    const name = precision === 'highest' ? dtype : `${dtype} ${precision}`;
    for (const tensor of ['q', 'k', 'v'] as const) {
      for (const value of [...edges, NaN, Infinity]) {
        add(`range: ${value} in ${tensor}, ${name}`, why, base, {
          dtype,
          options,
          spoil: put(tensor, value),
        });
      }
    }
    add(`range: 1e-30 everywhere in v, ${name}`, why, base, {
      dtype,
      options,
      spoil: ({ v }) => v.data.fill(Tensor.full([1], dtype === 'float16' ? 1e-6 : 1e-30, { dtype }).data[0]),
    });
    add(`range: NaN of all ones in a bias, ${name}`, 'NaN stays NaN whatever its bits', base, {
      dtype,
      options: (s) => {
        const bits = new Uint32Array(s.kvLen).fill(0);
        bits[250] = 0xffffffff;
        return { ...options(), bias: new Tensor(new Float32Array(bits.buffer), [s.kvLen]) };
      },
    });
  }
}
addRanges();

/** Scores on which a softmax goes wrong or slows down, by every path that multiplies. */
function addAdversarialScores(): void {
  const why = 'no path may leave its error bound';
  const scores: Record<string, (j: number, kvLen: number) => number> = {
    'growing maxima': (j) => j / 4,
    'falling maxima': (j) => -j / 4,
    'one huge late score': (j, n) => (j === n - 2 ? 300 : 0),
    'all scores equal': () => 2,
    'scores of ±1e4': (j) => (j % 2 === 0 ? 1e4 : -1e4),
    'subnormal weights': (j) => (j % 64 === 0 ? 0 : -88 - (j % 16)),
  };
  const bases: Record<string, Partial<Shape>> = {
    prefill: { batch: 1, qLen: 60, kvLen: 300, headDim: 40 },
    decode: { ...DECODE, batch: 1, qLen: 3 },
  };
  for (const [at, base] of Object.entries(bases)) {
    for (const [dtype, precision] of PATHS) {
      const name = `${at}, ${dtype} ${precision}`;
      const options = (): AttentionOptions => ({ causal: true, precision });
      for (const [kind, size] of Object.entries(scores)) {
        add(`adversarial: ${kind}, ${name}`, why, base, {
          dtype,
          options: () => ({ ...options(), scale: 1 }),
          spoil: setScores(size),
        });
      }
      const tiny = dtype === 'float16' ? 2 ** -16 : 2 ** -128;
      for (const tensor of ['q', 'k', 'v'] as const) {
        add(`adversarial: subnormal ${tensor}, ${name}`, why, base, {
          dtype,
          options,
          spoil: (inputs) => {
            const x = inputs[tensor];
            x.data.set(
              new Tensor(
                x.toFloat32Array().map((y) => y * tiny),
                x.shape,
              ).to(dtype).data,
            );
          },
        });
      }
    }
  }
}
addAdversarialScores();

/** All cases. */
export const CASES: readonly Case[] = list;
