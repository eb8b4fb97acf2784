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
        : 'The same layer, the same random numbers, one process. Further left is faster; the axis is logarithmic, so equal distances are equal factors.',
    figures,
  };
}

function phaseFigure({ reference, machine }: BenchReport, phase: 'prefill' | 'decode'): Figure[] {
  const compared = reference.findLast((row) => row.phase === phase);
  if (compared === undefined) return [];
  const rows: DotRow[] = [
    row(`node-sdpa, ${machine.isa}`, compared.nativeMilliseconds, compared.nativeMilliseconds, 0),
    row('reference, TypeScript', compared.referenceMilliseconds, compared.nativeMilliseconds, 5),
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
      text: 'The reference computes in float64 on one thread and is there to be right: it is what every result here was held against.',
    },
  ];
}

function row(name: string, milliseconds: number, ours: number, tone: number): DotRow {
  const ratio = milliseconds === ours ? '' : ` (${formatNumber(milliseconds / ours)}x)`;
  return { name, value: milliseconds, text: `${formatNumber(milliseconds)} ms${ratio}`, tone };
}
