import { describe, expect, test } from 'vitest';
import { formatByteTick, formatGrouped, formatTick, formatTokens } from '../../../../lib/cli/html/format.ts';
import { liesOnAny, placeLabels } from '../../../../lib/cli/html/labels.ts';
import { escapeText, markup } from '../../../../lib/cli/html/markup.ts';
import { linearScale, logScale } from '../../../../lib/cli/html/scale.ts';

describe('logScale', () => {
  test('base 2: powers of two, the last of them among the ticks', () => {
    expect(logScale([128, 8192], 2, 7).ticks).toEqual([128, 256, 512, 1024, 2048, 4096, 8192]);
    expect(logScale([64, 8192], 2, 4).ticks).toEqual([128, 512, 2048, 8192]);
  });

  test('base 10: 1, 2 and 5, and fewer where there is no room', () => {
    expect(logScale([1.4, 48], 10, 6).ticks).toEqual([2, 5, 10, 20, 50]);
    expect(logScale([0.011, 0.9], 10, 5).ticks).toEqual([0.01, 0.03, 0.1, 0.3, 1]);
    expect(logScale([1e-3, 1e5], 10, 5).ticks).toEqual([1e-2, 1, 1e2, 1e4]);
  });

  test.each([
    [[1, 10], 10],
    [[0.003, 7000], 10],
    [[42], 10],
    [[1, 1.1], 10],
    [[4096], 2],
    [[1, 2 ** 30], 2],
  ] as [number[], 2 | 10][])('%j, base %d: places within, ascending, two ticks or more', (values, base) => {
    const { domain, ticks, at } = logScale(values, base, 6);
    for (const value of [...values, ...ticks]) expect(at(value)).toBeGreaterThanOrEqual(0);
    for (const value of [...values, ...ticks]) expect(at(value)).toBeLessThanOrEqual(1);
    expect(at(domain[0])).toBeCloseTo(0, 9);
    expect(at(domain[1])).toBeCloseTo(1, 9);
    expect(ticks.length).toBeGreaterThanOrEqual(2);
    expect(ticks.length).toBeLessThanOrEqual(6);
    expect(ticks).toEqual([...ticks].sort((a, b) => a - b));
  });

  test('equal factors are equal distances', () => {
    const { at } = logScale([1, 1000], 10, 6);
    expect(at(1000) - at(100)).toBeCloseTo(at(10) - at(1), 12);
  });

  test('of nothing, and of what has no logarithm, there is still an axis', () => {
    for (const values of [[], [0], [-3, Number.NaN], [Infinity]])
      expect(logScale(values, 10, 5).ticks.length).toBeGreaterThanOrEqual(2);
  });
});

test.each([
  [[0.9], 6, [0, 0.2, 0.4, 0.6, 0.8, 1]],
  [[1.09], 8, [0, 0.2, 0.4, 0.6, 0.8, 1, 1.2]],
  [[3], 4, [0, 1, 2, 3]],
  [[70], 5, [0, 20, 40, 60, 80]],
  [[0], 3, [0, 0.5, 1]],
])('linearScale of %j with %d ticks', (values, maxTicks, ticks) => {
  const scale = linearScale(values, maxTicks);
  expect(scale.ticks).toEqual(ticks);
  expect(scale.at(scale.domain[1])).toBe(1);
});

test('ticks in words', () => {
  expect([1, 512, 1024, 1536, 131072, 2 ** 20].map(formatTokens)).toEqual([
    '1',
    '512',
    '1k',
    '1.5k',
    '128k',
    '1M',
  ]);
  expect([0.001, 0.2, 1, 500, 1000, 2e6].map(formatTick)).toEqual(['0.001', '0.2', '1', '500', '1k', '2M']);
  expect([512, 2 ** 20, 3 * 2 ** 30].map(formatByteTick)).toEqual(['512 B', '1 MiB', '3 GiB']);
  expect([12.345, 1234, 1234567, null].map(formatGrouped)).toEqual([
    '12.3',
    '1\u202f234',
    '1\u202f234\u202f567',
    '-',
  ]);
});

describe('placeLabels', () => {
  const label = (y: number, x = 0) => ({ label: `at ${y}`, x, y, width: 40 });
  const heights = (labels: { y: number }[]): number[] => labels.map(({ y }) => y).sort((a, b) => a - b);

  test('leaves alone what does not touch', () => {
    expect(heights(placeLabels([label(50), label(100)], 0, 200))).toEqual([50, 100]);
    expect(heights(placeLabels([label(50), label(51, 300)], 0, 200))).toEqual([50, 51]);
  });

  test('keeps the order and a line between labels, within the drawing', () => {
    for (const ys of [
      [50, 50, 50],
      [2, 3],
      [198, 199, 200],
      [40, 52, 64, 66, 150],
    ]) {
      const placed = placeLabels(
        ys.map((y) => label(y)),
        0,
        200,
      );
      expect(placed.map((each) => each.label)).toEqual(ys.map((y) => `at ${y}`));
      for (let i = 1; i < placed.length; i++)
        expect(placed[i].y - placed[i - 1].y).toBeGreaterThanOrEqual(13);
      expect(placed[0].y).toBeGreaterThanOrEqual(6);
      expect(placed[placed.length - 1].y).toBeLessThanOrEqual(196);
    }
  });
});

test('liesOnAny: a label that a line crosses, and one above it', () => {
  const line = [
    { x: 0, y: 100 },
    { x: 100, y: 0 },
  ];
  const label = (y: number) => ({ label: '', x: 40, y, width: 20 });
  expect([20, 42, 50, 58, 80].map((y) => liesOnAny(label(y), [line]))).toEqual([
    false,
    true,
    true,
    true,
    false,
  ]);
  expect(liesOnAny({ ...label(50), x: 101 }, [line])).toBe(false);
  expect(liesOnAny(label(50), [])).toBe(false);
});

describe('markup', () => {
  test('escapes text, and leaves alone what is markup', () => {
    const name = `<script>"a" & 'b'</script>`;
    expect(markup`<p title="${name}">${[name, markup`<b>${1}</b>`, null]}</p>`.text).toBe(
      `<p title="${escapeText(name)}">${escapeText(name)}<b>1</b></p>`,
    );
    expect(escapeText(name)).toBe('&lt;script&gt;&quot;a&quot; &amp; &#39;b&#39;&lt;/script&gt;');
  });

  test('characters that no document may hold are replaced', () => {
    expect(escapeText('a\0b\u001bc\u0085d\tf\n')).toBe('a\ufffdb\ufffdc\ufffdd\tf\n');
  });
});
