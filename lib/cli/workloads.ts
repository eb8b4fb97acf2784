import { bytesPerElement, type DType } from '../dtype.ts';
import type { ModelDescription } from '../modules/describe-model.ts';
import type { LayerDescription } from '../modules/model-layers.ts';
import type { AttentionProblem } from '../problem.ts';
import { int8RowBytes } from '../tensor-int8.ts';

/** The heads of one attention layer. */
export interface LayerShape {
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly valueDim: number;
}

/**
 * What is timed: the whole prompt at once, the prompt in chunks through a KVCache, or one more token against a cache
 * that holds `context` tokens with it.
 */
export type Phase = 'prefill' | 'chunked' | 'decode';

/** One layer, one sequence, one phase. */
export interface Workload {
  readonly phase: Phase;
  readonly shape: LayerShape;
  readonly context: number;
  readonly causal: boolean;
  /** Tokens that a query sees, itself included; Infinity without a sliding window. */
  readonly window: number;
  /** Of q, k, v, out and the cache; int8: of the cache, and the others are bfloat16. */
  readonly dtype: DType;
  /** Of products of float32; other dtypes have their own. Default: highest. */
  readonly precision?: AttentionProblem['precision'];
}

/** The dtype of q, k, v and out beside a cache of `dtype`. */
export const inputDType = (dtype: DType): DType => (dtype === 'int8' ? 'bfloat16' : dtype);

/** Tokens of a chunk in chunked prefill. */
export const CHUNK = 256;

/** Shapes (numHeads, numKvHeads, headDim) of Llama 3 8B, Qwen3.6 27B and the small MiniMind2. */
export const SHAPES = {
  llama: { numHeads: 32, numKvHeads: 8, headDim: 128, valueDim: 128 },
  qwen: { numHeads: 24, numKvHeads: 4, headDim: 256, valueDim: 256 },
  minimind: { numHeads: 8, numKvHeads: 2, headDim: 64, valueDim: 64 },
} as const satisfies Record<string, LayerShape>;

/** Query-key pairs of one head that a workload computes: what no mask hides. */
export function visiblePairs({ phase, context, causal, window }: Workload): number {
  const visible = Math.min(context, window);
  if (phase === 'decode') return visible;
  // A window without causality is open on the right: no model has that, and none is counted here.
  if (!causal) return context * context;
  // The first `visible` queries see 1, 2, ... keys, each later one a whole window.
  return (visible * (visible + 1)) / 2 + (context - visible) * visible;
}

/** Useful floating-point operations of a workload: 2 for each channel of q·k and of p·v, masked pairs left out. */
export function usefulFlops(workload: Workload): number {
  const { numHeads, headDim, valueDim } = workload.shape;
  return 2 * (headDim + valueDim) * numHeads * visiblePairs(workload);
}

/** Bytes of keys and values that one decode step must read, each once for its whole query group. */
export function cachedBytes({ shape, context, window, dtype }: Workload): number {
  const { numKvHeads, headDim, valueDim } = shape;
  const rowBytes = (dim: number): number =>
    dtype === 'int8' ? int8RowBytes(dim) : dim * bytesPerElement(dtype);
  return Math.min(context, window) * numKvHeads * (rowBytes(headDim) + rowBytes(valueDim));
}

/** Tokens that a run of the workload brings. */
export function tokensOf({ phase, context }: Workload): number {
  return phase === 'decode' ? 1 : context;
}

/** Layers of a model that are alike. */
export interface LayerGroup {
  /** Such as 'full' or 'sliding 1024'. */
  readonly name: string;
  readonly count: number;
  readonly shape: LayerShape;
  readonly window: number;
  /** The shape of decode, which differs from that of prefill in multi-head latent attention only. */
  readonly decodeShape: LayerShape;
}

/** A model's softmax layers, those alike together, and the number of its linear layers, which attend to nothing. */
export function groupLayers(model: ModelDescription): { groups: LayerGroup[]; numLinear: number } {
  const groups = new Map<string, LayerGroup>();
  let numLinear = 0;
  for (const layer of model.layers) {
    if (layer.kind === 'linear') {
      numLinear++;
      continue;
    }
    const group = describeGroup(model, layer);
    const key = JSON.stringify([group.name, group.shape]);
    groups.set(key, { ...group, count: (groups.get(key)?.count ?? 0) + 1 });
  }
  return { groups: [...groups.values()], numLinear };
}

function describeGroup(model: ModelDescription, layer: LayerDescription): LayerGroup {
  const { numHeads, numKvHeads, headDim, valueDim, window = Infinity } = layer;
  const shape = { numHeads, numKvHeads, headDim, valueDim };
  return {
    name: window === Infinity ? layer.kind : `${layer.kind} ${window}`,
    count: 0,
    shape,
    window,
    decodeShape: model.absorbed === null ? shape : { ...model.absorbed, numHeads },
  };
}

/** 32/8/128: query heads, key/value heads, head size; 128/128/192-128 where v's differs. */
export function formatHeads({ numHeads, numKvHeads, headDim, valueDim }: LayerShape): string {
  return `${numHeads}/${numKvHeads}/${headDim}${valueDim === headDim ? '' : `-${valueDim}`}`;
}

const plain = { causal: true, window: Infinity, dtype: 'float32' } as const;

/** The prefills that this project measures itself by. */
export const prefillCases: readonly Workload[] = (
  [
    [SHAPES.llama, 128],
    [SHAPES.llama, 512],
    [SHAPES.llama, 2048],
    [SHAPES.qwen, 2048],
    [SHAPES.minimind, 512],
    [SHAPES.minimind, 2048],
  ] as const
).map(([shape, context]) => ({ ...plain, phase: 'prefill', shape, context }));

/** The decode steps that this project measures itself by. */
export const decodeCases: readonly Workload[] = [SHAPES.llama, SHAPES.qwen].flatMap((shape) =>
  [8192, 32768].map((context) => ({ ...plain, phase: 'decode' as const, shape, context })),
);
