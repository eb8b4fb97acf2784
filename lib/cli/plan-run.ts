import { type BackendInfo, backendInfo } from '../backend-info.ts';
import { type CacheDType, kvCacheBytes, type ModelDescription } from '../modules/describe-model.ts';
import type { AttentionProblem } from '../problem.ts';
import { LayerMeter, ROUNDS } from './plan-meter.ts';
import { type LayerRates, predictSeconds } from './plan-times.ts';
import type { ProgressBar } from './progress-bar.ts';
import { groupLayers, type LayerGroup, type Phase, usefulFlops, type Workload } from './workloads.ts';

/** What `plan` was asked for. */
export interface PlanRequest {
  readonly name: string;
  readonly model: ModelDescription;
  readonly contexts: readonly number[];
  readonly dtypes: readonly CacheDType[];
  readonly precision: AttentionProblem['precision'];
  /** Bytes that there are for caches; null: the question was not asked. */
  readonly memory: number | null;
  /** Whether to measure this machine and predict times. */
  readonly times: boolean;
  readonly threads: number | null;
}

/** Bytes that one sequence keeps at a context: of layers that see all, of layers with a window, of linear ones. */
export interface KvRow {
  readonly dtype: CacheDType;
  readonly context: number;
  readonly bytesPerToken: number;
  readonly full: number;
  readonly sliding: number;
  /** Recurrent states of linear layers, float32 or what config.json says: the same at every context. */
  readonly linear: number;
  readonly total: number;
  /** What multi-head attention, with a KV head for each query head and no window, would take in its place. */
  readonly withoutGroups: number;
}

/** Floating-point operations of attention in all softmax layers, masked pairs left out: 2 for each multiply-add. */
export interface FlopsRow {
  readonly context: number;
  readonly prefill: number;
  readonly decode: number;
  /** The part of each that layers with a window do. */
  readonly prefillSliding: number;
  readonly decodeSliding: number;
  /** Of the projections to q, k, v and from out, for all tokens of a prefill and for the one of a decode step. */
  readonly prefillProjections: number;
  readonly decodeProjections: number;
}

/** A predicted time of all softmax layers, one after the other. */
export interface TimeRow {
  readonly dtype: CacheDType;
  readonly phase: Phase;
  readonly context: number;
  readonly milliseconds: number;
  readonly tokensPerSecond: number;
  /** The share of it that layers without a window take. */
  readonly fullShare: number;
}

/** What fits into the memory asked about. */
export interface FitRow {
  readonly dtype: CacheDType;
  /** Tokens of one sequence; null: any number, as every layer has a window or a state of fixed size. */
  readonly longestContext: number | null;
  /** Sequences of each context, in the order of the request. */
  readonly sequences: readonly number[];
}

/** What `plan` found; plain data. */
export interface PlanReport {
  readonly name: string;
  readonly model: ModelDescription;
  readonly layers: readonly LayerGroup[];
  readonly numLinearLayers: number;
  readonly precision: AttentionProblem['precision'];
  readonly machine: BackendInfo;
  readonly memory: number | null;
  readonly contexts: readonly number[];
  readonly kv: readonly KvRow[];
  readonly flops: readonly FlopsRow[];
  /** What was measured for the prediction; empty without. */
  readonly rates: readonly LayerRates[];
  readonly times: readonly TimeRow[];
  readonly fits: readonly FitRow[];
  readonly notes: readonly string[];
}

/** Works out what the model's attention costs, and measures this machine where times are asked for. */
export async function runPlan(request: PlanRequest, progress: ProgressBar): Promise<PlanReport> {
  const { model, contexts, dtypes, memory } = request;
  const { groups, numLinear } = groupLayers(model);
  const machine = backendInfo();
  const rates = request.times ? await measureRates(request, groups, progress) : [];
  const phases: Phase[] = model.causal ? ['prefill', 'decode'] : ['prefill'];
  const times = request.times
    ? dtypes.flatMap((dtype) =>
        phases.flatMap((phase) =>
          contexts.map((context) => timeRow(request, groups, rates, dtype, phase, context)),
        ),
      )
    : [];
  return {
    name: request.name,
    model,
    layers: groups,
    numLinearLayers: numLinear,
    precision: request.precision,
    machine,
    memory,
    contexts,
    kv: model.causal
      ? dtypes.flatMap((dtype) => contexts.map((context) => kvRow(model, dtype, context)))
      : [],
    flops: contexts.map((context) => flopsRow(request, groups, context)),
    rates,
    times: groups.length === 0 ? [] : times,
    fits:
      memory === null || !model.causal ? [] : dtypes.map((dtype) => fitRow(model, dtype, memory, contexts)),
    notes: notesOf(request, groups),
  };
}

function notesOf({ model }: PlanRequest, groups: readonly LayerGroup[]): string[] {
  const notes: string[] = [];
  if (!model.causal) notes.push('the model is not causal: it has no decoding, and keeps no cache');
  if (groups.length === 0) notes.push('the model has linear layers only: there is no attention to time');
  if (model.absorbed !== null)
    notes.push(
      'latent attention: sizes and decode are those with the up-projections absorbed; values are a part of the keys, and a KVCache, which keeps both, takes nearly twice as much',
    );
  if (model.causal && groups.some((group) => group.window !== Infinity))
    notes.push(
      'a KVCache with a window takes and reuses memory in whole pieces: 1.2 to 1.9 times what stands under sliding, for windows below 512 tokens a few MiB more',
    );
  if (model.layers.some((layer) => layer.kind === 'linear'))
    notes.push('linear layers count in the memory, not in the operations and times');
  if (model.layers.some((layer) => layer.kvShared))
    notes.push('layers that read the keys and values of an earlier one keep none of their own');
  return notes;
}

/** Bytes that one sequence of the model keeps at a context. */
export function kvRow(model: ModelDescription, dtype: CacheDType, context: number): KvRow {
  const { layers, absorbed } = model;
  const of = (kind: 'full' | 'sliding'): number =>
    kvCacheBytes({ absorbed, layers: layers.filter((layer) => layer.kind === kind) }, context, dtype);
  const plain = layers.map((layer) =>
    layer.kind === 'linear' ? layer : { ...layer, numKvHeads: layer.numHeads, window: undefined },
  );
  const [full, sliding, linear] = [of('full'), of('sliding'), model.linearStateBytes];
  return {
    dtype,
    context,
    bytesPerToken: model.kvBytesPerToken[dtype],
    full,
    sliding,
    linear,
    total: full + sliding + linear,
    withoutGroups: kvCacheBytes({ absorbed: null, layers: plain }, context, dtype) + linear,
  };
}

function workloadOf(
  { model, precision }: PlanRequest,
  group: LayerGroup,
  phase: Phase,
  context: number,
  dtype: CacheDType,
): Workload {
  const shape = phase === 'decode' ? group.decodeShape : group.shape;
  return { phase, shape, context, causal: model.causal, window: group.window, dtype, precision };
}

function flopsRow(request: PlanRequest, groups: readonly LayerGroup[], context: number): FlopsRow {
  const sum = (phase: Phase, chosen: readonly LayerGroup[]): number =>
    chosen.reduce(
      (total, group) =>
        total + group.count * usefulFlops(workloadOf(request, group, phase, context, 'float32')),
      0,
    );
  const sliding = groups.filter((group) => group.window !== Infinity);
  const projections = 2 * request.model.attentionParameters.total;
  return {
    context,
    prefill: sum('prefill', groups),
    decode: sum('decode', groups),
    prefillSliding: sum('prefill', sliding),
    decodeSliding: sum('decode', sliding),
    prefillProjections: context * projections,
    decodeProjections: projections,
  };
}

async function measureRates(
  request: PlanRequest,
  groups: readonly LayerGroup[],
  progress: ProgressBar,
): Promise<LayerRates[]> {
  const { contexts, dtypes } = request;
  const longest = contexts[contexts.length - 1];
  const meters = dtypes.flatMap((dtype) =>
    groups.map((group) => ({ dtype, group, meter: meterOf(request, group, dtype, longest) })),
  );
  for (let n = 0; n < ROUNDS * meters.length; n++) {
    const { dtype, group, meter } = meters[n % meters.length];
    progress.show(n, ROUNDS * meters.length, `measuring one ${group.name} layer, ${dtype}`);
    await meter.round();
  }
  return meters.map(({ meter }) => meter.rates);
}

function meterOf(request: PlanRequest, group: LayerGroup, dtype: CacheDType, longest: number): LayerMeter {
  const at = (phase: Phase, context: number): Workload => workloadOf(request, group, phase, context, dtype);
  return new LayerMeter(request.model, group, dtype, longest, at);
}

function timeRow(
  request: PlanRequest,
  groups: readonly LayerGroup[],
  rates: readonly LayerRates[],
  dtype: CacheDType,
  phase: Phase,
  context: number,
): TimeRow {
  let [total, full] = [0, 0];
  for (const group of groups) {
    const rate = rates.find(
      (each) => each.dtype === dtype && each.layer === group.name && each.shape === group.shape,
    ) as LayerRates;
    const seconds = group.count * predictSeconds(rate, workloadOf(request, group, phase, context, dtype));
    total += seconds;
    if (group.window === Infinity) full += seconds;
  }
  return {
    dtype,
    phase,
    context,
    milliseconds: 1000 * total,
    tokensPerSecond: (phase === 'decode' ? 1 : context) / total,
    fullShare: full / total,
  };
}

function fitRow(
  model: ModelDescription,
  dtype: CacheDType,
  memory: number,
  contexts: readonly number[],
): FitRow {
  const bytesAt = (context: number): number => kvCacheBytes(model, context, dtype) + model.linearStateBytes;
  return {
    dtype,
    longestContext: longestWithin(bytesAt, memory),
    sequences: contexts.map((context) => Math.floor(memory / bytesAt(context))),
  };
}

/** The largest context whose bytes, which grow with it, are within `memory`; null where they stop growing before. */
function longestWithin(bytesAt: (context: number) => number, memory: number): number | null {
  const beyond = 2 ** 40;
  if (bytesAt(beyond) <= memory) return null;
  let [low, high] = [0, beyond];
  while (high - low > 1) {
    const middle = Math.floor((low + high) / 2);
    if (bytesAt(middle) <= memory) low = middle;
    else high = middle;
  }
  return low;
}
