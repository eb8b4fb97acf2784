// Tensors made, viewed, converted, printed.
import { hostile } from './hostile.mjs';
import { act, call, object, wrap } from './source.mjs';

const SHAPES = ['[]', '[0]', '[3]', '[2, 3]', '5', '[2, 0, 4]', '[1, 2, 3, 4]'];

export function tensorMakers(context) {
  const { random } = context;
  const shape = () => context.place(random.pick(SHAPES), 'list', 'number');
  // What is filled takes time, and memory, as it is large: legal, and no case.
  const smallShape = () =>
    shape()
      .replace(/^2 \*\* 3\d/, '2 ** 53')
      .replace('4294967295', '2');
  const dtype = () =>
    random.chance(0.6)
      ? []
      : [
          context.place(
            context.options([
              [
                'dtype',
                context.place(random.pick(["'float32'", "'bfloat16'", "'int8'", "'bool'"]), 'primitive'),
              ],
            ]),
            'object',
          ),
        ];
  const made = random.pick([
    ['Tensor.zeros', () => [shape(), ...dtype()]],
    ['Tensor.empty', () => [shape(), ...dtype()]],
    ['Tensor.full', () => [smallShape(), context.place('1.5', 'number'), ...dtype()]],
    ['Tensor.arange', () => [smallShape(), ...dtype()]],
    [
      'Tensor.randn',
      () => [smallShape(), ...(random.chance(0.5) ? [] : [context.place('{ seed: 5 }', 'object')])],
    ],
    [
      'Tensor.from',
      () => [
        random.chance(0.5)
          ? hostile(random, 'list', 'array', 'tensor')
          : random.pick([
              '[[1, 2], [3, 4]]',
              '[true, false]',
              '3',
              '[[[]]]',
              '[new Float32Array(2), [1, 2]]',
            ]),
        ...dtype(),
      ],
    ],
  ]);
  context.add(act('call', made[0], call(`sdpa.${made[0]}`, made[1]())));
  if (random.chance(0.5)) newTensor(context);
}

function newTensor(context) {
  const { random } = context;
  const data = context.place(
    random.pick([
      'new Float32Array(24)',
      'new Int8Array(24)',
      "f.foreign('new Float32Array(24)')",
      "f.arraySubclass('Float32Array', 24)",
      'Buffer.alloc(24)',
      'f.disguised(new Float32Array(24))',
    ]),
    'array',
  );
  const options = context.options([
    random.chance(0.3) && [
      'dtype',
      context.place(random.pick(["'float32'", "'int8'", "'uint8'", "'float16'"]), 'primitive'),
    ],
    random.chance(0.4) && [
      'strides',
      context.place(
        random.pick([
          '[12, 4, 1]',
          '[0, 0, 0]',
          '[-12, -4, -1]',
          '[2 ** 53 - 1, 1, 1]',
          '[-(2 ** 53) + 1, 2 ** 53 - 1, 1]',
        ]),
        'list',
      ),
    ],
    random.chance(0.4) && ['offset', context.place(random.pick(['0', '1', '23', '2 ** 53 - 1']), 'number')],
  ]);
  const x = context.declare(
    'x',
    wrap(
      "f.call('Tensor', () => ",
      wrap('new ', call('sdpa.Tensor', [data, context.place('[2, 3, 4]', 'list'), options], 2), ''),
      ') ?? sdpa.Tensor.zeros([2, 3, 4])',
    ),
  );
  methods(context, x);
}

/** A few methods of a tensor. */
function methods(context, x) {
  const { random } = context;
  const axis = () => context.place(random.pick(['0', '1', '-1', '2']), 'number', 'primitive');
  const made = {
    at: () => [axis(), axis(), axis()],
    toArray: () => [],
    toFloat32Array: () => [],
    reshape: () => [
      context.place(
        random.pick(['[6, 4]', '[-1]', '[24]', '[2, 12]', '[2, 3, 2, 2]', '[2 ** 53 - 1, -1]', '[0, -1]']),
        'list',
        'number',
      ),
    ],
    transpose: () => [axis(), axis()],
    permute: () => [context.place(random.pick(['[2, 0, 1]', '[0, 1, 2]', '[0, 0, 1]']), 'list')],
    slice: () => [
      axis(),
      context.place(random.pick(['0', '1', '-1', '2 ** 53']), 'number'),
      context.place(random.pick(['undefined', '2', '-1', '2 ** 53']), 'number'),
    ],
    unsqueeze: () => [axis()],
    squeeze: () => (random.chance(0.5) ? [] : [axis()]),
    contiguous: () => [],
    to: () => [context.place(random.pick(["'float16'", "'int8'", "'bool'", "'float32'"]), 'primitive')],
    clone: () => [],
    toString: () => [],
  };
  for (let n = random.int(1, 3); n > 0; n--) {
    const name = random.pick(Object.keys(made));
    context.add(act('call', name, call(`${x}.${name}`, made[name]())));
  }
}

export function tensorMethods(context) {
  const { random } = context;
  const odd = random.chance(0.3);
  const source = odd
    ? random.pick([
        'sdpa.Tensor.zeros([2 ** 40, 0])',
        'sdpa.Tensor.zeros([2 ** 26, 2 ** 26, 0])',
        'sdpa.Tensor.zeros(new Array(64).fill(1))',
        'f.view(1, [2 ** 40], [0])',
        'f.view(1, new Array(40).fill(2), new Array(40).fill(0))',
        "f.call('Tensor', () => new sdpa.Tensor(f.shrunk(), [2])) ?? sdpa.Tensor.zeros([2, 3, 4])",
        'f.tampered(sdpa.Tensor.zeros([2, 3, 4]), { offset: -5 })',
        "f.tampered(sdpa.Tensor.zeros([2, 3, 4]), { dtype: 'bool' })",
      ])
    : call(
        'f.tensor',
        [
          `'${random.pick(['float32', 'float16', 'int8', 'bool', 'int32', 'uint8'])}'`,
          '[2, 3, 4]',
          `${random.seed()}`,
          object([
            ['style', `'${random.pick(['plain', 'padded', 'reversed', 'repeated'])}'`],
            ['kind', `'${random.pick(['plain', 'shared', 'resizable'])}'`],
          ]),
        ],
        3,
      );
  const x = context.declare('x', source);
  methods(context, x);
  if (random.chance(0.2)) {
    context.add(random.pick([`f.detach(${x})`, `f.shrink(${x})`]));
    methods(context, x);
  }
}
