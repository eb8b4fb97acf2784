import type { BenchReport } from '../bench-run.ts';
import { formatNumber } from '../table.ts';
import { type DotRow, drawDotPlot } from './dot-plot.ts';
import { formatTick } from './format.ts';
import { logScale } from './scale.ts';
import type { Figure, Section } from './section.ts';

/** The native kernels against whatever else computes the same here. */
export function othersSection(report: BenchReport): Section {
  const figures = (['prefill', 'decode'] as const).flatMap((phase) => phaseFigure(report, phase));
  return {
    id: 'others',
    title: 'Against others on this machine',
    lead:
      figures.length === 0
        ? 'There is nothing to compare with: what ran is the reference itself.'
        : 'The same layer of attention, one process, results held against the oracle first. Further left is faster; the axis is logarithmic, so equal distances are equal factors.',
    figures,
    end: report.page?.peers.note ?? '',
  };
}

function phaseFigure({ reference, machine, page }: BenchReport, phase: 'prefill' | 'decode'): Figure[] {
  const compared = reference.findLast((row) => row.phase === phase);
  if (compared === undefined) return [];
  const [ours, ...others] = page?.peers.rows.filter((row) => row.phase === phase) ?? [];
  // Beside others ours is what ran in turn with them.
  const native = ours?.milliseconds ?? compared.nativeMilliseconds;
  const rows: DotRow[] = [
    row(`node-sdpa, ${machine.isa}`, native, null, 0),
    ...others.map(({ system, milliseconds, ratio }, i) => row(system, milliseconds, ratio, 1 + (i % 4))),
    row('reference, TypeScript', compared.referenceMilliseconds, compared.referenceMilliseconds / native, 5),
  ];
  const title =
    phase === 'decode'
      ? `A decode step against ${compared.context} tokens`
      : `A prompt of ${compared.context} tokens`;
  return [
    {
      title,
      drawing: drawDotPlot({
        id: `others-${phase}`,
        title: `${title}, milliseconds of one layer`,
        description: `${rows.map(({ name, text }) => `${name}: ${text}`).join('; ')}.`,
        unit: 'milliseconds of one layer, logarithmic',
        scale: logScale(
          rows.map(({ value }) => value),
          10,
          6,
        ),
        format: formatTick,
        rows,
      }),
      text: `${others.length === 0 ? '' : explainPeers(page?.peers.engine ?? '', phase)}The reference computes in float64 on one thread and is there to be right: it is what every result here was held against.`,
    },
  ];
}

function explainPeers(engine: string, phase: 'prefill' | 'decode'): string {
  const copies =
    phase === 'decode'
      ? ' They take the past and give the present as a new tensor, so each step copies the whole cache.'
      : '';
  return `GroupQueryAttention and Attention are operators of ${engine}, as a caller in Node sees them: in turn with ours, data cold, as many threads.${copies} `;
}

function row(name: string, milliseconds: number, ratio: number | null, tone: number): DotRow {
  const text = `${formatNumber(milliseconds)} ms${ratio === null ? '' : ` (${formatNumber(ratio)}x)`}`;
  return { name, value: milliseconds, text, tone };
}
