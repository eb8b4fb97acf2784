// One generator for each entry of the public API that keeps no state.
import { hostile } from './hostile.mjs';
import {
  backendEntry,
  integers,
  operands,
  resultEntries,
  scoreEntries,
  sequenceEntries,
  sizes,
  tensor,
} from './problems.mjs';
import { act, call, list, wrap } from './source.mjs';
import { tensorMakers, tensorMethods } from './tensor-calls.mjs';

/** q, k, v and options of an attention call; names of all four. */
function problem(context, extra = () => []) {
  const its = sizes(context.random);
  const names = operands(context, its);
  const { dtype, batch, numHeads, qLen, valueDim, rank } = its;
  const outShape = rank === 3 ? [numHeads, qLen, valueDim] : [batch, numHeads, qLen, valueDim];
  const sequences = sequenceEntries(context, its);
  const entries = [
    ...sequences,
    ...scoreEntries(context, its),
    backendEntry(context),
    ...extra(its, dtype, outShape),
  ];
  const options = context.declare('options', context.options(entries));
  return { names: [...names, options], its };
}

function attention(context) {
  const { names } = problem(context, (_, dtype, shape) => resultEntries(context, dtype, shape));
  const name = context.random.pick(['attention', 'attention', 'attention', 'referenceAttention']);
  context.add(act(context.verb, name, call(`sdpa.${name}`, names, 3)));
  if (context.isValid && context.random.chance(0.5)) context.add(call('f.agrees', names));
}

function attentionAsync(context) {
  const signal = () =>
    context.random.pick([
      'new AbortController().signal',
      'AbortSignal.abort(f.planted)',
      '{ aborted: false, addEventListener() {}, removeEventListener() {} }',
      '{ aborted: 1, addEventListener: 5 }',
      'null',
    ]);
  context.isSteady = true;
  const { names } = problem(context, (_, dtype, shape) => [
    ...resultEntries(context, dtype, shape),
    context.random.chance(0.15) && ['signal', context.strange(context.place(signal(), 'object'))],
  ]);
  const got = context.declare(
    'got',
    wrap(
      `await f.later('attentionAsync', () => `,
      call('sdpa.attentionAsync', names, 3),
      `, ${context.isValid})`,
    ),
  );
  if (context.isValid && context.random.chance(0.5))
    context.add(wrap(`f.same(${got}, `, act('call', 'attention', call('sdpa.attention', names, 3)), ')'));
}

const selection = (context, its) => [
  context.random.chance(0.3) && [
    'queries',
    context.place(integers(context.random, its.qLen > 0 ? [its.qLen - 1] : []), 'list'),
  ],
  context.random.chance(0.3) && [
    'heads',
    context.place(integers(context.random, [its.numHeads - 1, 0]), 'list'),
  ],
];

function attentionWeights(context) {
  const { names } = problem(context, (its) => [
    ...selection(context, its),
    [
      'stage',
      context.place(context.random.pick(["'scores'", "'capped'", "'biased'", "'weights'"]), 'primitive'),
    ],
  ]);
  context.add(act(context.verb, 'attentionWeights', call('sdpa.attentionWeights', names, 3)));
}

function attentionStats(context) {
  const massWindow = () => ['massWindow', context.place('{ left: 3, right: 0 }', 'object')];
  const { names } = problem(context, (its) => [
    ...selection(context, its),
    context.random.chance(0.4) && massWindow(),
  ]);
  context.add(act(context.verb, 'attentionStats', call('sdpa.attentionStats', names, 3)));
}

function compareAttention(context) {
  const { names } = problem(context);
  const expected = context.random.chance(0.5)
    ? []
    : [context.strange(hostile(context.random, 'tensor', 'object'))];
  context.add(
    act(context.verb, 'compareAttention', call('sdpa.compareAttention', [...names, ...expected], 3)),
  );
}

function mergeAttention(context) {
  const { random } = context;
  const shape = [random.int(0, 2), random.int(1, 3), random.int(0, 9)];
  const part = () =>
    context.place(
      context.options([
        ['out', tensor(context, 'float32', shape)],
        ['lse', tensor(context, 'float32', shape.slice(0, -1))],
      ]),
      'object',
    );
  const parts = context.place(list(Array.from({ length: random.int(1, 3) }, part)), 'list');
  context.add(act(context.verb, 'mergeAttention', call('sdpa.mergeAttention', [parts])));
}

const scaling = (context) => {
  const number = (valid) => context.place(valid, 'number');
  const { random } = context;
  return context.options([
    [
      'rope_type',
      context.place(
        random.pick([
          "'default'",
          "'linear'",
          "'dynamic'",
          "'yarn'",
          "'llama3'",
          "'longrope'",
          "'proportional'",
        ]),
        'primitive',
      ),
    ],
    ['factor', number('4')],
    random.chance(0.9) && ['max_position_embeddings', number('64')],
    random.chance(0.9) && ['original_max_position_embeddings', number('16')],
    ['low_freq_factor', number('1')],
    ['high_freq_factor', number('4')],
    random.chance(0.3) && ['mscale', number('1')],
    random.chance(0.3) && ['rope_theta', number('5000')],
    random.chance(0.3) && ['partial_rotary_factor', number('0.5')],
    random.chance(0.5) && ['short_factor', context.place('[1, 1, 1, 1]', 'list')],
    random.chance(0.5) && ['long_factor', context.place('[2, 2, 2, 2]', 'list')],
  ]);
};

function rope(context) {
  const { random } = context;
  const [batch, length, dim] = [random.int(1, 2), random.int(0, 4), random.pick([2, 8, 16])];
  const x = context.declare(
    'x',
    tensor(context, random.pick(['float32', 'float16', 'bfloat16']), [batch, 2, length, dim]),
  );
  context.tensors = [x];
  const positions = Array.from({ length }, () => random.int(-2, 90));
  const entries = [
    random.chance(0.4) && ['positions', context.place(integers(random, positions), 'list', 'array')],
    random.chance(0.2) && [
      'offset',
      context.place(random.pick(['0', '100', '-3', '2 ** 53 - 1', '2 ** 31']), 'number'),
    ],
    random.chance(0.3) && ['theta', context.place('10000', 'number')],
    random.chance(0.3) && ['dim', context.place('2', 'number')],
    random.chance(0.3) && ['interleaved', context.place('true', 'primitive')],
    random.chance(0.3) && ['scaling', context.place(scaling(context), 'object')],
    random.chance(0.1) && ['cos', context.place('sdpa.Tensor.zeros([100, 1])', 'tensor')],
    random.chance(0.1) && ['sin', context.place('sdpa.Tensor.zeros([100, 1])', 'tensor')],
  ];
  context.add(act('call', 'rope', call('sdpa.rope', [x, context.options(entries)], 1)));
}

function ropeTables(context) {
  const { random } = context;
  const entries = [
    ['dim', context.place(random.pick(['0', '2', '8']), 'number')],
    ['maxPosition', context.place(random.pick(['0', '1', '20']), 'number')],
    random.chance(0.3) && ['theta', context.place('500', 'number')],
    random.chance(0.5) && ['scaling', context.place(scaling(context), 'object')],
  ];
  context.add(
    act('call', 'ropeTables', call('sdpa.ropeTables', [context.place(context.options(entries), 'object')])),
  );
}

function describeModel(context) {
  const { random } = context;
  const number = (valid) => context.place(valid, 'number', 'primitive');
  const config = context.options([
    [
      'model_type',
      context.place(
        random.pick([
          "'llama'",
          "'gemma3_text'",
          "'deepseek_v3'",
          "'gpt_oss'",
          "'qwen3_5'",
          "'falcon'",
          "'bert'",
          "'gemma4'",
          "'whisper'",
          "'phi3'",
        ]),
        'primitive',
      ),
    ],
    ['num_hidden_layers', number('4')],
    ['num_attention_heads', number('8')],
    ['hidden_size', number('64')],
    random.chance(0.7) && ['num_key_value_heads', number('2')],
    random.chance(0.4) && ['head_dim', number('8')],
    random.chance(0.4) && ['sliding_window', number('16')],
    random.chance(0.3) && [
      'layer_types',
      context.place("['full_attention', 'sliding_attention', 'full_attention', 'sliding_attention']", 'list'),
    ],
    random.chance(0.3) && ['rope_scaling', context.place(scaling(context), 'object')],
    random.chance(0.3) && ['rope_parameters', context.place(scaling(context), 'object')],
    random.chance(0.2) && ['kv_lora_rank', number('16')],
    random.chance(0.2) && ['qk_rope_head_dim', number('8')],
    random.chance(0.2) && ['qk_nope_head_dim', number('8')],
    random.chance(0.2) && ['v_head_dim', number('8')],
    random.chance(0.3) && ['intermediate_size', number('128')],
    random.chance(0.3) && ['vocab_size', number('100')],
    random.chance(0.2) && ['num_experts', number('4')],
    random.chance(0.2) && ['text_config', context.place('{ hidden_size: 32 }', 'object')],
    random.chance(0.2) && ['tie_word_embeddings', context.place('true', 'primitive')],
  ]);
  const given = random.chance(0.2) ? wrap('f.json(', config, ')') : config;
  const text = random.chance(0.1)
    ? random.pick(["'{'", "''", "'[]'", "'null'", '\'{"a":1e999}\'', '\'{"__proto__":{"hidden_size":3}}\''])
    : given;
  if (random.chance(0.2) && typeof text !== 'string' && !text.before)
    context.add(
      act(
        'call',
        'kvCacheBytes',
        call('sdpa.kvCacheBytes', [
          context.place(wrap('', `sdpa.describeModel(sdpa.presetConfig('llama3-8b'))`, ''), 'object'),
          context.place('100', 'number'),
          context.place("'int8'", 'primitive'),
        ]),
      ),
    );
  else context.add(act('call', 'describeModel', call('sdpa.describeModel', [context.place(text, 'object')])));
}

function smallOnes(context) {
  const { random } = context;
  const any = (valid, ...likely) => (random.chance(0.6) ? valid : hostile(random, ...likely));
  const made = random.pick([
    ['alibiSlopes', () => [any(random.pick(['1', '7', '64']), 'number')]],
    ['setNumThreads', () => [any(random.pick(['1', '2', '2']), 'number')]],
    ['presetConfig', () => [any("'llama3-8b'", 'primitive', 'object')]],
    ['presetNames', () => []],
    ['backendInfo', () => []],
    ['memoryInfo', () => []],
    ['getNumThreads', () => []],
  ]);
  context.add(act('call', made[0], call(`sdpa.${made[0]}`, made[1]())));
}

/** Weights are calls a program of that entry. */
export const CALLS = {
  attention: [attention, 30],
  attentionAsync: [attentionAsync, 6],
  attentionWeights: [attentionWeights, 6],
  attentionStats: [attentionStats, 6],
  compareAttention: [compareAttention, 3],
  mergeAttention: [mergeAttention, 5],
  rope: [rope, 6],
  ropeTables: [ropeTables, 3],
  describeModel: [describeModel, 6],
  smallOnes: [smallOnes, 3],
  tensorMakers: [tensorMakers, 8],
  tensorMethods: [tensorMethods, 8],
};
