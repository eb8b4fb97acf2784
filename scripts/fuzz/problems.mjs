// Attention problems that are legal in every part, small enough to be checked by the thousand.
import { call, list, object } from './source.mjs';

const DTYPES = { float32: 5, float16: 2, bfloat16: 2 };
const STYLES = { plain: 4, padded: 2, swapped: 2, reversed: 1, repeated: 1 };
const FORMS = { tensor: 8, foreign: 2, frozen: 1, bare: 1, proxied: 1, realm: 1, derived: 1 };
const KINDS = { plain: 8, shared: 1, resizable: 1 };

/** The sizes of a problem. */
export function sizes(random) {
  const numKvHeads = random.int(1, 3);
  const longest = random.weighted({ 8: 5, 40: 4, 140: 2.5, 1100: 0.15 });
  return {
    dtype: random.weighted(DTYPES),
    batch: random.int(1, 3) === 3 ? random.int(0, 3) : 1,
    numKvHeads,
    numHeads: numKvHeads * random.pick([1, 1, 2, 3, 4]),
    qLen: random.chance(0.05) ? 0 : random.pick([1, 1, 2, 3, 5, 17]),
    kvLen: random.chance(0.05) ? 0 : random.int(1, Number(longest)),
    headDim: random.pick([1, 2, 4, 8, 16, 17, 32, 40]),
    valueDim: random.pick([1, 3, 8, 16, 16, 24, 33, 0]),
    rank: 4,
  };
}

/** The source of a tensor; its shape and dtype may be corrupted. */
export function tensor(context, dtype, shape) {
  const { random } = context;
  const style = random.weighted(STYLES);
  const kind = context.isSteady ? 'plain' : random.weighted(KINDS);
  const form = random.weighted(FORMS);
  const how = [
    style !== 'plain' && ['style', `'${style}'`],
    kind !== 'plain' && ['kind', `'${kind}'`],
    form !== 'tensor' && ['form', `'${form}'`],
  ];
  const lengths = shape.map((length) => {
    if (!random.chance(0.006)) return length;
    context.isValid = false;
    return random.pick([0, 1, 2, 3, 7]);
  });
  const type = random.chance(0.01)
    ? random.pick(['float32', 'float16', 'bfloat16', 'int8', 'uint8', 'int32', 'bool'])
    : dtype;
  if (type !== dtype) context.isValid = false;
  const made = call('f.tensor', [`'${type}'`, `[${lengths}]`, `${random.seed()}`, object(how)], 3);
  return context.place(made, 'tensor', 'object');
}

/** Declares q, k and v; returns their names. */
export function operands(context, sizes) {
  const { random } = context;
  const { dtype, batch, numKvHeads, numHeads, qLen, kvLen, headDim, valueDim } = sizes;
  if (batch === 1 && random.chance(0.2)) sizes.rank = 3;
  const shape = (heads, length, dim) =>
    sizes.rank === 3 ? [heads, length, dim] : [batch, heads, length, dim];
  const names = [
    context.declare('q', tensor(context, dtype, shape(numHeads, qLen, headDim))),
    context.declare('k', tensor(context, dtype, shape(numKvHeads, kvLen, headDim))),
    context.declare('v', tensor(context, dtype, shape(numKvHeads, kvLen, valueDim))),
  ];
  context.tensors = names;
  return names;
}

const maybe = (random, chance, make) => (random.chance(chance) ? make() : null);

/** A list of whole numbers, in one of the forms that are taken. */
function integers(random, values) {
  const text = `[${values}]`;
  return random.pick([
    text,
    `new Int32Array(${text})`,
    `{ data: new Int32Array(${text}), dims: [${values.length}], type: 'int32' }`,
    `new sdpa.Tensor(new Int32Array(${text}), [${values.length}])`,
  ]);
}

function floats(random, count) {
  const text = `[${Array.from({ length: count }, () => random.int(-8, 8) / 4)}]`;
  return random.pick([
    text,
    `new Float32Array(${text})`,
    `new sdpa.Tensor(new Float32Array(${text}), [${count}])`,
    `sdpa.Tensor.from(${text}, { dtype: 'float16' })`,
  ]);
}

/** The shape of a mask or bias that broadcasts to `full`. */
function broadcastable(random, full) {
  const shape = full.map((length) => (random.chance(0.4) ? 1 : length));
  return shape.slice(random.int(0, 3));
}

function windowOf(context) {
  const { random } = context;
  const side = () =>
    context.place(
      random.pick(['0', '1', '3', '100', 'Infinity', 'null', '2 ** 31', '2 ** 53 - 1']),
      'number',
    );
  return context.place(
    context.options([
      maybe(random, 0.7, () => ['left', side()]),
      maybe(random, 0.4, () => ['right', side()]),
      maybe(random, 0.3, () => [
        'sinkTokens',
        context.place(random.pick(['0', '1', '4', '2 ** 40']), 'number'),
      ]),
    ]),
    'object',
    'number',
  );
}

/** Entries of what shapes the scores, alone and combined. */
export function scoreEntries(context, { batch, numHeads, qLen, kvLen }) {
  const { random } = context;
  const full = [batch, numHeads, qLen, kvLen];
  return [
    maybe(random, 0.25, () => ['scale', context.place(random.pick(['0', '0.125', '1', '-0.5']), 'number')]),
    maybe(random, 0.4, () => ['causal', context.place(random.pick(['true', 'false', 'null']), 'primitive')]),
    maybe(random, 0.25, () => [
      'queryOffset',
      context.place(
        random.pick([
          () => `${random.int(-4, 40)}`,
          () =>
            integers(
              random,
              Array.from({ length: batch }, () => random.int(-3, 30)),
            ),
          () => random.pick(['2 ** 31 - 1', '-(2 ** 31)']),
        ])(),
        'number',
        'list',
      ),
    ]),
    maybe(random, 0.25, () => ['window', windowOf(context)]),
    maybe(random, 0.2, () => ['mask', tensor(context, 'bool', broadcastable(random, full))]),
    maybe(random, 0.2, () => ['bias', tensor(context, random.weighted(DTYPES), broadcastable(random, full))]),
    maybe(random, 0.2, () => ['alibiSlopes', context.place(floats(random, numHeads), 'list', 'array')]),
    maybe(random, 0.15, () => ['softcap', context.place(random.pick(['0', '5', '30.5']), 'number')]),
    maybe(random, 0.2, () => ['sinks', context.place(floats(random, numHeads), 'list', 'array')]),
    maybe(random, 0.15, () => [
      'precision',
      context.place(random.pick(["'highest'", "'high'", "'medium'"]), 'primitive'),
    ]),
    maybe(random, 0.15, () => [
      'threads',
      context.place(random.pick(['1', '2', '1024', '2 ** 40']), 'number'),
    ]),
  ];
}

/** kvLengths, and what a packed batch needs. Changes sizes to those of the scores. */
export function sequenceEntries(context, sizes) {
  const { random } = context;
  if (sizes.rank === 3 && random.chance(0.4)) {
    const cuts = (total, count) => [
      0,
      ...Array.from({ length: count - 1 }, () => random.int(0, total)).sort((a, b) => a - b),
      total,
    ];
    const count = random.int(1, 3);
    const [q, k] = [cuts(sizes.qLen, count), cuts(sizes.kvLen, count)];
    const longest = (ends) => Math.max(...ends.slice(1).map((end, n) => end - ends[n]));
    Object.assign(sizes, { batch: count, qLen: longest(q), kvLen: longest(k) });
    return [
      ['cuSeqlensQ', context.place(integers(random, q), 'list', 'array')],
      ['cuSeqlensK', context.place(integers(random, k), 'list', 'array')],
    ];
  }
  if (!random.chance(0.2)) return [];
  const lengths = Array.from({ length: sizes.batch }, () => random.int(0, sizes.kvLen));
  return [['kvLengths', context.place(integers(random, lengths), 'list', 'array')]];
}

/** Who computes. */
export const backendEntry = (context) =>
  maybe(context.random, 0.4, () => [
    'backend',
    context.place(context.random.pick(["'native'", "'reference'", "'auto'"]), 'primitive'),
  ]);

/** Where the result goes, and what it is. */
export function resultEntries(context, dtype, shape) {
  const { random } = context;
  const out = () => {
    // One that is refused, late and in a valid call otherwise, must not have been written.
    const fault = random.pick(random.chance(0.2) ? ['type', 'shape'] : ['none']);
    if (fault !== 'none') context.isValid = false;
    const type = fault === 'type' ? (dtype === 'float32' ? 'float16' : 'float32') : dtype;
    const lengths = fault === 'shape' ? [...shape.slice(0, -1), shape.at(-1) + 1] : shape;
    const style = random.pick(['plain', 'padded', 'swapped', 'reversed']);
    const kind = context.isSteady ? 'plain' : random.weighted(KINDS);
    return context.place(
      call('f.out', [`'${type}'`, `[${lengths}]`, `{ style: '${style}', kind: '${kind}' }`], 2),
      'tensor',
      'object',
    );
  };
  return [
    maybe(random, 0.3, () => ['returnLse', context.place('true', 'primitive')]),
    maybe(random, 0.25, () => ['out', out()]),
  ];
}

export { integers, list };
