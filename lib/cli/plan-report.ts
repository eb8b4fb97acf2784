import { styleText } from 'node:util';
import type { PlanReport } from './plan-run.ts';
import type { LayerRates, PhaseRates } from './plan-times.ts';
import { formatNumber, formatShare, formatTable } from './table.ts';
import { formatHeads } from './workloads.ts';

/** The plan as tables for people. */
export function formatPlan(report: PlanReport, isTerminal: boolean): string {
  const title = (text: string): string => (isTerminal ? styleText('bold', text) : text);
  const lines = [title(`node-sdpa plan: ${report.name}`), ...formatModel(report)];
  const add = (heading: string, table: readonly string[]): void => {
    lines.push('', title(heading), ...table);
  };
  if (report.kv.length > 0) add('Keys and values of one sequence, all layers', formatKv(report));
  if (report.fits.length > 0) {
    const memory = formatBytes(report.memory as number);
    add(`What fits into ${memory}: the longest context, and sequences of N tokens`, formatFits(report));
  }
  add('Floating-point operations, all layers, and beside those of projections', formatFlops(report));
  if (report.times.length > 0) {
    add('Predicted times of attention, all layers, on this machine', formatTimes(report));
    add('Measured for that, one layer: ceilings, and the share of them reached', formatRates(report));
  }
  if (report.notes.length > 0) lines.push('', ...report.notes);
  return `${lines.join('\n')}\n`;
}

function formatModel({ model, layers, numLinearLayers, machine }: PlanReport): string[] {
  const shapes = layers.map(({ count, name, shape, decodeShape }) => {
    const decoded = decodeShape === shape ? '' : `, decode ${formatHeads(decodeShape)}`;
    return `${count} ${name} (${formatHeads(shape)}${decoded})`;
  });
  if (numLinearLayers > 0) shapes.push(`${numLinearLayers} linear`);
  const { numHeads, numKvHeads, groupSize } = model;
  const kind = groupSize === 1 ? 'multi-head' : numKvHeads === 1 ? 'multi-query' : 'grouped-query';
  const perToken = Object.entries(model.kvBytesPerToken).map(
    ([dtype, bytes]) => `${dtype} ${formatBytes(bytes)}`,
  );
  const [, ...lines] = formatTable(
    ['', ''],
    [
      ['layers', shapes.join('; ')],
      ['heads', `${numHeads} of queries on ${numKvHeads} of keys and values: ${kind}, ${groupSize} to 1`],
      ...(model.causal ? [['a token', perToken.join(', ')]] : []),
      ['longest', model.maxPosition === null ? 'not said' : `${model.maxPosition} tokens`],
      [
        'machine',
        `${machine.backend}, ${machine.isa}, ${machine.threads} thread${machine.threads === 1 ? '' : 's'}; ${machine.cpu}`,
      ],
    ],
    2,
  );
  return lines;
}

function formatKv({ kv }: PlanReport): string[] {
  return formatTable(
    ['dtype', 'context', 'full', 'sliding', 'linear', 'total', 'as plain multi-head'],
    kv.map((row) => [
      row.dtype,
      String(row.context),
      formatBytes(row.full),
      formatBytes(row.sliding),
      formatBytes(row.linear),
      formatBytes(row.total),
      `${formatBytes(row.withoutGroups)} (${formatNumber(row.withoutGroups / row.total)}x)`,
    ]),
  );
}

function formatFits({ fits, contexts }: PlanReport): string[] {
  return formatTable(
    ['dtype', 'longest context', ...contexts.map((context) => `of ${context}`)],
    fits.map(({ dtype, longestContext, sequences }) => [
      dtype,
      longestContext === null ? 'any' : String(longestContext),
      ...sequences.map(String),
    ]),
  );
}

function formatFlops({ flops, model }: PlanReport): string[] {
  const ofDecode = (text: string): string => (model.causal ? text : '-');
  return formatTable(
    ['context', 'prefill', 'sliding', 'projections', 'decode step', 'sliding', 'projections'],
    flops.map((row) => [
      String(row.context),
      formatFlopCount(row.prefill),
      formatShare(row.prefillSliding / row.prefill),
      `${formatNumber(row.prefill / row.prefillProjections)}x`,
      ofDecode(formatFlopCount(row.decode)),
      ofDecode(formatShare(row.decodeSliding / row.decode)),
      ofDecode(`${formatNumber(row.decode / row.decodeProjections)}x`),
    ]),
    0,
  );
}

function formatTimes({ times }: PlanReport): string[] {
  return formatTable(
    ['dtype', 'phase', 'context', 'time', 'tokens/s', 'in full layers'],
    times.map((row) => [
      row.dtype,
      row.phase,
      String(row.context),
      formatDuration(row.milliseconds),
      formatNumber(row.tokensPerSecond),
      formatShare(row.fullShare),
    ]),
    2,
  );
}

function formatRates({ rates }: PlanReport): string[] {
  return formatTable(
    ['dtype', 'layer', 'prefill', 'GFLOP/s', 'share', 'decode', 'GB/s', 'share', 'bound by'],
    rates.map((row) => [
      row.dtype,
      row.layer,
      contextOf(row.prefill),
      row.prefill.unit === null
        ? '-'
        : `${formatNumber((row.prefill.ceiling ?? Number.NaN) / 1e9)} ${row.prefill.unit}`,
      formatShare(row.prefill.share),
      row.decode === null ? '-' : contextOf(row.decode),
      formatNumber((row.decode?.ceiling ?? Number.NaN) / 1e9),
      formatShare(row.decode?.share ?? null),
      limitOf(row),
    ]),
    2,
  );
}

/** Where the ceiling was measured. */
const contextOf = ({ points }: PhaseRates): string => String(points[points.length - 1].context);

/** From this share of a plain read on, memory is what a decode step waits for. */
const MEMORY_BOUND = 0.6;

function limitOf({ decode }: LayerRates): string {
  if (decode?.share === null || decode === null) return '-';
  return decode.share >= MEMORY_BOUND ? 'memory' : 'compute';
}

/** 1536 as '1.50 KiB'. */
export function formatBytes(bytes: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let [value, unit] = [bytes, 0];
  for (; value >= 1024 && unit < units.length - 1; unit++) value /= 1024;
  return `${unit === 0 ? value : formatNumber(value)} ${units[unit]}`;
}

/** 90000 milliseconds as '1.50 min'. */
export function formatDuration(milliseconds: number): string {
  const units: readonly [string, number][] = [
    ['d', 86_400_000],
    ['h', 3_600_000],
    ['min', 60_000],
    ['s', 1000],
  ];
  const [unit, size] = units.find(([, each]) => milliseconds >= each) ?? ['ms', 1];
  return `${formatNumber(milliseconds / size)} ${unit}`;
}

/** 1.5e12 as '1.50 TFLOP'. */
export function formatFlopCount(flops: number): string {
  const units = ['FLOP', 'kFLOP', 'MFLOP', 'GFLOP', 'TFLOP', 'PFLOP', 'EFLOP'];
  let [value, unit] = [flops, 0];
  for (; value >= 1000 && unit < units.length - 1; unit++) value /= 1000;
  return `${formatNumber(value)} ${units[unit]}`;
}
