import type { BenchReport } from '../bench-run.ts';
import { formatBytes } from '../plan-report.ts';
import type { KvRow } from '../plan-run.ts';
import { drawChart, type Point, type Series } from './chart.ts';
import { formatByteTick, formatTokens } from './format.ts';
import { logScale } from './scale.ts';
import type { Figure, Section } from './section.ts';

/** Bytes of keys and values over the context. */
export function memorySection(report: BenchReport): Section {
  const kv = report.page?.kv ?? [];
  return {
    id: 'memory',
    title: 'Memory of keys and values',
    lead:
      kv.length === 0
        ? 'The model is not causal: it keeps no cache.'
        : 'What a cache of one sequence takes in all layers, worked out of the model. A conversation keeps it as long as it lasts, and a decode step reads all of it.',
    figures: kv.length === 0 ? [] : [dtypeFigure(kv), partsFigure(kv, report)],
  };
}

type Part = (row: KvRow) => number;

function curve(rows: readonly KvRow[], label: string, tone: number, part: Part, name = label): Series {
  const points = rows
    .map((row): Point => {
      const title = `${name}, ${row.context} tokens: ${formatBytes(part(row))}`;
      return { x: row.context, y: part(row), title };
    })
    .filter(({ y }) => y > 0);
  return { label, tone, points };
}

const total: Part = (row) => row.total;

function dtypeFigure(kv: readonly KvRow[]): Figure {
  const of = (dtype: string) => kv.filter((row) => row.dtype === dtype);
  const title = 'By dtype';
  const series = [
    curve(of('float32'), 'float32', 4, total),
    curve(of('float16'), '16 bits', 0, total, 'float16 or bfloat16'),
    curve(of('int8'), 'int8', 2, total),
  ];
  return {
    title,
    drawing: drawBytes('memory-dtype', title, series),
    text: 'float16 and bfloat16 take half of float32, int8 about a quarter: it has a scale beside each row. Both axes are logarithmic, so equal distances are equal factors.',
  };
}

function partsFigure(kv: readonly KvRow[], { dtype, layers, numLinearLayers }: BenchReport): Figure {
  const rows = kv.filter((row) => row.dtype === dtype);
  const hasWindows = layers.some(({ window }) => window !== Infinity && window !== null);
  const title = `By kind of layer, ${dtype}`;
  const parts = [
    curve(rows, 'full', 0, (row) => row.full),
    ...(hasWindows ? [curve(rows, 'sliding', 2, (row) => row.sliding)] : []),
    ...(numLinearLayers > 0 ? [curve(rows, 'linear', 3, (row) => row.linear)] : []),
  ].filter(({ points }) => points.length > 0);
  const plain: Series = {
    ...curve(rows, 'multi-head', 5, (row) => row.withoutGroups, 'multi-head, no window'),
    line: 'dashed',
  };
  const last = rows[rows.length - 1];
  const factor = (last.withoutGroups / last.total).toPrecision(2);
  const flat = hasWindows || numLinearLayers > 0 ? ' A line that levels off is of layers that forget.' : '';
  return {
    title,
    drawing: drawBytes('memory-parts', title, [...parts, plain]),
    text: `Dashed: multi-head attention in its place, with a key and value head for each query head and no window, would take ${factor} times as much at ${formatTokens(last.context)} tokens: ${formatBytes(last.withoutGroups)} and not ${formatBytes(last.total)}.${flat}`,
  };
}

function drawBytes(id: string, title: string, series: readonly Series[]) {
  const points = series.flatMap((each) => each.points);
  const at = (each: Series): string => each.points[each.points.length - 1].title;
  return drawChart({
    id,
    title: `Memory of keys and values: ${title.toLowerCase()}`,
    description: `At the longest context: ${series.map(at).join('; ')}.`,
    x: {
      label: 'context, tokens (k = 1024)',
      scale: logScale(
        points.map(({ x }) => x),
        2,
        7,
      ),
      format: formatTokens,
    },
    y: {
      label: 'bytes, logarithmic',
      scale: logScale(
        points.map(({ y }) => y),
        2,
        7,
      ),
      format: formatByteTick,
    },
    series,
  });
}
