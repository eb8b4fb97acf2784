import { attention } from '../attention.ts';
import { attentionWeights } from '../attention-weights.ts';
import type { CompareOptions } from '../compare-attention.ts';
import type { AttentionWindow } from '../options.ts';
import { Tensor } from '../tensor.ts';

/** Attention as somebody may have computed it. */
export interface Computation {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  readonly options: CompareOptions;
}

/** A usual mistake: what it is called, what to do, and what the computation becomes with it. */
export interface Hypothesis {
  /** The end of the sentence 'The claimed output fits attention …'. */
  readonly text: string;
  readonly remedy: string;
  /** null where it would change nothing here, or cannot be told. */
  readonly apply: (right: Computation) => Computation | null;
}

/** Scores are written out for what no option says; not beyond so many. */
const MAX_SCORES = 2 ** 24;

const withOptions = (right: Computation, options: CompareOptions): Computation => ({
  ...right,
  options: { ...right.options, ...options },
});

const lengths = ({ q, k }: Computation): { qLen: number; kvLen: number } => ({
  qLen: q.shape[2],
  kvLen: k.shape[2],
});

const isSimple = ({ options }: Computation): boolean => options.cuSeqlensQ == null;

/** The position of the first query as one number; null where there is more than one. */
function offsetOf(right: Computation): number | null {
  const { queryOffset, kvLengths } = right.options;
  if (typeof queryOffset === 'number') return queryOffset;
  if (queryOffset != null || kvLengths != null || !isSimple(right)) return null;
  const { qLen, kvLen } = lengths(right);
  return kvLen - qLen;
}

function moved(right: Computation, to: (offset: number) => number): Computation | null {
  const { causal, window, alibiSlopes } = right.options;
  if (!causal && window == null && alibiSlopes == null) return null;
  const offset = offsetOf(right);
  if (offset === null || to(offset) === offset) return null;
  return withOptions(right, { queryOffset: to(offset) });
}

function scaled(right: Computation, to: (headDim: number, scale: number) => number): Computation | null {
  const headDim = right.q.shape[right.q.rank - 1];
  const scale = right.options.scale ?? 1 / Math.sqrt(headDim);
  const wrong = to(headDim, scale);
  return Number.isFinite(wrong) && wrong !== scale ? withOptions(right, { scale: wrong }) : null;
}

function windowed(right: Computation, left: number, side: number): Computation | null {
  const window = right.options.window as AttentionWindow | null | undefined;
  if (window == null) return null;
  const shift = (value: number | null | undefined, by: number): number | null | undefined =>
    value == null || value === Infinity || value + by < 0 ? value : value + by;
  const changed = { ...window, left: shift(window.left, left), right: shift(window.right, side) };
  const isSame = changed.left === window.left && changed.right === window.right;
  return isSame ? null : withOptions(right, { window: changed });
}

const without = (name: keyof CompareOptions) => (right: Computation) =>
  right.options[name] == null || right.options[name] === 0 ? null : withOptions(right, { [name]: null });

/** k and v with a head for each query head, as `repeat` and `tile` of other libraries order them. */
function tiledHeads(right: Computation): Computation | null {
  const [numHeads, numKvHeads] = [right.q.shape[right.q.rank - 3], right.k.shape[right.k.rank - 3]];
  if (numKvHeads === 1 || numHeads === numKvHeads || !isSimple(right)) return null;
  const tile = (x: Tensor): Tensor => {
    const [batch, , kvLen, dim] = x.shape;
    const all = Tensor.empty([batch, numHeads, kvLen, dim], { dtype: x.dtype });
    const source = x.contiguous();
    const headSize = kvLen * dim;
    for (let b = 0; b < batch; b++) {
      for (let h = 0; h < numHeads; h++) {
        const from = source.offset + (b * numKvHeads + (h % numKvHeads)) * headSize;
        all.data.set(source.data.subarray(from, from + headSize) as never, (b * numHeads + h) * headSize);
      }
    }
    return all;
  };
  return { ...right, k: tile(right.k), v: tile(right.v) };
}

function invertedMask(right: Computation): Computation | null {
  const mask = right.options.mask as Tensor | null | undefined;
  if (mask == null) return null;
  const inverted = Uint8Array.from(mask.contiguous().clone().data as Uint8Array, (x) => (x === 0 ? 1 : 0));
  return withOptions(right, { mask: new Tensor(inverted, mask.shape, { dtype: 'bool' }) });
}

/** true and false, taken for the numbers 1 and 0 and added to the scores. */
function addedMask(right: Computation): Computation | null {
  const mask = right.options.mask as Tensor | null | undefined;
  if (mask == null || right.options.bias != null) return null;
  const numbers = Float32Array.from(mask.contiguous().clone().data as Uint8Array);
  return withOptions(right, { mask: null, bias: new Tensor(numbers, mask.shape) });
}

/** Masked scores go through the cap, and come out as -softcap: they count. */
function cappedMask(right: Computation): Computation | null {
  const { softcap } = right.options;
  const [batch, numHeads, qLen] = right.q.shape;
  if (!softcap || !isSimple(right) || batch * numHeads * qLen * right.k.shape[2] > MAX_SCORES) return null;
  const given = right.options;
  const weights = (stage: 'capped' | 'biased'): Tensor =>
    attentionWeights(right.q, right.k, right.v, { ...given, stage });
  const [capped, biased] = [weights('capped'), weights('biased')];
  const bias = Tensor.empty(biased.shape);
  let isMasked = false;
  for (let i = 0; i < biased.size; i++) {
    const [score, before] = [biased.data[i] as number, capped.data[i] as number];
    isMasked ||= score === -Infinity;
    bias.data[i] = score === -Infinity ? -softcap - before : score - before;
  }
  const open = { causal: false, window: null, mask: null, alibiSlopes: null, kvLengths: null };
  return isMasked ? withOptions(right, { ...open, bias, queryOffset: null }) : null;
}

/** The usual mistakes, the most usual first. */
export const HYPOTHESES: readonly Hypothesis[] = [
  {
    text: 'with the causal mask aligned top-left (PyTorch is_causal): the first query at position 0',
    remedy: 'align it bottom-right (FlashAttention, a KV cache), or verify with --query-offset 0',
    apply: (right) => moved(right, () => 0),
  },
  {
    text: 'with the causal mask aligned bottom-right: the last query at the last key',
    remedy: 'start at --query-offset, or verify without it',
    apply: (right) => moved(right, () => right.k.shape[2] - right.q.shape[2]),
  },
  {
    text: 'without the scale: q·k as it is',
    remedy: 'multiply the scores by 1/sqrt(headDim), or verify with --scale 1',
    apply: (right) => scaled(right, () => 1),
  },
  {
    text: 'with the default scale, 1/sqrt(headDim), in place of the one given',
    remedy: 'pass the scale, or verify without --scale',
    apply: (right) => scaled(right, (headDim) => 1 / Math.sqrt(headDim)),
  },
  {
    text: 'with the scale applied twice',
    remedy: 'scale q or the scores, not both',
    apply: (right) => scaled(right, (_, scale) => scale * scale),
  },
  {
    text: 'with scores divided by headDim in place of its root',
    remedy: 'divide by Math.sqrt(headDim)',
    apply: (right) => scaled(right, (headDim) => 1 / headDim),
  },
  {
    text: 'with scores multiplied by the root of headDim',
    remedy: 'divide by it',
    apply: (right) => scaled(right, (headDim) => Math.sqrt(headDim)),
  },
  {
    text: 'with the scale of the whole model width, 1/sqrt(numHeads · headDim)',
    remedy: 'use 1/sqrt(headDim)',
    apply: (right) => scaled(right, (headDim) => 1 / Math.sqrt(headDim * right.q.shape[right.q.rank - 3])),
  },
  {
    text: 'without the causal mask',
    remedy: 'hide the keys after each query, or verify without --causal',
    apply: (right) => (right.options.causal ? withOptions(right, { causal: false }) : null),
  },
  {
    text: 'with a causal mask (bottom-right)',
    remedy: 'verify with --causal, or take the mask out',
    apply: (right) => (right.options.causal ? null : withOptions(right, { causal: true })),
  },
  {
    text: 'with a causal mask aligned top-left',
    remedy: 'verify with --causal --query-offset 0, or take the mask out',
    apply: (right) =>
      right.options.causal || offsetOf(right) === 0
        ? null
        : withOptions(right, { causal: true, queryOffset: 0 }),
  },
  // Before the positions: of a single query both may give the same.
  {
    text: 'with a window one key wider on the left',
    remedy: "a model's sliding_window N is { left: N - 1 }: the query itself counts",
    apply: (right) => windowed(right, 1, 0),
  },
  {
    text: 'with a window one key narrower on the left',
    remedy: "a model's sliding_window N is { left: N - 1 }: the query itself counts",
    apply: (right) => windowed(right, -1, 0),
  },
  {
    text: 'with a window one key wider on the right',
    remedy: 'right counts keys after the query',
    apply: (right) => windowed(right, 0, 1),
  },
  {
    text: 'with a window one key narrower on the right',
    remedy: 'right counts keys after the query',
    apply: (right) => windowed(right, 0, -1),
  },
  {
    text: 'with queries one position too early: a query does not see its own key',
    remedy: 'let query i see key j where j <= queryOffset + i',
    apply: (right) => moved(right, (offset) => offset - 1),
  },
  {
    text: 'with queries one position too late: a query sees the key after its own',
    remedy: 'let query i see key j where j <= queryOffset + i',
    apply: (right) => moved(right, (offset) => offset + 1),
  },
  { text: 'without the window', remedy: 'apply it, or verify without --window', apply: without('window') },
  {
    text: 'without the sink tokens of the window',
    remedy: 'keep the first tokens visible, or verify without --sink-tokens',
    apply: (right) => {
      const { window } = right.options;
      return window?.sinkTokens ? withOptions(right, { window: { ...window, sinkTokens: 0 } }) : null;
    },
  },
  {
    text: 'with kv heads tiled: query head h reads kv head h % numKvHeads',
    remedy: 'repeat each kv head groupSize times in a row: head h reads kv head floor(h / groupSize)',
    apply: tiledHeads,
  },
  {
    text: 'with softcap applied after the mask, so that masked keys count with a score of -softcap',
    remedy: 'cap the scores first, then mask',
    apply: cappedMask,
  },
  {
    text: 'without softcap',
    remedy: 'cap the scores, or verify without --softcap',
    apply: without('softcap'),
  },
  {
    text: 'with the mask inverted: it attends where the mask is false',
    remedy: 'true means attend; invert it',
    apply: invertedMask,
  },
  {
    text: 'with the mask added to the scores as 0 and 1',
    remedy: 'put -Infinity where the mask is false, and 0 elsewhere',
    apply: addedMask,
  },
  { text: 'without the mask', remedy: 'apply it, or verify without --mask', apply: without('mask') },
  { text: 'without the bias', remedy: 'add it, or verify without --bias', apply: without('bias') },
  {
    text: 'without ALiBi',
    remedy: 'add it, or verify without --alibi-slopes',
    apply: without('alibiSlopes'),
  },
  {
    text: 'without the sinks',
    remedy: 'let them join the denominator, or verify without --sinks',
    apply: without('sinks'),
  },
  {
    text: 'with keys beyond kvLengths attended to: padding counts',
    remedy: 'mask the padding',
    apply: (right) => {
      const { kvLengths, queryOffset } = right.options;
      if (!(kvLengths instanceof Int32Array)) return null;
      const offsets = queryOffset ?? kvLengths.map((length) => length - right.q.shape[2]);
      return withOptions(right, { kvLengths: null, queryOffset: offsets });
    },
  },
  {
    text: 'without kvLengths: padding counts, and the last query stands at the last key',
    remedy: 'mask the padding, and count positions from the length of each sequence',
    apply: without('kvLengths'),
  },
  {
    text: 'with k and v exchanged',
    remedy: 'check the order of the arguments',
    apply: (right) =>
      right.k.shape[right.k.rank - 1] === right.v.shape[right.v.rank - 1]
        ? { ...right, k: right.v, v: right.k }
        : null,
  },
];

/** The output of a computation, by the backend in use. */
export function compute({ q, k, v, options }: Computation): Tensor {
  return attention(q, k, v, { ...options, returnLse: false }) as Tensor;
}
