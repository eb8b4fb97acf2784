// What was measured, as tables { title, head, rows, numLabels }: for the terminal and for docs/PEERS.md alike.
import { formatNumber, formatShare } from '../../dist/cli/table.js';
import { formatHeads } from '../../dist/cli/workloads.js';

const MIB = 2 ** 20;

/** One table for each phase and dtype. */
export function timeTables({ comparisons }) {
  const kinds = new Set(comparisons.map(({ workload }) => `${workload.phase} ${workload.dtype}`));
  return [...kinds].map((kind) => {
    const [phase, dtype] = kind.split(' ');
    const chosen = comparisons.filter(({ workload }) => workload.phase === phase && workload.dtype === dtype);
    return phase === 'prefill' ? prefillTable(dtype, chosen) : decodeTable(dtype, chosen);
  });
}

function prefillTable(dtype, comparisons) {
  return {
    title: `Prefill, causal, ${formatHeads(comparisons[0].workload.shape)}, ${dtype}`,
    head: ['tokens', 'threads', 'system', 'ms', 'to ours', 'GFLOP/s', 'back to back ms', '+-', 'error'],
    rows: rowsOf(comparisons, (row) => formatNumber(row.gflopsPerSecond)),
    numLabels: 3,
  };
}

function decodeTable(dtype, comparisons) {
  return {
    title: `Decode, one token, ${formatHeads(comparisons[0].workload.shape)}, ${dtype}`,
    head: ['keys', 'threads', 'system', 'ms', 'to ours', 'K+V GB/s', 'back to back ms', '+-', 'error'],
    rows: rowsOf(comparisons, (row) => formatNumber(row.gigabytesPerSecond)),
    numLabels: 3,
  };
}

function rowsOf(comparisons, formatRate) {
  return comparisons.flatMap(({ workload, rows }) =>
    rows.map((row) => [
      String(workload.context),
      String(workload.threads),
      row.system,
      formatNumber(1000 * row.seconds),
      formatRatio(row.ratio),
      formatRate(row),
      row.backToBack === null ? '-' : formatNumber(1000 * row.backToBack.seconds),
      row.backToBack === null ? '-' : formatShare(row.backToBack.marginOfError),
      row.error.toExponential(1),
    ]),
  );
}

/** How many times as long as ours. */
export function formatRatio(ratio) {
  return `${ratio.toFixed(ratio < 10 ? 2 : 1)}x`;
}

/** The longest prompt and cache again, in pages that a process gets by default; null where that was not measured. */
export function defaultPagesTable({ defaultPages }) {
  if (defaultPages.length === 0) return null;
  return {
    title: 'In the pages that Node gets by default, float32',
    head: ['phase', 'length', 'threads', 'system', 'ms', 'to ours'],
    rows: defaultPages.flatMap(({ workload, rows }) =>
      rows.map((row) => [
        workload.phase,
        String(workload.context),
        String(workload.threads),
        row.system,
        formatNumber(1000 * row.seconds),
        formatRatio(row.ratio),
      ]),
    ),
    numLabels: 4,
  };
}

/** Bytes copied, growth of memory, waits of the event loop; null where they were not measured. */
export function sideEffectsTable({ sideEffects }) {
  if (sideEffects.length === 0) return null;
  return {
    title: 'What a run does beside computing, float32',
    head: [
      'phase',
      'length',
      'system',
      'MiB copied by operator',
      'MiB copied by binding',
      'MiB of RSS growth',
      'longest wait ms',
    ],
    rows: sideEffects.map((effect) => [
      effect.phase,
      String(effect.context),
      effect.system,
      formatMiB(effect.copiedBytes?.operator),
      formatMiB(effect.copiedBytes?.binding),
      formatMiB(effect.growthMiB === null ? undefined : effect.growthMiB * MIB),
      effect.longestWaitMs.toFixed(1),
    ]),
    numLabels: 3,
  };
}

function formatMiB(bytes) {
  return bytes === undefined ? '-' : (bytes / MIB).toFixed(0);
}

/** The routes that the rows of the main workloads were chosen from, and any that this ONNX Runtime cannot go. */
export function routesTable({ comparisons }) {
  const tried = comparisons.flatMap(({ workload, isMain, tried }) =>
    tried
      .filter(({ failure }) => isMain || failure !== undefined)
      .map((route) => [
        workload.phase,
        String(workload.context),
        workload.dtype,
        String(workload.threads),
        ...describeRoute(route),
      ]),
  );
  return {
    title: 'Routes tried',
    head: ['phase', 'length', 'dtype', 'threads', 'operator', 'route', 'idle threads', 'ms'],
    rows: tried,
    numLabels: 7,
  };
}

function describeRoute({ family, route, spins, seconds, failure }) {
  const idle = typeof spins === 'boolean' ? (spins ? 'spin' : 'sleep') : '-';
  return [family, route, idle, failure === undefined ? formatNumber(1000 * seconds) : failure];
}
