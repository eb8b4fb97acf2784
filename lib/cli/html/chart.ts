import { liesOnAny, type PlacedLabel, placeLabels } from './labels.ts';
import { type Markup, markup } from './markup.ts';
import type { Scale } from './scale.ts';

/** One of the values drawn. */
export interface Point {
  readonly x: number;
  readonly y: number;
  /** Said of it where a pointer rests on it. */
  readonly title: string;
}

/** Points of one kind, in a colour and with a mark of their own. */
export interface Series {
  /** Stands beside the last point; '' where a legend names the series. */
  readonly label: string;
  readonly points: readonly Point[];
  /** 0 to 5: colour and mark. */
  readonly tone: number;
  /** Default: a line through the points, in ascending order of x. */
  readonly line?: 'solid' | 'dashed' | 'none';
}

/** A limit: drawn through two or more places, with its name along it. */
export interface Roof {
  readonly label: string;
  readonly path: readonly { readonly x: number; readonly y: number }[];
  /** The part of the path, from its i-th place to the next, along which the name stands. */
  readonly labelAt: number;
}

export interface Axis {
  readonly label: string;
  readonly scale: Scale;
  format(tick: number): string;
}

export interface Chart {
  /** Unique in the document. */
  readonly id: string;
  readonly title: string;
  /** What one sees, for those who do not. */
  readonly description: string;
  readonly x: Axis;
  readonly y: Axis;
  readonly series: readonly Series[];
  readonly roofs?: readonly Roof[];
}

/** In units of a drawing that a phone shows at about their size in pixels. */
const WIDTH = 360;
const HEIGHT = 250;
const LEFT = 54;
const TOP = 26;
const BOTTOM = 38;
const RIGHT = 12;
/** Of a letter of a label, on average. */
const LETTER = 7;
/** Of a line of them. */
const LABEL_HEIGHT = 16;
/** Room on the right for labels of series that end there. */
const MAX_GUTTER = 130;

interface Frame {
  readonly chart: Chart;
  readonly right: number;
  readonly bottom: number;
  x(value: number): number;
  y(value: number): number;
}

/** A chart as SVG, without a style: that is the document's. */
export function drawChart(chart: Chart): Markup {
  const longest = Math.max(0, ...chart.series.map(({ label }) => label.length));
  const gutter = longest === 0 ? RIGHT : Math.min(MAX_GUTTER, 12 + LETTER * longest);
  const [right, bottom] = [WIDTH - gutter, HEIGHT - BOTTOM];
  const frame: Frame = {
    chart,
    right,
    bottom,
    x: (value) => round(LEFT + chart.x.scale.at(value) * (right - LEFT)),
    y: (value) => round(bottom - chart.y.scale.at(value) * (bottom - TOP)),
  };
  return drawing(chart, HEIGHT, [
    drawAxes(frame),
    (chart.roofs ?? []).map((roof) => drawRoof(frame, roof)),
    chart.series.map((series) => drawSeries(frame, series)),
    (chart.roofs ?? []).map((roof) => drawRoofLabel(frame, roof, chart.roofs ?? [])),
    drawLabels(frame),
  ]);
}

/** The element around a drawing, with its title and description. */
export function drawing(
  { id, title, description }: Pick<Chart, 'id' | 'title' | 'description'>,
  height: number,
  body: readonly (Markup | readonly Markup[])[],
): Markup {
  return markup`<svg viewBox="0 0 ${WIDTH} ${height}" role="img" aria-labelledby="${id}-title ${id}-desc">
<title id="${id}-title">${title}</title>
<desc id="${id}-desc">${description}</desc>
${body}
</svg>`;
}

const round = (value: number): number => Math.round(10 * value) / 10;

function drawAxes({ chart, right, bottom, x, y }: Frame): Markup {
  const columns = chart.x.scale.ticks.map(
    (tick) => markup`<path class="grid" d="M${x(tick)} ${TOP}V${bottom}"/>
<text x="${x(tick)}" y="${bottom + 15}" text-anchor="middle">${chart.x.format(tick)}</text>
`,
  );
  const rows = chart.y.scale.ticks.map(
    (tick) => markup`<path class="grid" d="M${LEFT} ${y(tick)}H${right}"/>
<text x="${LEFT - 6}" y="${y(tick) + 4}" text-anchor="end">${chart.y.format(tick)}</text>
`,
  );
  return markup`<g class="axes">
${columns}${rows}<path class="axis" d="M${LEFT} ${TOP}V${bottom}H${right}"/>
<text class="unit" x="4" y="12">${chart.y.label}</text>
<text class="unit" x="${(LEFT + right) / 2}" y="${HEIGHT - 4}" text-anchor="middle">${chart.x.label}</text>
</g>
`;
}

function drawSeries({ x, y }: Frame, { points, tone, line = 'solid' }: Series): Markup {
  const sorted = [...points].sort((a, b) => a.x - b.x);
  const path = sorted.map((point, i) => `${i === 0 ? 'M' : 'L'}${x(point.x)} ${y(point.y)}`).join('');
  const joined =
    line === 'none' || sorted.length < 2
      ? null
      : markup`<path class="line${line === 'dashed' ? ' dashed' : ''}" d="${path}"/>
`;
  const marks = sorted.map((point) => drawMark(tone, x(point.x), y(point.y), point.title));
  return markup`<g class="tone${tone}">
${joined}${marks}</g>
`;
}

/** Marks differ in form too: colour alone does not reach everybody. */
const MARKS: readonly string[] = [
  'm-3.5 0a3.5 3.5 0 1 0 7 0a3.5 3.5 0 1 0-7 0z',
  'm-3.3-3.3h6.6v6.6h-6.6z',
  'm0-4.4l4.2 7.4h-8.4z',
  'm0-4.6l4.6 4.6l-4.6 4.6l-4.6-4.6z',
  'm0 4.4l4.2-7.4h-8.4z',
  'm-1.4-4.2h2.8v2.8h2.8v2.8h-2.8v2.8h-2.8v-2.8h-2.8v-2.8h2.8z',
];

/** A mark at a place of a drawing. */
export function drawMark(tone: number, x: number, y: number, title: string): Markup {
  return markup`<path class="mark" d="M${x} ${y}${MARKS[tone]}"><title>${title}</title></path>
`;
}

function drawRoof({ x, y }: Frame, { path }: Roof): Markup {
  const d = path.map((place, i) => `${i === 0 ? 'M' : 'L'}${x(place.x)} ${y(place.y)}`).join('');
  return markup`<path class="roof" d="${d}"/>
`;
}

/**
 * Along a slope from its middle; above a flat roof where a slope that goes on from its beginning has risen above letters, or
 * below it where another flat roof is as near as letters are high.
 */
function drawRoofLabel({ x, y }: Frame, { label, path, labelAt }: Roof, roofs: readonly Roof[]): Markup {
  const [from, to] = path.slice(labelAt, labelAt + 2).map((place) => ({ x: x(place.x), y: y(place.y) }));
  const { x: begin, y: height } = path[labelAt];
  const clear = (18 * (x(2 * begin) - x(begin))) / (y(height) - y(2 * height));
  const angle = round((Math.atan2(to.y - from.y, to.x - from.x) * 180) / Math.PI);
  const isCrowded = roofs.some(({ label: name, path: other }) => {
    const isFlat = other.every((place) => place.y === other[0].y);
    const above = from.y - y(other[0].y);
    return isFlat && (above > 0 || (above === 0 && name < label)) && above < LABEL_HEIGHT;
  });
  const [left, bottom, anchor] =
    angle === 0
      ? [from.x + clear, isCrowded ? from.y + 13 : from.y - 5, 'start']
      : [(from.x + to.x) / 2 - 4, (from.y + to.y) / 2 - 5, 'middle'];
  const turned = `rotate(${angle} ${round(left)} ${round(bottom)})`;
  return markup`<text class="label quiet" x="${round(left)}" y="${round(bottom)}" text-anchor="${anchor}" transform="${turned}">${label}</text>
`;
}

/** Names beside the last points, moved where they would cover each other or lie on the line of another series. */
function drawLabels({ chart, x, y, bottom }: Frame): Markup[] {
  const lines = chart.series.map(({ points }) =>
    [...points].sort((a, b) => a.x - b.x).map((point) => ({ x: x(point.x), y: y(point.y) })),
  );
  const wanted = chart.series
    .map(({ label, tone }, i) => ({ label, tone, width: LETTER * label.length, line: lines[i] }))
    .filter(({ label, line }) => label !== '' && line.length > 0)
    .map(({ line, ...label }) => {
      const last = line[line.length - 1];
      const others = lines.filter((other) => other !== line);
      const place = { ...label, x: last.x + 8, y: last.y };
      const shift = SHIFTS.find((dy) => !liesOnAny({ ...place, y: place.y + dy }, others)) ?? 0;
      return { ...place, y: place.y + shift };
    });
  return placeLabels(wanted, TOP, bottom).map(drawLabel);
}

/** How far a name may move from its point to be off other lines; the nearest first. */
const SHIFTS = [0, -6, 6, -12, 12, -18, 18];

function drawLabel({ label, tone, x, y }: PlacedLabel & { readonly tone: number }): Markup {
  return markup`<text class="label tone${tone}" x="${round(x)}" y="${round(y + 4)}">${label}</text>
`;
}
