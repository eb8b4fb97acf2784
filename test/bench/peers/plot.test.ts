import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { expect, test } from 'vitest';

const { drawPlot } = await import(
  pathToFileURL(resolve(import.meta.dirname, '../../../bench/peers/plot.mjs')).href
);

const panels = [
  {
    title: 'Prefill <1> & more',
    bars: [
      { label: 'ours', value: 1, text: '1 ms', kind: 'ours' },
      { label: 'a "peer"', value: 4, text: '4 ms', kind: 'peer' },
      { label: 'none at all', value: 0, text: '0 ms', kind: 'bound' },
    ],
  },
  { title: 'Decode', bars: [{ label: 'ours', value: 7, text: '7 ms', kind: 'ours' }] },
];
const svg: string = drawPlot(panels, ['shorter & better', 'two lines']);

/** Every tag is closed in its turn; returns the names of all that were opened. */
function checkTags(xml: string): string[] {
  const open: string[] = [];
  const seen: string[] = [];
  for (const [, closes, name, attributes] of xml.matchAll(/<(\/?)([a-z]+)([^<>]*)>/g)) {
    if (closes) expect(open.pop()).toBe(name);
    else {
      seen.push(name);
      expect(attributes.replace(/\/$/, '')).toMatch(/^(\s+[a-zA-Z-]+="[^"<>]*")*\s*$/);
      if (!attributes.endsWith('/')) open.push(name);
    }
  }
  expect(open).toEqual([]);
  return seen;
}

test('is well-formed, with one bar for each value', () => {
  const tags = checkTags(svg);
  expect(tags.filter((name) => name === 'rect')).toHaveLength(4);
  expect(svg.replace(/<[^<>]*>/g, '')).not.toMatch(/[<>]|&(?!amp;|lt;|gt;|quot;)/);
});

test('bars of a panel are as long as their values, and end within the picture', () => {
  const bars = [...svg.matchAll(/<rect class="\w+" x="(\d+)" y="[\d.]+" width="([\d.]+)"/g)];
  const [ours, peer, none, alone] = bars.map(([, , width]) => Number(width));
  expect(peer / ours).toBeCloseTo(4, 1);
  expect(none).toBeGreaterThan(0);
  expect(alone).toBe(peer);
  const [, width] = /viewBox="0 0 (\d+) \d+"/.exec(svg) as RegExpExecArray;
  for (const [, x, length] of bars) expect(Number(x) + Number(length)).toBeLessThan(Number(width) - 100);
});

test('is readable on light and on dark ground', () => {
  expect(svg).toContain('@media (prefers-color-scheme: dark)');
  expect(svg).toContain('fill: currentColor');
});
