import { styleText } from 'node:util';
import type { BenchReport } from './bench-run.ts';
import { median } from './measure.ts';
import type { PeerReport } from './onnx/peers.ts';
import { formatNumber, formatShare, formatTable } from './table.ts';
import { CHUNK, formatHeads, type LayerGroup } from './workloads.ts';

/** Figures in rows; the first `numLabels` columns are words. */
export interface FigureTable {
  readonly title: string;
  readonly head: readonly string[];
  readonly rows: readonly (readonly string[])[];
  readonly numLabels: number;
}

/** The report as tables for people. */
export function formatReport(report: BenchReport, isTerminal: boolean): string {
  const title = (text: string): string => (isTerminal ? styleText('bold', text) : text);
  const lines = [title(`node-sdpa bench: ${report.name}`), ...formatHeader(report)];
  for (const { title: heading, head, rows, numLabels } of figureTables(report)) {
    lines.push('', title(heading), ...formatTable(head, rows, numLabels));
  }
  if (report.notes.length > 0) lines.push('', ...report.notes);
  return `${lines.join('\n')}\n`;
}

/** All that was measured. */
export function figureTables(report: BenchReport): FigureTable[] {
  const tables = [layerTable(report), totalsTable(report)];
  if (report.reference.length > 0) tables.push(comparisonTable(report));
  const peers = report.page?.peers;
  return peers === undefined || peers.rows.length === 0 ? tables : [...tables, peerTable(peers)];
}

function formatHeader({ layers, numLinearLayers, machine, rows, ...report }: BenchReport): string[] {
  const shapes = layers.map(describeGroup);
  if (numLinearLayers > 0) shapes.push(`${numLinearLayers} linear (no attention; not timed)`);
  const ceilings = [
    describeCeiling(
      'FMA',
      'GFLOP/s',
      rows.map((row) => row.fmaCeiling),
    ),
    describeCeiling(
      'products of bfloat16 tiles',
      'GFLOP/s',
      rows.map((row) => row.tileCeiling),
    ),
    describeCeiling(
      'read',
      'GB/s',
      rows.map((row) => row.readCeiling),
    ),
  ].filter((text) => text !== null);
  const threads = `${machine.threads} thread${machine.threads === 1 ? '' : 's'}`;
  const [, ...lines] = formatTable(
    ['', ''],
    [
      ['layers', shapes.join('; ')],
      ['backend', `${machine.backend}, ${machine.isa}, ${threads}, ${describeType(report)}; ${machine.cpu}`],
      [
        'ceilings',
        ceilings.length === 0
          ? 'not measured: they need the addon'
          : `${ceilings.join(', ')} (medians, measured between the runs below)`,
      ],
    ],
    2,
  );
  return lines;
}

/** 'bfloat16'; 'float32, precision high' where it is not the highest. */
export function describeType({ dtype, precision }: Pick<BenchReport, 'dtype' | 'precision'>): string {
  return dtype === 'float32' && precision !== 'highest' ? `${dtype}, precision ${precision}` : dtype;
}

function describeCeiling(name: string, unit: string, values: readonly (number | null)[]): string | null {
  const known = values.filter((value) => value !== null);
  return known.length === 0 ? null : `${name} ${formatNumber(median(known))} ${unit}`;
}

export function describeGroup({ count, name, shape, decodeShape }: LayerGroup): string {
  const decoded = decodeShape === shape ? '' : `, decode ${formatHeads(decodeShape)}`;
  return `${count} ${name} (${formatHeads(shape)}${decoded})`;
}

function layerTable({ rows, productUnit }: BenchReport): FigureTable {
  const share = productUnit === 'tile' ? 'of tiles' : 'of FMA';
  return {
    title: rows.some(({ phase }) => phase === 'chunked')
      ? `One layer; chunked: prefill by ${CHUNK} tokens`
      : 'One layer',
    head: ['layer', 'phase', 'context', 'ms', 'tokens/s', 'GFLOP/s', share, 'GB/s', 'of read'],
    rows: rows.map((row) => [
      row.layer,
      row.phase,
      String(row.context),
      formatNumber(row.milliseconds),
      formatNumber(row.tokensPerSecond),
      formatNumber(row.gflopsPerSecond),
      formatShare(row.tileShare ?? row.fmaShare),
      formatNumber(row.gigabytesPerSecond),
      formatShare(row.readShare),
    ]),
    numLabels: 2,
  };
}

function totalsTable({ layers, totals }: BenchReport): FigureTable {
  const numLayers = layers.reduce((sum, group) => sum + group.count, 0);
  return {
    title: `All ${numLayers} attention layers, one after the other; projections and MLPs are not counted`,
    head: ['phase', 'context', 'ms', 'tokens/s'],
    rows: totals.map(({ phase, context, milliseconds, tokensPerSecond }) => [
      phase,
      String(context),
      formatNumber(milliseconds),
      formatNumber(tokensPerSecond),
    ]),
    numLabels: 1,
  };
}

function comparisonTable({ reference }: BenchReport): FigureTable {
  return {
    title: 'Native against reference (TypeScript, float64, one thread), one layer',
    head: ['layer', 'phase', 'context', 'native ms', 'reference ms', 'ratio'],
    rows: reference.map((row) => [
      row.layer,
      row.phase,
      String(row.context),
      formatNumber(row.nativeMilliseconds),
      formatNumber(row.referenceMilliseconds),
      `${formatNumber(row.ratio)}x`,
    ]),
    numLabels: 2,
  };
}

function peerTable({ engine, rows }: PeerReport): FigureTable {
  return {
    title: `Against ${engine} from Node, one layer, in turn on cold data`,
    head: ['system', 'phase', 'context', 'ms', 'to ours'],
    rows: rows.map(({ system, phase, context, milliseconds, ratio }) => [
      system,
      phase,
      String(context),
      formatNumber(milliseconds),
      `${formatNumber(ratio)}x`,
    ]),
    numLabels: 2,
  };
}
