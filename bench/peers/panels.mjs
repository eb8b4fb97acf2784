// What the plot shows of a report: the main workloads.
import { formatNumber } from '../../dist/cli/table.js';
import { formatRatio } from './tables.mjs';

/** Panels as drawPlot takes them. */
export function plotPanels({ comparisons }) {
  return comparisons
    .filter(({ isMain }) => isMain)
    .map(({ workload, rows }) => ({
      title:
        workload.phase === 'prefill'
          ? `Prefill of ${workload.context} tokens, ms`
          : `Decode step against ${workload.context} keys, ms`,
      bars: rows.map((row) => ({
        label: row.system,
        value: row.seconds,
        text: `${formatNumber(1000 * row.seconds)}${row.ratio === 1 ? '' : `  (${formatRatio(row.ratio)})`}`,
        kind: kindOf(row.system),
      })),
    }));
}

/** A bar without filling is no whole decode step: nothing is appended. */
function kindOf(system) {
  if (system.startsWith('node-sdpa')) return 'ours';
  return system.includes('full cache') ? 'bound' : 'peer';
}
