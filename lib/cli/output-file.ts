import { accessSync, constants, statSync, writeFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { type Streams, UsageError } from './command.ts';

/** Tells before the long run what would fail after it. */
export function checkWritable(option: string, file: string): void {
  if (file === '-') return;
  try {
    if (statSync(file, { throwIfNoEntry: false })?.isDirectory()) throw new Error('it is a directory');
    accessSync(dirname(resolve(file)), constants.W_OK);
  } catch (error) {
    throw new UsageError(`--${option} ${file} cannot be written: ${(error as Error).message}`);
  }
}

/** The tables to stdout, and the report as JSON where `--json` asks for it; '-': to stdout in their place. */
export function writeReport(
  { stdout }: Streams,
  report: object,
  formatted: (isTerminal: boolean) => string,
  jsonFile: string | null,
): void {
  const json = `${JSON.stringify(report, null, 2)}\n`;
  stdout.write(jsonFile === '-' ? json : formatted(stdout.isTTY === true));
  if (jsonFile !== null && jsonFile !== '-') writeFileSync(jsonFile, json);
}
