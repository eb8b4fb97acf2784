import { describe, expect, test } from 'vitest';
import type { BenchPage } from '../../../../lib/cli/bench-page.ts';
import type { BenchReport } from '../../../../lib/cli/bench-run.ts';
import { writeDocument } from '../../../../lib/cli/html/document.ts';
import { intensity } from '../../../../lib/cli/html/roofline.ts';
import { formatNumber } from '../../../../lib/cli/table.ts';
import { makeReport } from './report.ts';

const VOID = /^(meta|path|br)$/;

/** Names of elements that are opened, closed in order; throws where a tag does not fit. */
function checkNesting(html: string): Map<string, number> {
  const body = html.replace('<!doctype html>', '').replace(/<style>[\s\S]*?<\/style>/g, '');
  const open: string[] = [];
  const counts = new Map<string, number>();
  for (const [tag, closing, name, rest] of body.matchAll(/<(\/?)([a-zA-Z][a-zA-Z0-9]*)([^<>]*)>/g)) {
    if (closing === '/') {
      if (open.pop() !== name) throw new Error(`${tag} closes what is not open`);
      continue;
    }
    counts.set(name, (counts.get(name) ?? 0) + 1);
    if (!(rest.endsWith('/') && /^(path|text)$/.test(name)) && !(name === 'meta' && VOID.test(name)))
      open.push(name);
    expect(
      rest
        .replace(/\s+[a-zA-Z-]+="[^"<>]*"/g, '')
        .replace('/', '')
        .trim(),
      tag,
    ).toBe('');
  }
  expect(open).toEqual([]);
  // Whatever is left of a bracket is escaped.
  expect(body.replace(/<\/?[a-zA-Z][a-zA-Z0-9]*[^<>]*>/g, '')).not.toMatch(/[<>]/);
  return counts;
}

const variants: [string, BenchReport][] = [
  ['full and sliding layers, tiles', makeReport()],
  ['layers that are all alike', makeReport({}, 'llama3-8b')],
  ['linear layers among them', makeReport({}, 'qwen3.6-27b')],
  ['sinks', makeReport({}, 'gpt-oss-20b')],
  ['latent attention', makeReport({}, 'deepseek-v3')],
  [
    'the reference alone',
    makeReport({
      reference: [],
      page: { kv: [], ceilings: null, peers: { engine: null, rows: [], note: null } },
    }),
  ],
  ['an encoder', encoder()],
  ['one context', oneContext()],
];

function encoder(): BenchReport {
  const report = makeReport();
  const isPrefill = ({ phase }: { phase: string }): boolean => phase === 'prefill';
  const [rows, totals, reference] = [report.rows, report.totals, report.reference].map((list) =>
    (list as readonly { phase: string }[]).filter(isPrefill),
  ) as unknown as [BenchReport['rows'], BenchReport['totals'], BenchReport['reference']];
  return {
    ...report,
    rows,
    totals,
    reference,
    page: { kv: [], ceilings: null, peers: { engine: null, rows: [], note: null } },
  };
}

function oneContext(): BenchReport {
  const report = makeReport();
  const is = ({ context }: { context: number }): boolean => context === 512;
  return { ...report, rows: report.rows.filter(is), totals: report.totals.filter(is) };
}

describe.each(variants)('the document of a report: %s', (_, report) => {
  const html = writeDocument(report);

  test('is well formed, its ids are unique, and what refers to them finds them', () => {
    const counts = checkNesting(html);
    for (const name of ['html', 'head', 'body', 'main', 'h1', 'header', 'footer'])
      expect(counts.get(name)).toBe(1);
    const ids = [...html.matchAll(/ id="([^"]+)"/g)].map(([, id]) => id);
    expect(new Set(ids).size).toBe(ids.length);
    for (const [, list] of html.matchAll(/aria-labelledby="([^"]+)"/g))
      for (const id of list.split(' ')) expect(ids).toContain(id);
  });

  test('needs nothing beside itself, and runs nothing', () => {
    expect(html).not.toMatch(
      /https?:|\/\/|<link|<script|<img|<iframe|\bsrc=|\bhref=|url\(|@import|@font-face|\bon\w+=/i,
    );
    expect(html).toContain('default-src &#39;none&#39;');
  });

  test('holds numbers everywhere', () => {
    expect(html).not.toMatch(/NaN|Infinity|undefined|\[object|null/);
  });

  test('names each drawing for those who cannot see it', () => {
    const drawings = [
      ...html.matchAll(/<svg [^>]*role="img"[^>]*>\s*<title[^>]*>([^<]+)<\/title>\s*<desc[^>]*>([^<]+)</g),
    ];
    expect(drawings.length).toBe(html.match(/<svg/g)?.length);
    expect(drawings.length).toBeGreaterThanOrEqual(3);
  });
});

describe('the document', () => {
  const report = makeReport();
  const html = writeDocument(report);

  test('says what was measured, and where', () => {
    for (const text of [
      'gemma3-27b',
      'Example 9000',
      'amx',
      'bfloat16',
      '<dd>8</dd>',
      '52 sliding 1024',
      'a note of the run',
    ])
      expect(html).toContain(text);
    expect(html).not.toMatch(/\b20\d\d-\d\d|\b\d\d:\d\d\b/);
  });

  test('has every figure of the report in its tables', () => {
    for (const row of report.rows) {
      for (const value of [row.milliseconds, row.tokensPerSecond, row.gflopsPerSecond])
        expect(html).toContain(`<td>${formatNumber(value)}</td>`);
    }
    for (const row of report.totals) expect(html).toContain(`<td>${formatNumber(row.milliseconds)}</td>`);
    for (const row of report.reference)
      expect(html).toContain(`<td>${formatNumber(row.referenceMilliseconds)}</td>`);
  });

  test('has a mark for each row in its curves and in the roofline', () => {
    const chart = (id: string): string => html.slice(html.indexOf(`id="${id}-title"`)).split('</svg>')[0];
    const marks = (id: string): number => chart(id).match(/class="mark"/g)?.length ?? 0;
    const of = (phase: string) => report.rows.filter((row) => row.phase === phase).length;
    const reference = report.reference.filter((row) => row.phase === 'prefill').length;
    expect(marks('prefill-time')).toBe(of('prefill') + reference);
    expect(marks('decode-time')).toBe(of('decode') + reference);
    expect(marks('roofline-chart')).toBe(report.rows.length);
    expect(marks('shares')).toBe(of('prefill') + of('decode'));
    for (const label of ['FMA 320 GFLOP/s', 'tiles 1\u202f800 GFLOP/s', 'read 48.0 GB/s'])
      expect(chart('roofline-chart')).toContain(label);
  });

  test('keeps the names of two roofs apart, however near they are', () => {
    for (const [fma, tile] of [
      [320, 640],
      [320, 330],
      [320, 320],
      [330, 320],
    ]) {
      const page = { ...(report.page as BenchPage), ceilings: { fma, tile, read: 48 } };
      const drawn = writeDocument(makeReport({ page }));
      const [upper, lower] = ['FMA', 'tiles']
        .map((name) => Number(new RegExp(`y="([\\d.]+)"[^>]*>${name} \\d+ GFLOP`).exec(drawn)?.[1]))
        .sort((a, b) => a - b);
      expect(lower - upper).toBeGreaterThan(10);
    }
  });

  test('of an encoder speaks of neither chunks nor decode', () => {
    const only = <T extends { phase: string }>(rows: readonly T[]) =>
      rows.filter((row) => row.phase === 'prefill');
    const [rows, totals] = [only(report.rows), only(report.totals)];
    const drawn = writeDocument(makeReport({ rows, totals, reference: only(report.reference), page: null }));
    const words = drawn.slice(drawn.indexOf('<section'), drawn.indexOf('id="memory"'));
    expect(words).toContain('every other one');
    expect(words).not.toMatch(/chunk|[Dd]ecode/);
  });

  test('names the backend that ran', () => {
    const machine = { ...report.machine, backend: 'reference' as const };
    const drawn = writeDocument(makeReport({ machine, reference: [] }, 'llama3-8b'));
    expect(drawn).toContain('>reference</text>');
    expect(drawn).not.toMatch(/>native</);
  });

  test('names what else was timed, or says why nothing was', () => {
    expect(html).toContain('GroupQueryAttention and Attention are operators of Example Runtime 1.0');
    expect(
      writeDocument(
        makeReport({ page: { ...report.page!, peers: { engine: null, rows: [], note: 'no <peer> here' } } }),
      ),
    ).toContain('no &lt;peer&gt; here');
    const row = { phase: 'decode', context: 512, milliseconds: 1.25, ratio: 11.9 } as const;
    const rows = ['node-sdpa', 'Other <engine>'].map((system) => ({ ...row, system }));
    const peers = { engine: 'Other 1.0', rows, note: null };
    const page = writeDocument(makeReport({ page: { ...report.page!, peers } }));
    checkNesting(page);
    expect(page).toContain('Other &lt;engine&gt;: 1.25 ms (11.9x)');
    expect(page).toContain('<th scope="row" class="word">Other &lt;engine&gt;</th>');
  });

  test('draws nothing outside of its drawings', () => {
    for (const [, x, y] of html.matchAll(/class="mark" d="M([\d.-]+) ([\d.-]+)/g)) {
      expect(Number(x)).toBeGreaterThanOrEqual(0);
      expect(Number(x)).toBeLessThanOrEqual(360);
      expect(Number(y)).toBeGreaterThanOrEqual(0);
      expect(Number(y)).toBeLessThanOrEqual(250);
    }
  });

  test.each([
    '<script>alert(1)</script>',
    '"><img src=x onerror=alert(1)>',
    "a' onload='x",
    '</title></style>&',
  ])('a model called %s is inert', (name) => {
    const page = writeDocument(
      makeReport({ name, notes: [name], machine: { ...report.machine, cpu: name } }),
    );
    const plain = writeDocument(
      makeReport({ name: 'x', notes: ['x'], machine: { ...report.machine, cpu: 'x' } }),
    );
    expect(checkNesting(page)).toEqual(checkNesting(plain));
    if (/[<>]/.test(name)) expect(page).not.toContain(name);
  });

  test('the colours differ, on either ground as much as text must', () => {
    const style = html.match(/<style>([\s\S]*?)<\/style>/)?.[1] as string;
    const [light, dark] = [...style.matchAll(/--page:(#\w+);[^}]*/g)].slice(0, 2);
    for (const [declarations, page] of [light, dark]) {
      const colours = [...declarations.matchAll(/--(ink|quiet|tone\d):(#\w{6})/g)];
      expect(new Set(colours.map(([, , colour]) => colour)).size).toBeGreaterThanOrEqual(7);
      for (const [, name, colour] of colours)
        expect(contrast(colour, page), name).toBeGreaterThanOrEqual(4.5);
    }
  });
});

/** https://www.w3.org/TR/WCAG21/#dfn-contrast-ratio */
function contrast(a: string, b: string): number {
  const luminance = (hex: string): number => {
    const full = hex.length === 4 ? hex.replace(/[^#]/g, '$&$&') : hex;
    const [red, green, blue] = [1, 3, 5]
      .map((i) => Number.parseInt(full.slice(i, i + 2), 16) / 255)
      .map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue;
  };
  const [x, y] = [luminance(a), luminance(b)];
  return (Math.max(x, y) + 0.05) / (Math.min(x, y) + 0.05);
}

test('intensity: decode of float32 with 4 query heads to a key head, 2 operations a byte less what q and out take', () => {
  const report = makeReport({}, 'llama3-8b');
  const [group] = report.layers;
  const row = report.rows.find(({ phase, context }) => phase === 'decode' && context === 8192);
  const float32 = { ...row!, cachedBytes: 2 * row!.cachedBytes! };
  expect(intensity(float32, group, { dtype: 'float32' })).toBeCloseTo(2 / (1 + 32 / (8 * 8192)), 9);
});
