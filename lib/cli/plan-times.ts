import { backendInfo } from '../backend-info.ts';
import type { CacheDType, ModelDescription } from '../modules/describe-model.ts';
import { loadAddon } from '../native/loader.ts';
import { Ceilings, coldBytes, type ProductUnit } from './ceilings.ts';
import { measure } from './measure.ts';
import { scoreOptions } from './model-scores.ts';
import { type PrepareOptions, prepare } from './prepare.ts';
import {
  cachedBytes,
  type LayerGroup,
  type LayerShape,
  type Phase,
  usefulFlops,
  visiblePairs,
  type Workload,
} from './workloads.ts';

/**
 * How fast this machine does one layer. Prefill is taken to go with the pairs that it computes, decode with the bytes
 * that it reads, beside a fixed time a step: both are measured at a size that takes a fraction of a second, between probes
 * of the ceiling that limits them.
 */
export interface LayerRates {
  readonly dtype: CacheDType;
  readonly layer: string;
  readonly shape: LayerShape;
  readonly prefill: {
    readonly context: number;
    readonly secondsPerPair: number;
    /** 'FMA', 'tile' or null, the ceiling in FLOP/s and the share of it reached. */
    readonly unit: ProductUnit | null;
    readonly ceiling: number | null;
    readonly share: number | null;
  };
  readonly decode: {
    readonly context: number;
    readonly secondsPerStep: number;
    readonly secondsPerByte: number;
    /** Bytes/s of a plain read, and the share of it reached. */
    readonly ceiling: number | null;
    readonly share: number | null;
  } | null;
}

const BUDGET = { seconds: 0.25, minSamples: 5 };
const PREFILL_SECONDS = 0.1;
const MIN_PREFILL = 128;
const MAX_PREFILL = 2048;
const SHORT_DECODE = 64;
const MAX_DECODE = 8192;

/**
 * Pairs of one head that prefill computes: those that are visible, and half a tile more at each query, where a tile
 * lies across the edge of what is visible.
 */
const EDGE_PAIRS = 32;
const computedPairs = (workload: Workload): number => {
  const { context, causal, window } = workload;
  return visiblePairs(workload) + (causal || window < context ? EDGE_PAIRS * context : 0);
};

/** Measures a layer at contexts up to `longest`. */
export async function measureLayer(
  model: ModelDescription,
  group: LayerGroup,
  dtype: CacheDType,
  longest: number,
  at: (phase: Phase, context: number) => Workload,
): Promise<LayerRates> {
  const meter = new Meter(model, group);
  return {
    dtype,
    layer: group.name,
    shape: group.shape,
    prefill: await meter.prefill((context) => at('prefill', context), longest),
    decode: model.causal ? await meter.decode((context) => at('decode', context), longest) : null,
  };
}

/** Seconds that one layer should take. */
export function predictSeconds(rates: LayerRates, workload: Workload): number {
  if (workload.phase !== 'decode') return rates.prefill.secondsPerPair * computedPairs(workload);
  if (rates.decode === null) return Number.NaN;
  return rates.decode.secondsPerStep + rates.decode.secondsPerByte * cachedBytes(workload);
}

class Meter {
  readonly #options: PrepareOptions;
  readonly #ceilings: Ceilings | null;

  constructor(model: ModelDescription, group: LayerGroup) {
    const addon = loadAddon();
    const machine = backendInfo();
    this.#options = scoreOptions(model, group.shape.numHeads);
    this.#ceilings =
      machine.backend === 'native' && !(addon instanceof Error) ? new Ceilings(addon, machine.threads) : null;
  }

  /** At the context, a power of two, that takes about PREFILL_SECONDS. */
  async prefill(at: (context: number) => Workload, longest: number): Promise<LayerRates['prefill']> {
    const ceilings = this.#ceilings;
    const unit = ceilings?.unitOf(at(1)) ?? null;
    for (let context = Math.min(MIN_PREFILL, longest); ; context *= 2) {
      const workload = at(context);
      const flops = usefulFlops(workload);
      const ceiling =
        ceilings === null || unit === null ? null : (seconds: number) => ceilings.products(unit, seconds);
      const { seconds, ...reached } = await this.#time(workload, flops, ceiling, 0);
      if (seconds < PREFILL_SECONDS / 4 && 2 * context <= Math.min(longest, MAX_PREFILL)) continue;
      return {
        context,
        secondsPerPair: seconds / computedPairs(workload),
        unit,
        ceiling: reached.ceiling,
        share: reached.share,
      };
    }
  }

  /** On cold data at two lengths, which tell apart what a step takes and what a byte takes. */
  async decode(at: (context: number) => Workload, longest: number): Promise<LayerRates['decode']> {
    const ceilings = this.#ceilings;
    const timed = async (context: number) => {
      const bytes = cachedBytes(at(context));
      const ceiling = ceilings === null ? null : () => ceilings.read(bytes);
      return { bytes, ...(await this.#time(at(context), bytes, ceiling, coldBytes())) };
    };
    const context = Math.min(longest, at(1).window, MAX_DECODE);
    const long = await timed(context);
    const reached = { context, ceiling: long.ceiling, share: long.share };
    if (context <= 2 * SHORT_DECODE)
      return { ...reached, secondsPerStep: 0, secondsPerByte: long.seconds / long.bytes };
    const short = await timed(SHORT_DECODE);
    const slope = (long.seconds - short.seconds) / (long.bytes - short.bytes);
    const secondsPerByte = Math.max(slope, 0.5 * (long.seconds / long.bytes));
    const secondsPerStep = Math.max(0, long.seconds - secondsPerByte * long.bytes);
    return { ...reached, secondsPerStep, secondsPerByte };
  }

  async #time(
    workload: Workload,
    amount: number,
    ceiling: ((seconds: number) => number) | null,
    cold: number,
  ) {
    const prepared = prepare(workload, { ...this.#options, coldBytes: cold });
    try {
      prepared.check();
      return await measure(prepared, amount, ceiling, BUDGET);
    } finally {
      prepared.dispose();
    }
  }
}
