import { checkSamples } from '../prepare.ts';
import { timeInTurn } from '../time-in-turn.ts';
import { findRuntime, PACKAGE, type Runtime } from './runtime.ts';
import { makeInputs, type Peer, type PeerRequest, prepareOurs, prepareTheirs } from './systems.ts';

/** Another package on one workload, timed in turn with ours. */
export interface PeerRow {
  readonly phase: 'prefill' | 'decode';
  readonly context: number;
  readonly system: string;
  readonly milliseconds: number;
  /** Of its time to that of ours in the same round, the median. */
  readonly ratio: number;
}

/** Ours first in each phase; plain data. */
export interface PeerReport {
  /** Whose operators the other rows are, such as 'ONNX Runtime 1.30.0'; null where there are none. */
  readonly engine: string | null;
  readonly rows: readonly PeerRow[];
  /** Why there is nothing, or not everything; null for all is there. */
  readonly note: string | null;
}

const BUDGET = { seconds: 1.5, minRounds: 9 };

const HINT = `${PACKAGE} is not installed: with \`npm install ${PACKAGE}\` in the folder that the command runs in, its GroupQueryAttention and Attention are timed too.`;

/** Times ONNX Runtime's attention where it is installed and computes the same. */
export async function measurePeers(request: PeerRequest, budget = BUDGET): Promise<PeerReport> {
  const obstacle = obstacleOf(request);
  if (obstacle !== null)
    return { engine: null, rows: [], note: `ONNX Runtime was not compared: ${obstacle}.` };
  const rows: PeerRow[] = [];
  let engine: string | null = null;
  try {
    const found = findRuntime();
    if (found === null) return { engine: null, rows, note: HINT };
    engine = `ONNX Runtime ${found.version}`;
    for (const phase of ['prefill', 'decode'] as const) {
      rows.push(...(await measurePhase(found.runtime, request, phase, budget)));
    }
    return { engine, rows, note: null };
  } catch (error) {
    // Somebody else's package: whatever is wrong with it is told, and the page is written without it.
    const [reason] = String((error as Error).message).split('\n');
    return { engine, rows, note: `ONNX Runtime was not compared further: ${reason}` };
  }
}

/** What its operators cannot do, or would do otherwise. */
function obstacleOf({ group, scores, dtype, causal }: PeerRequest): string | null {
  const { headDim, valueDim } = group.shape;
  if (dtype !== 'float32' && dtype !== 'float16')
    return `its binding for Node has no tensors of ${dtype}; --dtype float32 compares`;
  if (!causal) return 'the model is not causal';
  if (headDim !== valueDim || group.decodeShape.headDim !== headDim)
    return 'latent attention is none of its operators';
  if (group.window !== Infinity) return 'every layer has a window';
  if (scores.softcap !== undefined || scores.sinks !== undefined || scores.alibiSlopes !== undefined)
    return 'the model caps, biases or sinks its scores';
  return null;
}

async function measurePhase(
  runtime: Runtime,
  request: PeerRequest,
  phase: 'prefill' | 'decode',
  budget: typeof BUDGET,
): Promise<PeerRow[]> {
  const context = request.contexts[phase];
  const inputs = makeInputs(request, phase === 'decode' ? 1 : context, context);
  const systems: Peer[] = [prepareOurs(inputs, request, phase)];
  try {
    for (const theirs of prepareTheirs(runtime, inputs, request, phase)) {
      systems.push(await theirs);
    }
    for (const system of systems) {
      await system.run();
      checkSamples({ ...inputs, out: system.readOut() }, { ...request.scores, causal: true });
      system.rewind();
    }
    const turns = await timeInTurn(systems, budget);
    return turns.map(({ seconds, ratio }, i) => {
      return { phase, context, system: systems[i].name, milliseconds: 1000 * seconds, ratio };
    });
  } finally {
    for (const system of systems) await system.dispose();
  }
}
