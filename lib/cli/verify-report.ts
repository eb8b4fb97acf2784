import { styleText } from 'node:util';
import type { Report } from '../compare-attention.ts';
import type { UlpBucket } from '../error-summary.ts';
import { formatNumber, formatTable } from './table.ts';
import type { Diagnosis } from './verify-diagnosis.ts';

/** One key of the row in which the largest error stands. */
export interface RowKey {
  readonly key: number;
  /** With everything but the masks. */
  readonly score: number;
  readonly weight: number;
}

/** The row of out in which the largest error stands. */
export interface WorstRow {
  /** [b, head, query, channel] of the largest error; of a packed batch [head, query, channel]. */
  readonly index: readonly number[];
  readonly got: number;
  readonly want: number;
  readonly error: number;
  /** Keys that the query sees, and the heaviest of them; null for a packed batch. */
  readonly visibleKeys: number | null;
  readonly kvLen: number;
  readonly heaviest: readonly RowKey[];
}

/** What `verify` found about a result in files; plain data. */
export interface VerifyReport {
  readonly pass: boolean;
  readonly report: Report;
  readonly histogram: readonly UlpBucket[];
  readonly worst: WorstRow | null;
  /** Rows of out, and those that hold an element outside the tolerance of single elements. */
  readonly rows: number;
  readonly wrongRows: number;
  readonly diagnosis: Diagnosis | null;
  readonly notes: readonly string[];
}

const BAR = 40;

/** The report for people. */
export function formatVerify(result: VerifyReport, isTerminal: boolean): string {
  const title = (text: string): string => (isTerminal ? styleText('bold', text) : text);
  const lines = [`${result.report}`];
  if (result.notes.length > 0) lines.push('', ...result.notes);
  lines.push('', title(`Distance in units of the last place (${result.report.dtype})`));
  lines.push(...formatHistogram(result.histogram));
  if (result.worst !== null) lines.push('', title('Where it is worst'), ...formatWorst(result.worst));
  if (!result.pass) lines.push('', title('Why'), ...formatDiagnosis(result));
  return `${lines.join('\n')}\n`;
}

function formatHistogram(all: readonly UlpBucket[]): string[] {
  const histogram = all.filter(({ count }) => count > 0);
  const total = histogram.reduce((sum, { count }) => sum + count, 0);
  const most = Math.max(...histogram.map(({ count }) => count));
  const label = ({ from, to }: UlpBucket): string =>
    from === Infinity ? 'not finite' : from === to ? String(from) : `${from} to ${to}`;
  const [, ...lines] = formatTable(
    ['', '', '', ''],
    histogram.map((bucket) => [
      label(bucket),
      String(bucket.count),
      `${formatNumber((100 * bucket.count) / total)}%`,
      '#'.repeat(Math.ceil((BAR * bucket.count) / most)),
    ]),
    0,
  );
  return lines.map((line) => line.replace(/( +)(#+)$/, '  $2'));
}

function formatWorst({ index, got, want, error, visibleKeys, kvLen, heaviest }: WorstRow): string[] {
  const names = index.length === 4 ? ['batch', 'head', 'query', 'channel'] : ['head', 'query', 'channel'];
  const off = Number.isFinite(error) ? ` (off by ${formatNumber(error)})` : '';
  const lines = [
    `${names.map((name, i) => `${name} ${index[i]}`).join(', ')}: ${got}, should be ${want}${off}`,
  ];
  if (visibleKeys === null) return lines;
  if (visibleKeys === 0) return [...lines, 'the query sees no key: its row must be 0'];
  lines.push(`the query sees ${visibleKeys} of ${kvLen} keys; the heaviest:`);
  const table = formatTable(
    ['key', 'score', 'weight'],
    heaviest.map(({ key, score, weight }) => [String(key), formatNumber(score), weight.toFixed(4)]),
    0,
  );
  return [...lines, ...table];
}

function formatDiagnosis({ diagnosis, rows, wrongRows }: VerifyReport): string[] {
  const extent = `${wrongRows} of ${rows} rows are outside the tolerance.`;
  if (diagnosis === null)
    return [extent, 'None of the usual mistakes, alone or in pairs, gives this output.'];
  const { mistakes, fits, before, after } = diagnosis;
  const verb = fits ? 'is exactly' : 'is near to';
  const distance = fits
    ? ''
    : ` (relative distance ${formatNumber(after)}, from the oracle ${formatNumber(before)}): something else is wrong too`;
  return [
    extent,
    ...mistakes.map(
      ({ text }, i) =>
        `${i === 0 ? `The output ${verb} attention` : '  and'} ${text}${i === mistakes.length - 1 ? `${distance}.` : ''}`,
    ),
    ...mistakes.map(({ remedy }) => `Remedy: ${remedy}.`),
  ];
}
