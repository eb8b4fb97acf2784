// Bars as SVG: panels one below the other, in each a bar for every system, the longest filling the width. Text and lines
// take the colour of light or dark surroundings.

const WIDTH = 840;
const LABEL_WIDTH = 300;
const VALUE_WIDTH = 130;
const BAR_HEIGHT = 18;
const ROW_HEIGHT = 25;
const TITLE_HEIGHT = 34;
const PANEL_GAP = 16;
const MARGIN = 16;

const STYLE = `
  svg { color: #1f2328; font: 13px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif; }
  text { fill: currentColor; }
  .title { font-weight: 600; }
  .quiet { opacity: 0.65; }
  .ours { fill: #0a7d55; }
  .peer { fill: #8c959f; }
  .bound { fill: none; stroke: #8c959f; stroke-width: 1.5; stroke-dasharray: 4 3; }
  @media (prefers-color-scheme: dark) {
    svg { color: #e6edf3; }
    .ours { fill: #3fb984; }
    .peer { fill: #6e7681; }
    .bound { stroke: #8b949e; }
  }`;

/**
 * The text of an SVG file.
 *
 * @param panels [{ title, bars: [{ label, value, text, kind: 'ours' | 'peer' | 'bound' }] }]
 * @param captions lines above them
 */
export function drawPlot(panels, captions) {
  let y = MARGIN + captions.length * ROW_HEIGHT;
  const body = [];
  for (const { title, bars } of panels) {
    body.push(text(MARGIN, y + TITLE_HEIGHT / 2, title, 'title'));
    y += TITLE_HEIGHT;
    const longest = Math.max(...bars.map(({ value }) => value));
    for (const bar of bars) {
      body.push(...drawBar(bar, longest, y));
      y += ROW_HEIGHT;
    }
    y += PANEL_GAP;
  }
  const height = y;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img">`,
    `<title>${escapeText(captions[0])}</title>`,
    `<style>${STYLE}\n</style>`,
    ...captions.map((line, i) => text(MARGIN, MARGIN + 4 + 20 * i, line, 'quiet')),
    ...body,
    '</svg>',
    '',
  ].join('\n');
}

function drawBar({ label, value, text: valueText, kind }, longest, y) {
  const middle = y + BAR_HEIGHT / 2 + 4.5;
  const length = Math.max(1, (value / longest) * (WIDTH - 2 * MARGIN - LABEL_WIDTH - VALUE_WIDTH));
  const x = MARGIN + LABEL_WIDTH;
  return [
    text(x - 10, middle, label, kind === 'ours' ? 'title' : '', 'end'),
    `<rect class="${kind}" x="${x}" y="${y}" width="${length.toFixed(1)}" height="${BAR_HEIGHT}" rx="2"/>`,
    text(x + length + 8, middle, valueText, kind === 'ours' ? 'title' : ''),
  ];
}

function text(x, y, content, className, anchor = 'start') {
  const classes = className === '' ? '' : ` class="${className}"`;
  const anchored = anchor === 'start' ? '' : ` text-anchor="${anchor}"`;
  return `<text x="${x.toFixed(1)}" y="${y.toFixed(1)}"${classes}${anchored}>${escapeText(content)}</text>`;
}

const ENTITIES = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };

function escapeText(content) {
  return content.replace(/[&<>"]/g, (character) => ENTITIES[character]);
}
