import { setImmediate } from 'node:timers/promises';

/** Something to time again and again. */
export interface Repeatable {
  /** Returns a promise of what takes long, so that an interrupt gets through. */
  run(): unknown;
  /** Undoes a run; not timed. */
  rewind(): void;
}

/** How long to go on. At least `minSamples`, then until `seconds` have passed. */
export interface Budget {
  readonly seconds: number;
  readonly minSamples: number;
}

/** Medians over the samples. */
export interface Measurement {
  readonly seconds: number;
  /** Of the work's rate to the ceiling measured right before and after it; null without a ceiling. */
  readonly share: number | null;
  /** Operations or bytes a second. */
  readonly ceiling: number | null;
  readonly samples: number;
}

const MAX_SAMPLES = 200;
const FIRST_CEILING_SECONDS = 0.02;
/** Runs shorter than that are timed several in a row, as the layers of a model follow one another. */
const SAMPLE_SECONDS = 0.002;
const MAX_RUNS = 32;

/**
 * Times `work`, which does `amount` operations (or reads so many bytes) a run, and between any two samples the ceiling
 * of such work: on a machine that others use too, only neighbours in time can be compared. The caller has warmed up.
 *
 * @param ceiling the machine's rate, measured for about so many seconds
 */
export async function measure(
  work: Repeatable,
  amount: number,
  ceiling: ((seconds: number) => number | Promise<number>) | null,
  budget: Budget,
): Promise<Measurement> {
  const times: number[] = [];
  const ceilings: number[] = [];
  const shares: number[] = [];
  const end = performance.now() + 1000 * budget.seconds;
  let before = (await ceiling?.(FIRST_CEILING_SECONDS)) ?? null;
  let runs = 1;
  while (times.length < budget.minSamples || (performance.now() < end && times.length < MAX_SAMPLES)) {
    const seconds = await timeOf(work, runs);
    times.push(seconds);
    runs = Math.min(MAX_RUNS, Math.max(1, Math.round(SAMPLE_SECONDS / seconds)));
    if (ceiling === null || before === null) continue;
    const after = await ceiling(runs * seconds);
    shares.push(amount / seconds / ((before + after) / 2));
    ceilings.push(after);
    before = after;
  }
  return {
    seconds: median(times),
    share: shares.length === 0 ? null : median(shares),
    ceiling: ceilings.length === 0 ? null : median(ceilings),
    samples: times.length,
  };
}

/** Seconds of a run, each of which is then undone: the mean of several in a row. */
export async function timeOf(work: Repeatable, runs = 1): Promise<number> {
  // Lets an interrupt through.
  await setImmediate();
  let milliseconds = 0;
  for (let n = 0; n < runs; n++) {
    const start = performance.now();
    const running = work.run();
    if (running !== undefined) await running;
    milliseconds += performance.now() - start;
    work.rewind();
  }
  return milliseconds / 1000 / runs;
}

/** The middle value, or the mean of the two middle ones. */
export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
