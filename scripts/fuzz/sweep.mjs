// One option after the other against every hostile number, primitive or list, all else as it should be: chance alone would
// seldom meet the one value that a check is about.
import { valuesOf } from './hostile.mjs';
import { act } from './source.mjs';

const given = (entry, args, options) =>
  options.map((option) => [entry, (value) => `sdpa.${entry}(${args}{ ${option(value)} })`]);
const named = (names) => names.map((name) => (value) => `${name}: ${value}`);

const ATTENTION = [
  ...named([
    ...['scale', 'causal', 'queryOffset', 'window', 'kvLengths', 'mask', 'bias', 'alibiSlopes', 'softcap'],
    ...['sinks', 'cuSeqlensQ', 'precision', 'returnLse', 'out', 'threads', 'backend'],
  ]),
  ...['left', 'right', 'sinkTokens'].map((side) => (value) => `window: { ${side}: ${value} }`),
];
const CACHE = ['headDim', 'valueDim', 'batch', 'dtype', 'window', 'sinkTokens', 'maxLength', 'backend'];
const SCALING = [
  'rope_type',
  'factor',
  'original_max_position_embeddings',
  'low_freq_factor',
  'short_factor',
];
const ROPE = ['positions', 'offset', 'theta', 'dim', 'interleaved', 'scaling', 'cos'];
const TABLE = ['dim', 'maxPosition', 'theta', 'scaling'];
const MODEL = [
  'num_hidden_layers',
  'hidden_size',
  'num_key_value_heads',
  'head_dim',
  'sliding_window',
  'layer_types',
];

/** Each place: the call's name, and its source with a value there. */
const PLACES = [
  ...given('attention', 'x, x, x, ', ATTENTION),
  ...given('attentionWeights', 'x, x, x, ', named(['stage', 'queries', 'heads'])),
  ...given('attentionStats', 'x, x, x, ', named(['massWindow', 'queries', 'heads'])),
  ...given('rope', 'x, ', named(ROPE)),
  ...given(
    'rope',
    'x, ',
    SCALING.map((name) => (value) => `scaling: { rope_type: 'longrope', factor: 4, ${name}: ${value} }`),
  ),
  ...given('ropeTables', '', named(TABLE)),
  ...given(
    'describeModel',
    '',
    MODEL.map(
      (name) => (value) =>
        `model_type: 'llama', num_hidden_layers: 2, num_attention_heads: 4, hidden_size: 32, ${name}: ${value}`,
    ),
  ),
  ...CACHE.map((name) => [
    'KVCache',
    (value) => `new sdpa.KVCache({ numKvHeads: 2, headDim: 4, ${name}: ${value} }).dispose()`,
  ]),
  ['KVCache', (value) => `new sdpa.KVCache({ numKvHeads: ${value}, headDim: 4 }).dispose()`],
  [
    'kvCacheBytes',
    (value) => `sdpa.kvCacheBytes(sdpa.describeModel(sdpa.presetConfig('llama3-8b')), ${value}, 'int8')`,
  ],
  [
    'kvCacheBytes',
    (value) => `sdpa.kvCacheBytes(sdpa.describeModel(sdpa.presetConfig('llama3-8b')), 9, ${value})`,
  ],
  ['kvCacheBytes', (value) => `sdpa.kvCacheBytes({ layers: ${value}, absorbed: null }, 9, 'int8')`],
  ['alibiSlopes', (value) => `sdpa.alibiSlopes(${value})`],
  ['slice', (value) => `x.slice(${value}, ${value}, ${value})`],
  ['permute', (value) => `x.permute(${value})`],
  ['reshape', (value) => `x.reshape(${value})`],
  ['at', (value) => `x.at(0, 0, 0, ${value})`],
];

const KINDS = ['number', 'primitive', 'list'];

/** So many sweeps apart are those of getters; no divisor of the number of places. */
const MISCHIEF_EVERY = 7;

const OPTIONS = ['scale', 'causal', 'window', 'softcap', 'returnLse', 'backend'];
const DEEDS = ['detach', 'shrink', 'tamper', 'scribble'];

/** The getter of an option that does something to q, k or v, which were looked at before. */
function sweepMischief(context, option) {
  for (const deed of DEEDS) {
    for (const victim of ['q', 'k', 'v']) {
      const kind = deed === 'shrink' ? 'resizable' : 'plain';
      const [q, k, v] = ['q', 'k', 'v'].map((name, n) =>
        context.declare(
          name,
          `f.tensor('float32', [1, 2, ${n === 0 ? 2 : 40}, 8], ${n + 1}, { kind: '${kind}' })`,
        ),
      );
      const named = { q, k, v }[victim];
      const source = `sdpa.attention(${q}, ${k}, ${v}, { get ${option}() { return f.after(() => f.${deed}(${named}), null); } })`;
      context.add(act('call', 'attention', source));
    }
  }
}

/** The nth of them. */
export function sweep(context, n) {
  context.isValid = false;
  if (n % MISCHIEF_EVERY === 0) return sweepMischief(context, OPTIONS[(n / MISCHIEF_EVERY) % OPTIONS.length]);
  const [name, source] = PLACES[n % PLACES.length];
  context.declare('x', 'sdpa.Tensor.randn([1, 2, 3, 4], { seed: 1 })');
  for (const value of valuesOf(KINDS[Math.floor(n / PLACES.length) % KINDS.length])) {
    // What is legal and takes gigabytes is no case.
    const inReason = name === 'KVCache' ? value.replace(/^2 \*\* 3\d( - 1)?$/, '2 ** 45') : value;
    context.add(act('call', name, source(inReason)));
  }
}
