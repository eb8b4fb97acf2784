import { kvCurve } from '../../../../lib/cli/bench-page.ts';
import type { BenchReport, BenchRow, BenchTotal } from '../../../../lib/cli/bench-run.ts';
import type { Comparison } from '../../../../lib/cli/compare-backends.ts';
import type { PeerReport } from '../../../../lib/cli/onnx/peers.ts';
import {
  cachedBytes,
  groupLayers,
  type LayerGroup,
  type Phase,
  usefulFlops,
  type Workload,
} from '../../../../lib/cli/workloads.ts';
import { describeModel } from '../../../../lib/modules/describe-model.ts';
import { presetConfig } from '../../../../lib/modules/presets.ts';

const CONTEXTS = [128, 512, 2048, 8192];
const PHASES: readonly Phase[] = ['prefill', 'chunked', 'decode'];
/** GFLOP/s and GB/s of a machine that does not exist. */
const CEILINGS = { fma: 320, tile: 1800, read: 48 };
const PACE: Readonly<Record<Phase, number>> = { prefill: 0.82, chunked: 0.74, decode: 0.9 };

function rowOf(group: LayerGroup, phase: Phase, context: number): BenchRow {
  const isDecode = phase === 'decode';
  const shape = isDecode ? group.decodeShape : group.shape;
  const workload: Workload = { phase, shape, context, causal: true, window: group.window, dtype: 'bfloat16' };
  const [flops, bytes] = [usefulFlops(workload), cachedBytes(workload)];
  const share = PACE[phase] * (1 - 40 / (context + 50));
  const seconds = isDecode ? bytes / (CEILINGS.read * 1e9 * share) : flops / (CEILINGS.tile * 1e9 * share);
  return {
    layer: group.name,
    phase,
    context,
    milliseconds: 1000 * seconds,
    samples: 9,
    tokensPerSecond: (isDecode ? 1 : context) / seconds,
    flops,
    gflopsPerSecond: flops / seconds / 1e9,
    fmaCeiling: null,
    fmaShare: null,
    tileCeiling: isDecode ? null : CEILINGS.tile,
    tileShare: isDecode ? null : share,
    cachedBytes: isDecode ? bytes : null,
    gigabytesPerSecond: isDecode ? bytes / seconds / 1e9 : null,
    readCeiling: isDecode ? CEILINGS.read : null,
    readShare: isDecode ? share : null,
  };
}

function comparisonsOf(group: LayerGroup): Comparison[] {
  return (['prefill', 'decode'] as const).flatMap((phase) =>
    [64, 128, 256, 512].map((context) => {
      const native = rowOf(group, phase, context).milliseconds;
      const ratio = phase === 'decode' ? 60 : 400;
      const layer = group.name;
      return {
        layer,
        phase,
        context,
        nativeMilliseconds: native,
        referenceMilliseconds: ratio * native,
        ratio,
      };
    }),
  );
}

function peersOf(): PeerReport {
  const rows = (['prefill', 'decode'] as const).flatMap((phase) =>
    ['node-sdpa', 'GroupQueryAttention', 'Attention'].map((system, i) => {
      const ratio = [1, 16.4, 2.6][i];
      return { phase, context: 512, system, milliseconds: 1.52 * ratio, ratio };
    }),
  );
  return { engine: 'Example Runtime 1.0', rows, note: null };
}

/** What bench could have found on a machine with tiles: the same at every call. */
export function makeReport(changes: Partial<BenchReport> = {}, preset = 'gemma3-27b'): BenchReport {
  const model = describeModel(presetConfig(preset));
  const { groups, numLinear } = groupLayers(model);
  const rows = CONTEXTS.flatMap((context) =>
    groups.flatMap((group) => PHASES.map((phase) => rowOf(group, phase, context))),
  );
  const totals = CONTEXTS.flatMap((context) =>
    PHASES.map((phase): BenchTotal => {
      const milliseconds = groups
        .map((group) => group.count * rowOf(group, phase, context).milliseconds)
        .reduce((a, b) => a + b);
      const tokens = phase === 'decode' ? 1 : context;
      return { phase, context, milliseconds, tokensPerSecond: (1000 * tokens) / milliseconds };
    }),
  );
  const machine = { backend: 'native', isa: 'amx', isas: ['amx'], features: [], threads: 8 } as const;
  return {
    name: preset,
    modelType: model.modelType,
    dtype: 'bfloat16',
    precision: 'highest',
    productUnit: 'tile',
    machine: { ...machine, cpu: 'Example 9000', version: '0.0.0', reason: 'a fixture' },
    layers: groups,
    numLinearLayers: numLinear,
    rows,
    totals,
    reference: comparisonsOf(groups[groups.length - 1]),
    notes: ['a note of the run'],
    page: { kv: kvCurve(model, CONTEXTS), ceilings: CEILINGS, peers: peersOf() },
    ...changes,
  };
}
