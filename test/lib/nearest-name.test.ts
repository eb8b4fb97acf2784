import { describe, expect, test } from 'vitest';
import { nearestName } from '../../lib/nearest-name.ts';

describe('nearestName', () => {
  const names = ['scale', 'causal', 'queryOffset', 'window', 'sinks'];

  test.each([
    ['scal', 'scale'],
    ['casual', 'causal'],
    ['QUERYOFFSET', 'queryOffset'],
    ['query_offset', 'queryOffset'],
    ['windoww', 'window'],
    ['sink', 'sinks'],
  ])('%s → %s', (word, name) => {
    expect(nearestName(word, names)).toBe(name);
  });

  test('gives nothing where nothing is near, or hardly a letter would stay', () => {
    expect(nearestName('temperature', names)).toBeUndefined();
    expect(nearestName('', names)).toBeUndefined();
    expect(nearestName('x', ['abc', 'y'])).toBeUndefined();
    expect(nearestName('left', ['out', 'lse'])).toBeUndefined();
    expect(nearestName('scale', [])).toBeUndefined();
  });

  test.each([
    ['attn_mask', 'mask'],
    ['softmaxScale', 'scale'],
    ['slidingWindow', 'window'],
    ['offset', 'queryOffset'],
    ['alibi', 'alibiSlopes'],
    ['maskOrScale', 'scale'],
  ])('%s, which is far from every name → %s, a part of it or the whole', (word, name) => {
    expect(nearestName(word, ['mask', 'out', 'alibiSlopes', ...names])).toBe(name);
  });

  test('prefers the nearer, and the first of equals', () => {
    expect(nearestName('abcx', ['abcdef', 'abc', 'abcy'])).toBe('abc');
    expect(nearestName('abcd', ['abce', 'abcf'])).toBe('abce');
  });
});
