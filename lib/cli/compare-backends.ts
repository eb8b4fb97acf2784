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

/** Times both backends on the largest contexts at which the reference still answers within a second. */
export async function compareWithReference(
  group: LayerGroup,
  scores: ScoreOptions,
  { dtype, precision }: Pick<Workload, 'dtype' | 'precision'>,
): Promise<Comparison[]> {
  const comparisons: Comparison[] = [];
  for (const phase of ['prefill', 'decode'] as const) {
    const shape = phase === 'decode' ? group.decodeShape : group.shape;
    const at = (context: number): Workload => ({
      phase,
      shape,
      context,
      causal: true,
      window: group.window,
      dtype,
      precision,
    });
    const first = timeReference(at(MIN_CONTEXT), scores);
    const rate = usefulFlops(at(MIN_CONTEXT)) / first;
    let context = MIN_CONTEXT;
    while (
      2 * context <= MAX_CONTEXT[phase] &&
      usefulFlops(at(2 * context)) <= rate * MAX_REFERENCE_SECONDS
    ) {
      context *= 2;
    }
    const reference = timeReference(at(context), scores);
    const prepared = prepare(at(context), scores);
    prepared.check();
    const native = await measure(prepared, 1, null, { seconds: 0.2, minSamples: 5 });
    prepared.dispose();
    comparisons.push({
      layer: group.name,
      phase,
      context,
      nativeMilliseconds: 1000 * native.seconds,
      referenceMilliseconds: 1000 * reference,
      ratio: reference / native.seconds,
    });
  }
  return comparisons;
}

/** The faster of two runs: the compiler of JavaScript works during the first. */
function timeReference(workload: Workload, scores: ScoreOptions): number {
  const prepared = prepare(workload, { ...scores, backend: 'reference' });
  const seconds = Math.min(timeOf(prepared), timeOf(prepared));
  prepared.dispose();
  return seconds;
}
