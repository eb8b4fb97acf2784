import type { BenchReport, BenchTotal } from '../bench-run.ts';
import { CHUNK, type Phase } from '../workloads.ts';
import { type Axis, drawChart, type Point, type Series } from './chart.ts';
import { formatGrouped, formatTick, formatTokens } from './format.ts';
import { logScale } from './scale.ts';
import type { Figure, Section } from './section.ts';

/** Tones of what is not a layer of ours. */
const REFERENCE_TONE = 5;
const CHUNKED_TONE = 1;

/** Milliseconds and tokens/s of one phase over the context. */
export function ratesSection(report: BenchReport, phase: 'prefill' | 'decode'): Section {
  const isDecode = phase === 'decode';
  return {
    id: phase,
    title: isDecode ? 'Decode: one token after the other' : 'Prefill: the whole prompt',
    lead: isDecode
      ? 'A step computes one new token against a cache that holds so many, data cold. It reads every key and value once, so it waits for memory: a cache half as large takes half the time.'
      : `A prompt compares every token with every ${isCausal(report) ? 'earlier' : 'other'} one. Its time grows with the square of its length, and no faster memory helps: it waits for arithmetic.`,
    figures: [timeFigure(report, phase), tokensFigure(report, phase)],
  };
}

/** Only a causal model is prefilled in chunks, and decodes. */
export const isCausal = ({ totals }: BenchReport): boolean => totals.some(({ phase }) => phase === 'decode');

function contextAxis(points: readonly Point[]): Axis {
  return {
    label: 'context, tokens (k = 1024)',
    scale: logScale(
      points.map(({ x }) => x),
      2,
      7,
    ),
    format: formatTokens,
  };
}

function decimalAxis(label: string, points: readonly Point[]): Axis {
  return {
    label,
    scale: logScale(
      points.map(({ y }) => y),
      10,
      6,
    ),
    format: formatTick,
  };
}

const pointsOf = (series: readonly Series[]): Point[] => series.flatMap(({ points }) => points);

function timeFigure(report: BenchReport, phase: Phase): Figure {
  const series = timeSeries(report, phase);
  const points = pointsOf(series);
  const title = `Time of one layer, ${phase}`;
  const slope = phase === 'decode' ? 'in proportion to the context' : 'with its square';
  const ratio = report.reference.findLast((row) => row.phase === phase)?.ratio;
  const against =
    ratio === undefined
      ? ''
      : ` The reference is the TypeScript oracle on one thread, which takes ${formatGrouped(ratio)} times as long where both were measured last.`;
  return {
    title,
    drawing: drawChart({
      id: `${phase}-time`,
      title,
      description: describe(series, 'ms'),
      x: contextAxis(points),
      y: decimalAxis('milliseconds, logarithmic', points),
      series,
    }),
    text: `Lower is better. Both axes are logarithmic: a straight line means that time grows ${slope} or another power of the context, a line that levels off has a window.${against}`,
  };
}

function timeSeries(report: BenchReport, phase: Phase): Series[] {
  const native = report.layers.map((group, i): Series => {
    const rows = report.rows.filter((row) => row.phase === phase && row.layer === group.name);
    return {
      label: report.layers.length === 1 ? report.machine.backend : group.name,
      tone: layerTone(i),
      points: rows.map((row) => point(row.context, row.milliseconds, `${group.name} layer`, 'ms')),
    };
  });
  const rows = report.reference.filter((row) => row.phase === phase);
  const reference: Series = {
    label: 'reference',
    tone: REFERENCE_TONE,
    line: 'dashed',
    points: rows.map((row) => point(row.context, row.referenceMilliseconds, 'reference', 'ms')),
  };
  return rows.length === 0 ? native : [...native, reference];
}

/** 0, 2, 3, 4: tone 1 is that of prefill in chunks. */
function layerTone(i: number): number {
  return i === 0 ? 0 : 2 + ((i - 1) % 3);
}

function point(x: number, y: number, name: string, unit: string): Point {
  return { x, y, title: `${name}, ${x} tokens: ${formatGrouped(y)} ${unit}` };
}

function tokensFigure(report: BenchReport, phase: 'prefill' | 'decode'): Figure {
  const numLayers = report.layers.reduce((sum, group) => sum + group.count, 0);
  const series = tokenSeries(report, phase);
  const points = pointsOf(series);
  const title = `Tokens/s of all ${numLayers} layers, ${phase}`;
  const text =
    phase === 'decode'
      ? 'Higher is better. Attention alone would let the model write so many tokens a second; projections and MLPs come on top, and they do not depend on the context.'
      : `Higher is better.${isCausal(report) ? ` The prompt at once, or in chunks of ${CHUNK} tokens through a cache, as a server does that answers others in between.` : ''}`;
  return {
    title,
    drawing: drawChart({
      id: `${phase}-tokens`,
      title,
      description: describe(series, 'tokens/s'),
      x: contextAxis(points),
      y: decimalAxis('tokens/s, logarithmic', points),
      series,
    }),
    text,
  };
}

function tokenSeries(report: BenchReport, phase: 'prefill' | 'decode'): Series[] {
  const of = (rows: readonly BenchTotal[], name: string): Point[] =>
    rows.map((row) => point(row.context, row.tokensPerSecond, name, 'tokens/s'));
  const totals = (wanted: Phase) => report.totals.filter((row) => row.phase === wanted);
  const series: Series[] = [{ label: report.machine.backend, tone: 0, points: of(totals(phase), phase) }];
  const chunked = totals('chunked');
  if (phase === 'prefill' && chunked.length > 0) {
    series[0] = { ...series[0], label: 'at once' };
    series.push({ label: 'chunked', tone: CHUNKED_TONE, points: of(chunked, 'chunked') });
  }
  const reference = referenceTotals(report, phase);
  if (reference.length > 0)
    series.push({
      label: 'reference',
      tone: REFERENCE_TONE,
      line: 'dashed',
      points: of(reference, 'reference'),
    });
  return series;
}

/** Of models whose layers are all alike: nothing is measured of the others. */
function referenceTotals({ layers, reference }: BenchReport, phase: Phase): BenchTotal[] {
  if (layers.length !== 1) return [];
  return reference
    .filter((row) => row.phase === phase)
    .map(({ context, referenceMilliseconds }) => {
      const milliseconds = layers[0].count * referenceMilliseconds;
      const tokensPerSecond = (1000 * (phase === 'decode' ? 1 : context)) / milliseconds;
      return { phase, context, milliseconds, tokensPerSecond };
    });
}

/** The first and the last value of each line, in words. */
export function describe(series: readonly Series[], unit: string): string {
  return series
    .filter(({ points }) => points.length > 0)
    .map(({ label, points }) => {
      const [first, last] = [points[0], points[points.length - 1]];
      const from = `${formatGrouped(first.y)} ${unit} at ${first.x} tokens`;
      return first === last
        ? `${label}: ${from}.`
        : `${label}: ${from}, ${formatGrouped(last.y)} ${unit} at ${last.x}.`;
    })
    .join(' ');
}
