import { backendInfo } from '../backend-info.ts';
import type { CacheDType, ModelDescription } from '../modules/describe-model.ts';
import { loadAddon } from '../native/loader.ts';
import { Ceilings, coldBytes } from './ceilings.ts';
import { type Measurement, measure } from './measure.ts';
import { scoreOptions } from './model-scores.ts';
import { amountOf, type LayerRates, type PhaseRates } from './plan-times.ts';
import { type PrepareOptions, prepare } from './prepare.ts';
import { cachedBytes, type LayerGroup, type Phase, usefulFlops, type Workload } from './workloads.ts';

/** Rounds that are enough to find a quiet moment of a machine that others use too. */
export const ROUNDS = 3;

const BUDGET = { seconds: 0.1, minSamples: 3 };
const FIRST_PREFILL = 128;
const MAX_PREFILL = 2048;
const MAX_PREFILL_SECONDS = 0.1;
const DECODE_CONTEXTS = [64, 256, 1024, 8192, 32768];
const MAX_DECODE_BYTES = 2 ** 27;

/** A workload, and what its quietest round measured. */
interface Timed {
  readonly workload: Workload;
  best: Measurement | null;
}

/**
 * Times one layer at several contexts, a fraction of a second each, between probes of the ceiling that limits it. Of each
 * context the fastest round counts: a busy machine is slow for seconds at a time, so the rounds of several layers are best
 * taken in turn.
 */
export class LayerMeter {
  readonly #group: LayerGroup;
  readonly #dtype: CacheDType;
  readonly #options: PrepareOptions;
  readonly #ceilings: Ceilings | null;
  readonly #at: (phase: Phase, context: number) => Workload;
  readonly #longest: number;
  readonly #prefill: Timed[];
  readonly #decode: Timed[];

  /** For contexts up to `longest`; `at` says what the layer does in a phase at a context. */
  constructor(
    model: ModelDescription,
    group: LayerGroup,
    dtype: CacheDType,
    longest: number,
    at: (phase: Phase, context: number) => Workload,
  ) {
    const addon = loadAddon();
    const machine = backendInfo();
    this.#group = group;
    this.#dtype = dtype;
    this.#options = scoreOptions(model, group.shape.numHeads);
    this.#ceilings =
      machine.backend === 'native' && !(addon instanceof Error) ? new Ceilings(addon, machine.threads) : null;
    this.#at = at;
    this.#longest = longest;
    this.#prefill = [timedAt(at('prefill', Math.min(FIRST_PREFILL, longest)))];
    this.#decode = model.causal
      ? decodeContexts(at('decode', longest)).map((context) => timedAt(at('decode', context)))
      : [];
  }

  /** Measures each context once more. */
  async round(): Promise<void> {
    const isFirst = this.#prefill[0].best === null;
    for (const timed of this.#prefill) {
      await this.#time(timed);
      const longer = 2 * timed.workload.context;
      if (
        isFirst &&
        longer <= Math.min(this.#longest, MAX_PREFILL) &&
        4 * secondsOf(timed) <= MAX_PREFILL_SECONDS
      )
        this.#prefill.push(timedAt(this.#at('prefill', longer)));
    }
    for (const timed of this.#decode) await this.#time(timed);
  }

  /** What the rounds so far have measured. */
  get rates(): LayerRates {
    const unit = this.#ceilings?.unitOf(this.#prefill[0].workload) ?? null;
    return {
      dtype: this.#dtype,
      layer: this.#group.name,
      shape: this.#group.shape,
      prefill: { ...ratesOf(this.#prefill), unit },
      decode: this.#decode.length === 0 ? null : ratesOf(this.#decode),
    };
  }

  async #time(timed: Timed): Promise<void> {
    const { workload, best } = timed;
    const isDecode = workload.phase === 'decode';
    const prepared = prepare(workload, { ...this.#options, coldBytes: isDecode ? coldBytes() : 0 });
    try {
      if (best === null) await prepared.check();
      const amount = isDecode ? cachedBytes(workload) : usefulFlops(workload);
      const measured = await measure(prepared, amount, this.#ceilingOf(workload), BUDGET);
      if (best === null || measured.seconds < best.seconds) timed.best = measured;
    } finally {
      prepared.dispose();
    }
  }

  #ceilingOf(workload: Workload): ((seconds: number) => number) | null {
    const ceilings = this.#ceilings;
    if (ceilings === null) return null;
    if (workload.phase === 'decode') return () => ceilings.read(cachedBytes(workload));
    const unit = ceilings.unitOf(workload);
    return (seconds) => ceilings.products(unit, seconds);
  }
}

const timedAt = (workload: Workload): Timed => ({ workload, best: null });

const secondsOf = (timed: Timed): number => timed.best?.seconds ?? Number.NaN;

/** Up to the longest, as far as the layer sees and a fraction of a gigabyte holds. */
function decodeContexts(longest: Workload): number[] {
  const context = Math.min(longest.context, longest.window);
  const affordable = Math.floor((MAX_DECODE_BYTES / cachedBytes(longest)) * context);
  const last = Math.max(1, Math.min(context, DECODE_CONTEXTS[DECODE_CONTEXTS.length - 1], affordable));
  return [...DECODE_CONTEXTS.filter((each) => each < last), last];
}

function ratesOf(list: readonly Timed[]): PhaseRates {
  const last = list[list.length - 1].best;
  return {
    points: list.map((timed) => ({
      context: timed.workload.context,
      amount: amountOf(timed.workload),
      seconds: secondsOf(timed),
    })),
    ceiling: last?.ceiling ?? null,
    share: last?.share ?? null,
  };
}
