import { parseArgs } from 'node:util';
import { nearestName } from '../nearest-name.ts';
import { UsageError } from './command.ts';

/** The options of a command: whether each takes a value. */
export type OptionKinds = Readonly<Record<string, 'value' | 'flag'>>;

/**
 * Reads `--name value`, `--name=value` and `--flag`. Of a name given twice the last counts.
 *
 * @throws UsageError for an unknown name (with the nearest one), a missing or superfluous value, or a stray word
 */
export function readArguments(argv: readonly string[], kinds: OptionKinds): Map<string, string> {
  const options = Object.fromEntries(
    Object.entries(kinds).map(([name, kind]) => [
      name,
      { type: kind === 'value' ? ('string' as const) : ('boolean' as const) },
    ]),
  );
  const { tokens } = parseArgs({
    args: [...argv],
    options,
    strict: false,
    allowPositionals: true,
    tokens: true,
  });
  const given = new Map<string, string>();
  for (const token of tokens) {
    if (token.kind === 'positional') throw new UsageError(`unexpected argument '${token.value}'`);
    if (token.kind === 'option') given.set(token.name, readOption(token, kinds));
  }
  return given;
}

function readOption(token: { name: string; rawName: string; value?: string }, kinds: OptionKinds): string {
  const { name, rawName, value } = token;
  if (!Object.hasOwn(kinds, name)) {
    const known = Object.keys(kinds);
    const nearest = nearestName(name, known);
    const remedy =
      nearest === undefined
        ? `known are ${known.map((n) => `--${n}`).join(', ')}`
        : `did you mean --${nearest}?`;
    throw new UsageError(`unknown option ${rawName}; ${remedy}`);
  }
  if (kinds[name] === 'flag') {
    if (value !== undefined) throw new UsageError(`--${name} takes no value; got '${value}'`);
    return '';
  }
  // A following option is no value; '-', negative numbers and '-,3' are.
  if (value === undefined || value === '' || /^-[^\d.,]/.test(value))
    throw new UsageError(`--${name} needs a value`);
  return value;
}

/** A whole number from 1 to `max`. */
export function readCount(name: string, text: string, max: number): number {
  const value = Number(text);
  if (/^\d+$/.test(text) && value >= 1 && value <= max) return value;
  throw new UsageError(`--${name} must be a whole number from 1 to ${max}; got '${text}'`);
}

/** Whole numbers from 1 to `max`, separated by commas: in ascending order, each once. */
export function readCounts(name: string, text: string, max: number): number[] {
  const values = text.split(',').map((part) => readCount(name, part.trim(), max));
  return [...new Set(values)].sort((a, b) => a - b);
}
