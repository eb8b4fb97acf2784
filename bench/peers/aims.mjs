// What this project wants to reach against GroupQueryAttention, as times its speed.
import { verdict } from '../machine.mjs';
import { formatRatio } from './tables.mjs';

const hasAmx = ({ features }) => features.some((name) => name.startsWith('amx'));

const AIMS = [
  { phase: 'prefill', context: 2048, times: (machine) => (hasAmx(machine) ? 3.5 : 2) },
  { phase: 'decode', context: 8192, times: () => 15 },
];

/** { title, head, rows, numLabels }, the verdict last; null where nothing of it was measured. */
export function aimsTable({ machine, comparisons, defaultPages }) {
  const ratiosOf = (measured, { phase, context }) =>
    measured
      .filter(({ workload, isMain }) => isMain && workload.phase === phase && workload.context === context)
      .flatMap(({ rows }) => rows.filter(({ system }) => system === 'GroupQueryAttention'))
      .map(({ ratio }) => ratio);
  const rows = AIMS.flatMap((aim) =>
    [
      ['huge', comparisons],
      ['default', defaultPages],
    ].flatMap(([pages, measured]) =>
      ratiosOf(measured, aim).map((ratio) => [
        `${aim.phase} ${aim.context}`,
        pages,
        formatRatio(ratio),
        verdict(ratio, aim.times(machine), (x) => `${x}x`),
      ]),
    ),
  );
  if (rows.length === 0) return null;
  return {
    title: 'Faster than GroupQueryAttention, float32, all threads',
    head: ['', 'pages', '', ''],
    rows,
    numLabels: 2,
  };
}
