import { describeGroup, describeType, type FigureTable, figureTables } from '../bench-report.ts';
import type { BenchReport } from '../bench-run.ts';
import { formatBytes } from '../plan-report.ts';
import { formatGrouped } from './format.ts';
import { Markup, markup } from './markup.ts';
import { memorySection } from './memory.ts';
import { othersSection } from './others.ts';
import { ratesSection } from './rates.ts';
import { rooflineSection } from './roofline.ts';
import { drawSection } from './section.ts';
import { STYLE } from './style.ts';

/** Nothing is loaded and nothing runs, whatever the names of a model hold. */
const POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

/** A report as one HTML file that needs nothing beside it: no script, no font, no network. */
export function writeDocument(report: BenchReport): string {
  const title = `Attention of ${report.name}`;
  const sections = [
    ratesSection(report, 'prefill'),
    ...(report.totals.some(({ phase }) => phase === 'decode') ? [ratesSection(report, 'decode')] : []),
    rooflineSection(report),
    memorySection(report),
    othersSection(report),
  ];
  return markup`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="${POLICY}">
<title>${title} · node-sdpa bench</title>
<style>${new Markup(STYLE)}</style>
</head>
<body>
<main>
<header>
<h1>Attention of <span>${report.name}</span></h1>
<p class="lead">What the attention layers cost on this machine: random data, every result checked against a float64 oracle before it was timed. Projections and MLPs are not counted.</p>
${drawFacts(report)}
${drawTiles(report)}
</header>
${sections.map(drawSection)}
${drawTables(report)}
<footer>
<p>Written by <code>node-sdpa bench --html</code>, node-sdpa ${report.machine.version}. Times are medians of several runs.</p>
</footer>
</main>
</body>
</html>
`.text;
}

function drawFacts(report: BenchReport): Markup {
  const { machine, layers, numLinearLayers } = report;
  const ceilings = report.page?.ceilings ?? null;
  const shapes = layers.map(describeGroup);
  if (numLinearLayers > 0) shapes.push(`${numLinearLayers} linear (no attention; not timed)`);
  const tiles =
    ceilings === null || ceilings.tile === null ? '' : ` tiles ${formatGrouped(ceilings.tile)} GFLOP/s,`;
  const facts: [string, string][] = [
    ['Processor', machine.cpu === '' ? 'unknown' : machine.cpu],
    ['Instruction set', machine.isa],
    ['Threads', String(machine.threads)],
    ['Numbers', describeType(report)],
    ['Layers', `${shapes.join('; ')}: query heads/key heads/head size`],
    [
      'Ceilings',
      ceilings === null
        ? 'not measured: they need the native addon'
        : `FMA ${formatGrouped(ceilings.fma)} GFLOP/s,${tiles} memory read ${formatGrouped(ceilings.read)} GB/s`,
    ],
  ];
  return markup`<dl class="facts">
${facts.map(
  ([name, value]) => markup`<dt>${name}</dt><dd>${value}</dd>
`,
)}</dl>`;
}

/** The figures that one would tell somebody else. */
function drawTiles({ totals, reference, page, dtype }: BenchReport): Markup {
  const tiles: [string, string, string][] = [];
  for (const phase of ['prefill', 'decode'] as const) {
    const last = totals.findLast((row) => row.phase === phase);
    if (last !== undefined)
      tiles.push([
        formatGrouped(last.tokensPerSecond),
        'tokens/s',
        `${phase} at ${last.context} tokens, all attention layers`,
      ]);
  }
  const kv = page?.kv.find((row) => row.dtype === dtype);
  if (kv !== undefined)
    tiles.push([...splitUnit(formatBytes(kv.bytesPerToken)), `of keys and values a token, ${dtype}`]);
  const compared = reference.findLast(({ phase }) => phase === 'prefill');
  if (compared !== undefined)
    tiles.push([
      `${formatGrouped(compared.ratio)}x`,
      '',
      `as fast as the reference, prefill of ${compared.context} tokens`,
    ]);
  return markup`<ul class="tiles">
${tiles.map(
  ([
    figure,
    unit,
    meaning,
  ]) => markup`<li><strong>${figure} <small>${unit}</small></strong><span>${meaning}</span></li>
`,
)}</ul>`;
}

const splitUnit = (text: string): [string, string] => text.split(' ') as [string, string];

function drawTables(report: BenchReport): Markup {
  return markup`<section aria-labelledby="figures">
<h2 id="figures">All figures</h2>
${figureTables(report).map(drawTable)}
${report.notes.length === 0 ? null : markup`<h3>Notes</h3><ul>${report.notes.map((note) => markup`<li>${note}</li>`)}</ul>`}
</section>`;
}

function drawTable({ title, head, rows, numLabels }: FigureTable): Markup {
  const kind = (j: number): Markup | null => (j < numLabels ? markup` class="word"` : null);
  const heads = head.map((name, j) => markup`<th scope="col"${kind(j)}>${name}</th>`);
  const lines = rows.map(
    (cells) => markup`<tr>${cells.map((cell, j) =>
      j === 0 ? markup`<th scope="row" class="word">${cell}</th>` : markup`<td${kind(j)}>${cell}</td>`,
    )}</tr>
`,
  );
  return markup`<h3>${title}</h3>
<section class="scroll" tabindex="0" aria-label="${title}">
<table>
<thead><tr>${heads}</tr></thead>
<tbody>
${lines}</tbody>
</table>
</section>
`;
}
