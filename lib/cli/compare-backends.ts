import { measure, timeOf } from './measure.ts';
import { prepare, type ScoreOptions } from './prepare.ts';
import { type LayerGroup, type Phase, usefulFlops, type Workload } from './workloads.ts';

/** The addon against the TypeScript oracle on one workload: the same problem, the same machine. */
export interface Comparison {
  readonly layer: string;
  readonly phase: Phase;
  readonly context: number;
  readonly nativeMilliseconds: number;
  readonly referenceMilliseconds: number;
  /** referenceMilliseconds / nativeMilliseconds */
  readonly ratio: number;
}

/** The oracle may take so long for one run. */
const MAX_REFERENCE_SECONDS = 1;
const MIN_CONTEXT = 64;
const MAX_CONTEXT = { prefill: 512, decode: 8192 };

/**
 * Times both backends on the largest contexts at which the reference still answers within a second; with `isCurve` at the
 * shorter ones too, each half as long as the next.
 */
export async function compareWithReference(
  group: LayerGroup,
  scores: ScoreOptions,
  { dtype, precision, causal }: Pick<Workload, 'dtype' | 'precision' | 'causal'>,
  isCurve = false,
): Promise<Comparison[]> {
  const comparisons: Comparison[] = [];
  for (const phase of causal ? (['prefill', 'decode'] as const) : (['prefill'] as const)) {
    const shape = phase === 'decode' ? group.decodeShape : group.shape;
    const at = (context: number): Workload => ({
      phase,
      shape,
      context,
      causal,
      window: group.window,
      dtype,
      precision,
    });
    const longest = await longestOfReference(at, MAX_CONTEXT[phase], scores);
    const shortest = isCurve ? MIN_CONTEXT : longest;
    for (let context = shortest; context <= longest; context *= 2) {
      comparisons.push(await compareOn(group.name, at(context), scores));
    }
  }
  return comparisons;
}

/** The largest context that takes the reference a second, by what the shortest takes. */
async function longestOfReference(
  at: (context: number) => Workload,
  maxContext: number,
  scores: ScoreOptions,
): Promise<number> {
  const rate = usefulFlops(at(MIN_CONTEXT)) / (await timeReference(at(MIN_CONTEXT), scores));
  let context = MIN_CONTEXT;
  while (2 * context <= maxContext && usefulFlops(at(2 * context)) <= rate * MAX_REFERENCE_SECONDS) {
    context *= 2;
  }
  return context;
}

async function compareOn(layer: string, workload: Workload, scores: ScoreOptions): Promise<Comparison> {
  const reference = await timeReference(workload, scores);
  const prepared = prepare(workload, scores);
  await prepared.check();
  const native = await measure(prepared, 1, null, { seconds: 0.2, minSamples: 5 });
  prepared.dispose();
  return {
    layer,
    phase: workload.phase,
    context: workload.context,
    nativeMilliseconds: 1000 * native.seconds,
    referenceMilliseconds: 1000 * reference,
    ratio: reference / native.seconds,
  };
}

/** The faster of two runs: the compiler of JavaScript works during the first. */
async function timeReference(workload: Workload, scores: ScoreOptions): Promise<number> {
  const prepared = prepare(workload, { ...scores, backend: 'reference' });
  const seconds = Math.min(await timeOf(prepared), await timeOf(prepared));
  prepared.dispose();
  return seconds;
}
