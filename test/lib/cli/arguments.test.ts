import { describe, expect, test } from 'vitest';
import { type OptionKinds, readArguments, readCount, readCounts } from '../../../lib/cli/arguments.ts';
import { UsageError } from '../../../lib/cli/command.ts';

const kinds: OptionKinds = { model: 'value', json: 'value', quiet: 'flag' };
const read = (...argv: string[]): Record<string, string> => Object.fromEntries(readArguments(argv, kinds));

describe('readArguments', () => {
  test('reads values in both spellings, and flags', () => {
    expect(read('--model', 'a', '--json=b', '--quiet')).toEqual({ model: 'a', json: 'b', quiet: '' });
    expect(read()).toEqual({});
  });

  test('the last of two counts', () => expect(read('--model', 'a', '--model', 'b')).toEqual({ model: 'b' }));

  test("'-' is a value", () => expect(read('--json', '-')).toEqual({ json: '-' }));

  test.each([
    [['--modle', 'x'], 'unknown option --modle; did you mean --model?'],
    [['--frobnicate'], 'unknown option --frobnicate; known are --model, --json, --quiet'],
    [['-m'], 'unknown option -m; known are --model, --json, --quiet'],
    [['--model'], '--model needs a value'],
    [['--model='], '--model needs a value'],
    [['--model', '--quiet'], '--model needs a value'],
    [['--quiet=yes'], "--quiet takes no value; got 'yes'"],
    [['stray'], "unexpected argument 'stray'"],
    [['--', 'stray'], "unexpected argument 'stray'"],
    [['--__proto__', 'x'], 'unknown option --__proto__; known are --model, --json, --quiet'],
  ])('refuses %j', (argv, message) => {
    expect(() => read(...argv)).toThrow(new UsageError(message));
  });
});

describe('readCount, readCounts', () => {
  test('reads whole numbers', () => {
    expect(readCount('n', '1', 8)).toBe(1);
    expect(readCount('n', '8', 8)).toBe(8);
  });

  test('sorts lists and drops repetitions', () => {
    expect(readCounts('n', '512, 64,512', 1000)).toEqual([64, 512]);
  });

  test.each(['', '0', '9', '-1', '1.5', '1e1', 'x', '0x2', 'NaN'])('refuses %j', (text) => {
    const message = `--n must be a whole number from 1 to 8; got '${text}'`;
    expect(() => readCount('n', text, 8)).toThrow(new UsageError(message));
    expect(() => readCounts('n', `1,${text}`, 8)).toThrow(new UsageError(message));
  });
});
