import { freemem } from 'node:os';
import { type BackendInfo, backendInfo } from '../backend-info.ts';
import { bytesPerElement, type DType } from '../dtype.ts';
import type { ModelDescription } from '../modules/describe-model.ts';
import { loadAddon } from '../native/loader.ts';
import type { AttentionProblem } from '../problem.ts';
import { type BenchPage, type CeilingRates, kvCurve } from './bench-page.ts';
import { Ceilings, coldBytes, type ProductUnit } from './ceilings.ts';
import { UsageError } from './command.ts';
import { type Comparison, compareWithReference } from './compare-backends.ts';
import { type Budget, measure } from './measure.ts';
import { scoreOptions } from './model-scores.ts';
import { measurePeers, type PeerReport } from './onnx/peers.ts';
import { type PrepareOptions, prepare } from './prepare.ts';
import type { ProgressBar } from './progress-bar.ts';
import {
  cachedBytes,
  groupLayers,
  inputDType,
  type LayerGroup,
  type Phase,
  tokensOf,
  usefulFlops,
  type Workload,
} from './workloads.ts';

/** What `bench` was asked for. */
export interface BenchRequest {
  readonly name: string;
  readonly model: ModelDescription;
  readonly contexts: readonly number[];
  /** Whether prefill may be left out where it would take long: the user has not named the contexts. */
  readonly leaveOutSlow: boolean;
  readonly dtype: DType;
  readonly precision: AttentionProblem['precision'];
  /** null: as many as there are. */
  readonly threads: number | null;
  /** Whether a page is to be made of it, which shows more than tables do. */
  readonly forPage: boolean;
}

/** One layer in one phase. Rates are per second; shares are medians of ratios to a ceiling measured beside each run. */
export interface BenchRow {
  readonly layer: string;
  readonly phase: Phase;
  readonly context: number;
  readonly milliseconds: number;
  readonly samples: number;
  readonly tokensPerSecond: number;
  readonly flops: number;
  readonly gflopsPerSecond: number;
  /** Of prefill: the FMA ceiling in GFLOP/s, and the share reached; null where the ceiling is that of tiles. */
  readonly fmaCeiling: number | null;
  readonly fmaShare: number | null;
  /** Of prefill in bfloat16 products on an ISA with tiles: their ceiling in GFLOP/s, and the share reached. */
  readonly tileCeiling: number | null;
  readonly tileShare: number | null;
  /** Of decode: bytes of k and v read a step, GB/s, the ceiling of a plain read of as many bytes, the share reached. */
  readonly cachedBytes: number | null;
  readonly gigabytesPerSecond: number | null;
  readonly readCeiling: number | null;
  readonly readShare: number | null;
}

/** All softmax layers of the model together: the sum of their rows. */
export interface BenchTotal {
  readonly phase: Phase;
  readonly context: number;
  readonly milliseconds: number;
  readonly tokensPerSecond: number;
}

/** What `bench` found; plain data. */
export interface BenchReport {
  readonly name: string;
  readonly modelType: string;
  readonly dtype: DType;
  readonly precision: AttentionProblem['precision'];
  /** What the share of prefill speaks of; null where no ceiling was measured. */
  readonly productUnit: ProductUnit | null;
  readonly machine: BackendInfo;
  readonly layers: readonly LayerGroup[];
  readonly numLinearLayers: number;
  readonly rows: readonly BenchRow[];
  readonly totals: readonly BenchTotal[];
  readonly reference: readonly Comparison[];
  /** What was left out, and why. */
  readonly notes: readonly string[];
  /** What `--html` shows beside all that; null without it. */
  readonly page: BenchPage | null;
}

const BUDGET: Budget = { seconds: 1, minSamples: 3 };
/** The best of so many is what the machine can do, whoever else works on it. */
const NUM_PROBES = 10;
const PROBE_SECONDS = 0.02;
/** A run of more operations, a tenth of a second on a fast machine, is not to hold up an interrupt. */
const LONG_FLOPS = 2e10;
/** Prefill of one layer of each kind that takes longer is left out of a run that did not ask for the context. */
const MAX_PREFILL_SECONDS = 5;

/** Runs every phase at every context on one layer of each kind. */
export async function runBench(request: BenchRequest, progress: ProgressBar): Promise<BenchReport> {
  const { model, contexts, dtype, precision } = request;
  const machine = backendInfo();
  const { groups, numLinear } = groupLayers(model);
  if (groups.length === 0)
    throw new UsageError(`${request.name} has linear layers only: there is no attention to time`);
  const phases: Phase[] = model.causal ? ['prefill', 'chunked', 'decode'] : ['prefill'];
  const notes = model.causal
    ? []
    : ['the model is not causal: there is no decoding, and no prefill in chunks'];
  if (dtype !== 'float32' && precision !== 'highest')
    notes.push(`precision ${precision} is of float32 only: ${dtype} has its own`);
  checkMemory(groups, contexts, dtype);

  const bench = new Bench(request, machine);
  const total = contexts.length * phases.length * groups.length + 1;
  for (const context of contexts) {
    const seconds = bench.predictPrefill(groups, context);
    const isSlow = request.leaveOutSlow && seconds > MAX_PREFILL_SECONDS;
    if (isSlow)
      notes.push(
        `prefill of ${context} tokens left out: it would take about ${seconds.toFixed(0)} s; ask for it with --context`,
      );
    for (const group of groups) {
      for (const phase of phases) {
        if (isSlow && phase !== 'decode') continue;
        progress.show(bench.rows.length, total, `${group.name} layer, ${phase}, ${context} tokens`);
        await bench.run(group, phase, context);
      }
    }
  }
  progress.show(total - 1, total, 'native against reference');
  const main = groups.find((group) => group.window === Infinity) ?? groups[0];
  const reference =
    machine.backend === 'native'
      ? await compareWithReference(
          main,
          scoreOptions(model, main.shape.numHeads),
          { dtype, precision, causal: model.causal },
          request.forPage,
        )
      : [];
  return {
    name: request.name,
    modelType: model.modelType,
    dtype,
    precision,
    productUnit: bench.productUnit,
    machine,
    layers: groups,
    numLinearLayers: numLinear,
    rows: bench.rows,
    totals: sumRows(bench.rows, groups),
    reference,
    notes,
    page: request.forPage
      ? {
          kv: kvCurve(model, contexts),
          ceilings: bench.bestCeilings(),
          peers: await comparePeers(request, main, machine, reference),
        }
      : null,
  };
}

/** At the contexts at which the reference was timed last, so that all are on one axis. */
function comparePeers(
  { model, dtype }: BenchRequest,
  group: LayerGroup,
  { backend, threads }: BackendInfo,
  reference: readonly Comparison[],
): Promise<PeerReport> {
  if (backend !== 'native')
    return Promise.resolve({
      engine: null,
      rows: [],
      note: 'ONNX Runtime was not compared: the addon is not in use.',
    });
  const last = (phase: Phase): number => reference.findLast((row) => row.phase === phase)?.context ?? 0;
  return measurePeers({
    group,
    scores: scoreOptions(model, group.shape.numHeads),
    dtype,
    causal: model.causal,
    threads,
    contexts: { prefill: last('prefill'), decode: last('decode') },
  });
}

class Bench {
  readonly rows: BenchRow[] = [];
  readonly productUnit: ProductUnit | null;
  readonly #request: BenchRequest;
  readonly #ceilings: Ceilings | null;
  readonly #decodeRows = new Map<string, BenchRow>();

  constructor(request: BenchRequest, machine: BackendInfo) {
    const addon = loadAddon();
    this.#request = request;
    this.#ceilings =
      machine.backend === 'native' && !(addon instanceof Error) ? new Ceilings(addon, machine.threads) : null;
    this.productUnit = this.#ceilings?.unitOf(request) ?? null;
  }

  /** Seconds that prefilling one layer of each kind should take, by the last prefill; 0 before the first. */
  predictPrefill(groups: readonly LayerGroup[], context: number): number {
    const last = this.rows.findLast((row) => row.phase === 'prefill');
    if (last === undefined) return 0;
    const flops = groups.map((group) => usefulFlops(this.#workload(group, 'prefill', context)));
    return flops.reduce((a, b) => a + b) / (1e9 * last.gflopsPerSecond);
  }

  async run(group: LayerGroup, phase: Phase, context: number): Promise<void> {
    // A window that is full already reads the same number of keys at every context.
    const key = `${group.name} ${Math.min(context, group.window)}`;
    const known = phase === 'decode' ? this.#decodeRows.get(key) : undefined;
    const row = known === undefined ? await this.#measure(group, phase, context) : { ...known, context };
    if (phase === 'decode') this.#decodeRows.set(key, row);
    this.rows.push(row);
  }

  /** The best that this run has seen of each ceiling; null without the addon. */
  bestCeilings(): CeilingRates | null {
    const ceilings = this.#ceilings;
    if (ceilings === null) return null;
    const seen = (name: 'fmaCeiling' | 'tileCeiling' | 'readCeiling'): number =>
      Math.max(...this.rows.map((row) => row[name] ?? 0));
    const probe = (measureOnce: () => number): number =>
      Math.max(...Array.from({ length: NUM_PROBES }, measureOnce)) / 1e9;
    return {
      fma: Math.max(
        seen('fmaCeiling'),
        probe(() => ceilings.fma(PROBE_SECONDS)),
      ),
      tile: ceilings.hasTiles
        ? Math.max(
            seen('tileCeiling'),
            probe(() => ceilings.tile(PROBE_SECONDS)),
          )
        : null,
      read: Math.max(
        seen('readCeiling'),
        probe(() => ceilings.read(coldBytes())),
      ),
    };
  }

  #workload(group: LayerGroup, phase: Phase, context: number): Workload {
    const { model, dtype, precision } = this.#request;
    const shape = phase === 'decode' ? group.decodeShape : group.shape;
    return { phase, shape, context, causal: model.causal, window: group.window, dtype, precision };
  }

  #ceilingOf(unit: ProductUnit | 'read' | null, bytes: number): ((seconds: number) => number) | null {
    const ceilings = this.#ceilings;
    if (ceilings === null || unit === null) return null;
    return unit === 'read' ? () => ceilings.read(bytes) : (seconds) => ceilings.products(unit, seconds);
  }

  async #measure(group: LayerGroup, phase: Phase, context: number): Promise<BenchRow> {
    const workload = this.#workload(group, phase, context);
    const isDecode = phase === 'decode';
    const flops = usefulFlops(workload);
    const bytes = cachedBytes(workload);
    const options: PrepareOptions = {
      ...scoreOptions(this.#request.model, group.shape.numHeads),
      coldBytes: isDecode ? coldBytes() : 0,
      yields: this.#ceilings === null || flops > LONG_FLOPS,
    };
    const prepared = prepare(workload, options);
    try {
      await prepared.check();
      const unit = isDecode ? 'read' : this.productUnit;
      const { seconds, share, ceiling, samples } = await measure(
        prepared,
        isDecode ? bytes : flops,
        this.#ceilingOf(unit, bytes),
        BUDGET,
      );
      const reached = (other: ProductUnit | 'read') =>
        other === unit && ceiling !== null
          ? { ceiling: ceiling / 1e9, share }
          : { ceiling: null, share: null };
      const [fma, tile, read] = [reached('FMA'), reached('tile'), reached('read')];
      return {
        layer: group.name,
        phase,
        context,
        milliseconds: 1000 * seconds,
        samples,
        tokensPerSecond: tokensOf(workload) / seconds,
        flops,
        gflopsPerSecond: flops / seconds / 1e9,
        fmaCeiling: fma.ceiling,
        fmaShare: fma.share,
        tileCeiling: tile.ceiling,
        tileShare: tile.share,
        cachedBytes: isDecode ? bytes : null,
        gigabytesPerSecond: isDecode ? bytes / seconds / 1e9 : null,
        readCeiling: read.ceiling,
        readShare: read.share,
      };
    } finally {
      prepared.dispose();
    }
  }
}

function sumRows(rows: readonly BenchRow[], groups: readonly LayerGroup[]): BenchTotal[] {
  const counts = new Map(groups.map((group) => [group.name, group.count]));
  const totals = new Map<string, BenchTotal>();
  for (const { layer, phase, context, milliseconds } of rows) {
    const key = `${phase} ${context}`;
    const sum = (totals.get(key)?.milliseconds ?? 0) + (counts.get(layer) as number) * milliseconds;
    const tokens = phase === 'decode' ? 1 : context;
    totals.set(key, { phase, context, milliseconds: sum, tokensPerSecond: (1000 * tokens) / sum });
  }
  return [...totals.values()];
}

/** Refuses contexts whose inputs do not fit before anything is allocated. */
function checkMemory(groups: readonly LayerGroup[], contexts: readonly number[], dtype: DType): void {
  const context = Math.max(...contexts);
  const elements = groups.map(({ shape: { numHeads, numKvHeads, headDim, valueDim } }) => {
    return (numHeads + 2 * numKvHeads) * (headDim + valueDim);
  });
  const bytes = context * Math.max(...elements) * bytesPerElement(inputDType(dtype));
  if (bytes < 0.8 * freemem()) return;
  const gib = (x: number): string => `${(x / 2 ** 30).toFixed(1)} GiB`;
  throw new UsageError(
    `--context ${context} needs ${gib(bytes)} for q, k, v, out and the cache of one layer, and ${gib(freemem())} are free; ask for less`,
  );
}
