import { bytesPerElement } from '../../dtype.ts';
import type { CeilingRates } from '../bench-page.ts';
import type { BenchReport, BenchRow } from '../bench-run.ts';
import { formatShare } from '../table.ts';
import { inputDType, type LayerGroup, type Phase } from '../workloads.ts';
import { type Axis, drawChart, type Point, type Roof, type Series } from './chart.ts';
import { formatGrouped, formatTick, formatTokens } from './format.ts';
import { isCausal } from './rates.ts';
import { linearScale, logScale } from './scale.ts';
import type { Figure, Section } from './section.ts';

const TONES: Readonly<Record<Phase, number>> = { prefill: 0, chunked: 1, decode: 2 };

/** What limits each phase, and how near it comes. */
export function rooflineSection(report: BenchReport): Section {
  return {
    id: 'roofline',
    title: 'How near to what the machine can do',
    lead: `Work that does little with each byte waits for memory, work that does much with it for arithmetic. ${isCausal(report) ? 'Attention is both: decode on the slope, prefill below the flat roof.' : 'Attention over a whole prompt does much.'}`,
    figures: [rooflineFigure(report), ...sharesFigure(report)],
  };
}

/**
 * Operations for each byte that has to come from memory at least once: q, k and v are read and out is written once in
 * prefill; in decode the cache is read, of which only the window.
 */
export function intensity(row: BenchRow, group: LayerGroup, { dtype }: Pick<BenchReport, 'dtype'>): number {
  const isDecode = row.phase === 'decode';
  const { numHeads, numKvHeads, headDim, valueDim } = isDecode ? group.decodeShape : group.shape;
  const elementBytes = bytesPerElement(inputDType(dtype));
  const ofTokens = (tokens: number, heads: number): number =>
    tokens * heads * (headDim + valueDim) * elementBytes;
  const bytes = isDecode
    ? ofTokens(1, numHeads) + (row.cachedBytes as number)
    : ofTokens(row.context, numHeads) + ofTokens(row.context, numKvHeads);
  return row.flops / bytes;
}

function rooflineFigure(report: BenchReport): Figure {
  const series = (Object.keys(TONES) as Phase[])
    .map((phase) => phaseSeries(report, phase))
    .filter(({ points }) => points.length > 0);
  const points = series.flatMap((each) => each.points);
  const ceilings = report.page?.ceilings ?? null;
  const peaks = ceilings === null ? [] : [ceilings.fma, ...(ceilings.tile === null ? [] : [ceilings.tile])];
  const ridges = ceilings === null ? [] : peaks.map((peak) => peak / ceilings.read);
  const x = axis(
    'operations a byte, logarithmic',
    // Room for a slope as long as its name.
    [
      ...points.map((each) => each.x),
      ...ridges.map((ridge) => ridge / 4),
      ...ridges,
      Math.min(...points.map((each) => each.x)) / 2,
    ],
    7,
  );
  const y = axis(
    'GFLOP/s, logarithmic',
    [...points.map((each) => each.y), ...peaks.flatMap((peak) => [peak, 1.6 * peak])],
    6,
  );
  const title = 'Roofline of one layer';
  return {
    title,
    drawing: drawChart({
      id: 'roofline-chart',
      title,
      description: series
        .map(({ label, points: [first], points: all }) => {
          const last = all[all.length - 1];
          return `${label}: ${first.title}; ${last.title}.`;
        })
        .join(' '),
      x,
      y,
      series: series.map((each) => ({ ...each, label: '' })),
      roofs: ceilings === null ? [] : roofsOf(ceilings, x.scale.domain, y.scale.domain),
    }),
    legend: series.map(({ tone, label }) => ({ tone, name: label })),
    text: explain(ceilings, isCausal(report)),
  };
}

function explain(ceilings: CeilingRates | null, decodes: boolean): string {
  const decode = '; decode stays where the number of query heads to a key head, and the dtype, put it';
  const points = `Each point is a phase at a context. Prefill moves to the right as the prompt grows${decodes ? decode : ''}.`;
  if (ceilings === null) return `${points} The ceilings were not measured: that needs the native addon.`;
  return `${points} The slope is a plain read of memory, a flat line is arithmetic in registers, the best seen of each in this run; what is between a point and the roof above it could still be gained.${ceilings.tile === null ? '' : ' Tiles are of bfloat16: float32 passes the roof of FMA only where it is cut into several of them.'}`;
}

function axis(label: string, values: readonly number[], maxTicks: number): Axis {
  return { label, scale: logScale(values, 10, maxTicks), format: formatTick };
}

function phaseSeries({ rows, layers, dtype }: BenchReport, phase: Phase): Series {
  const points = rows
    .filter((row) => row.phase === phase)
    .map((row): Point => {
      const group = layers.find(({ name }) => name === row.layer) as LayerGroup;
      const title = `${row.layer} layer, ${phase}, ${row.context} tokens: ${formatGrouped(row.gflopsPerSecond)} GFLOP/s`;
      return { x: intensity(row, group, { dtype }), y: row.gflopsPerSecond, title };
    });
  return { label: phase, tone: TONES[phase], points, line: 'none' };
}

type Domain = readonly [number, number];

/** The roof of memory and FMA; that of tiles above it, where there are any. */
function roofsOf({ fma, tile, read }: CeilingRates, [left, right]: Domain, [bottom]: Domain): Roof[] {
  const begin = Math.max(left, bottom / read);
  const flat = (peak: number, name: string): Roof => ({
    label: `${name} ${formatGrouped(peak)} GFLOP/s`,
    path: [
      { x: Math.max(begin, peak / read), y: peak },
      { x: right, y: peak },
    ],
    labelAt: 0,
  });
  const slope: Roof = {
    label: `read ${formatGrouped(read)} GB/s`,
    path: [
      { x: begin, y: begin * read },
      { x: Math.max(fma, tile ?? 0) / read, y: Math.max(fma, tile ?? 0) },
    ],
    labelAt: 0,
  };
  return [slope, flat(fma, 'FMA'), ...(tile === null ? [] : [flat(tile, 'tiles')])];
}

/** Shares of a ceiling that was measured right before and after each run; none without ceilings. */
function sharesFigure(report: BenchReport): Figure[] {
  const { rows, layers, productUnit } = report;
  const series = layers.flatMap(({ name }) =>
    (['prefill', 'decode'] as const).map((phase): Series => {
      const points = rows
        .filter((row) => row.layer === name && row.phase === phase)
        .map((row) => ({ row, share: row.tileShare ?? row.fmaShare ?? row.readShare }))
        .filter(({ share }) => share !== null)
        .map(({ row, share }): Point => {
          const what = `${name} layer, ${phase}, ${row.context} tokens: ${formatShare(share)}`;
          return { x: row.context, y: share as number, title: what };
        });
      return { label: layers.length === 1 ? phase : `${phase}, ${name}`, tone: 0, points };
    }),
  );
  const drawn = series
    .filter(({ points }) => points.length > 0)
    .map((each, i) => ({ ...each, tone: [0, 2, 1, 3, 4, 5][i % 6] }));
  if (drawn.length === 0) return [];
  const points = drawn.flatMap((each) => each.points);
  const title = 'Share of the ceiling';
  const unit = productUnit === 'tile' ? 'bfloat16 tiles' : 'fused multiply-adds';
  return [
    {
      title,
      drawing: drawChart({
        id: 'shares',
        title,
        description: drawn
          .map(({ label, points: all }) => `${label}: ${all.map(({ y }) => formatShare(y)).join(', ')}.`)
          .join(' '),
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
          label: 'share of the ceiling',
          scale: linearScale([1, ...points.map(({ y }) => y)], 8),
          format: formatShare,
        },
        series: drawn.map((each) => ({ ...each, label: drawn.length > 2 ? '' : each.label })),
      }),
      legend: drawn.length > 2 ? drawn.map(({ tone, label }) => ({ tone, name: label })) : [],
      text: `Of prefill: of ${unit}.${isCausal(report) ? ' Of decode: of a plain read of as many bytes.' : ''} Each ceiling was measured right before and after the run beside it, as machines change their pace. Short contexts have a part of their time beside the arithmetic. Above 100% the machine was faster during the run than beside it.`,
    },
  ];
}
