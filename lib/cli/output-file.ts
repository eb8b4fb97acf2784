import {
  accessSync,
  constants,
  existsSync,
  realpathSync,
  renameSync,
  rmSync,
  type Stats,
  statSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname, join, resolve } from 'node:path';
import { type Streams, UsageError } from './command.ts';

/** Tells before the long run what would fail after it. */
export function checkWritable(option: string, file: string): void {
  if (file === '-') return;
  try {
    const stats = statSync(file, { throwIfNoEntry: false });
    if (stats?.isDirectory()) throw new Error('it is a directory');
    if (stats !== undefined) accessSync(file, constants.W_OK);
    if (stats === undefined || stats.isFile()) accessSync(dirname(resolve(file)), constants.W_OK);
  } catch (error) {
    throw new UsageError(`--${option} ${file} cannot be written: ${(error as Error).message}`);
  }
}

/** Whether two names, '-' among them, lead to one place. */
export function isSameFile(a: string, b: string): boolean {
  const place = (file: string): string => {
    if (file === '-') return file;
    return existsSync(file) ? realpathSync(file) : resolve(file);
  };
  return place(a) === place(b);
}

/** Where a report goes beside the tables; '-': to stdout, in their place. */
export interface ReportFiles {
  readonly json: string | null;
  readonly html?: string | null;
}

/** The tables to stdout, and the report as JSON and as a page where they are asked for. */
export function writeReport(
  { stdout }: Streams,
  report: object,
  formatted: (isTerminal: boolean) => string,
  { json, html = null }: ReportFiles,
  page: () => string = () => '',
): void {
  const write = (option: string, file: string | null, text: () => string): void => {
    if (file === '-') stdout.write(text());
    else if (file !== null) writeWhole(option, file, text());
  };
  if (json !== '-' && html !== '-') stdout.write(formatted(stdout.isTTY === true));
  write('json', json, () => `${JSON.stringify(report, null, 2)}\n`);
  write('html', html, page);
}

/** All of it or nothing: beside the file first, then in its place. A device or a pipe is written to as it is. */
function writeWhole(option: string, file: string, text: string): void {
  const stats: Stats | undefined = statSync(file, { throwIfNoEntry: false });
  const target = stats === undefined ? resolve(file) : realpathSync(file);
  const isPlain = stats === undefined || stats.isFile();
  const part = isPlain ? join(dirname(target), `.${basename(target)}.${process.pid}`) : target;
  try {
    writeFileSync(part, text, stats === undefined ? {} : { mode: stats.mode });
    if (isPlain) renameSync(part, target);
  } catch (error) {
    if (isPlain) rmSync(part, { force: true });
    throw new UsageError(`--${option} ${file} cannot be written: ${(error as Error).message}`);
  }
}
