import { describe, expect, test } from 'vitest';
import { formatNumber, formatShare, formatTable } from '../../../lib/cli/table.ts';

test('formatTable: labels to the left, numbers to the right, no blanks at the end', () => {
  const rows = [
    ['full', 'x', '1'],
    ['sliding', 'y', '1000'],
  ];
  expect(formatTable(['layer', 'p', 'ms'], rows, 2)).toEqual([
    'layer    p    ms',
    'full     x     1',
    'sliding  y  1000',
  ]);
  expect(formatTable(['a', ''], [['b', '']])).toEqual(['a', 'b']);
});

describe('formatNumber', () => {
  test.each([
    [0.01234, '0.0123'],
    [1, '1.00'],
    [99.96, '100'],
    [999.4, '999'],
    [999.7, '1000'],
    [1234.5, '1235'],
    [123456789, '123456789'],
    [1e-9, '1e-9'],
    [null, '-'],
    [Number.POSITIVE_INFINITY, '-'],
  ])('%d is %s', (x, text) => expect(formatNumber(x)).toBe(text));
});

test('formatShare', () => {
  expect([0.853, 1.2, 0, null].map(formatShare)).toEqual(['85%', '120%', '0%', '-']);
});
