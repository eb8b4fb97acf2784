import { expect, test } from 'vitest';
import { ProgressBar } from '../../../lib/cli/progress-bar.ts';

function record(isTTY: boolean): { written: string[]; bar: ProgressBar } {
  const written: string[] = [];
  return { written, bar: new ProgressBar({ isTTY, write: (text) => written.push(text) }) };
}

test('rewrites one line on a terminal, and gives it back', () => {
  const { written, bar } = record(true);
  bar.show(0, 4, 'first');
  bar.show(2, 4, 'third');
  bar.clear();
  expect(written).toEqual([
    `\r\x1b[2K[${'.'.repeat(24)}] 0/4 first`,
    `\r\x1b[2K[${'#'.repeat(12)}${'.'.repeat(12)}] 2/4 third`,
    '\r\x1b[2K',
  ]);
});

test('is silent elsewhere', () => {
  const { written, bar } = record(false);
  bar.show(0, 4, 'first');
  bar.clear();
  expect(written).toEqual([]);
});
