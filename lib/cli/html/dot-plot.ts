import { type Chart, drawing, drawMark } from './chart.ts';
import { type Markup, markup } from './markup.ts';
import type { Scale } from './scale.ts';

/** One line of the plot. */
export interface DotRow {
  readonly name: string;
  readonly value: number;
  /** Stands beside the name. */
  readonly text: string;
  readonly tone: number;
}

export interface DotPlot extends Pick<Chart, 'id' | 'title' | 'description'> {
  readonly unit: string;
  readonly scale: Scale;
  format(tick: number): string;
  readonly rows: readonly DotRow[];
}

const LEFT = 8;
const RIGHT = 348;
const TOP = 8;
const ROW_HEIGHT = 36;

/**
 * A value for each of a few systems, on one axis. Dots and no bars, which would have to begin at 0: the axis is
 * logarithmic. Names stand above the line of each row, as they are long and phones narrow.
 */
export function drawDotPlot(plot: DotPlot): Markup {
  const bottom = TOP + ROW_HEIGHT * plot.rows.length + 8;
  const x = (value: number): number => Math.round(10 * (LEFT + plot.scale.at(value) * (RIGHT - LEFT))) / 10;
  const columns = plot.scale.ticks.map(
    (tick) => markup`<path class="grid" d="M${x(tick)} ${TOP}V${bottom}"/>
<text x="${x(tick)}" y="${bottom + 15}" text-anchor="middle">${plot.format(tick)}</text>
`,
  );
  const rows = plot.rows.map((row, i) => drawRow(row, x(row.value), TOP + ROW_HEIGHT * i));
  return drawing(plot, bottom + 38, [
    markup`<g class="axes">
${columns}<path class="axis" d="M${LEFT} ${bottom}H${RIGHT}"/>
<text class="unit" x="${(LEFT + RIGHT) / 2}" y="${bottom + 33}" text-anchor="middle">${plot.unit}</text>
</g>
`,
    rows,
  ]);
}

function drawRow({ name, text, tone }: DotRow, x: number, top: number): Markup {
  const y = top + 26;
  return markup`<g class="tone${tone}">
<path class="rail" d="M${LEFT} ${y}H${RIGHT}"/>
${drawMark(tone, x, y, `${name}: ${text}`)}<text class="label" x="${LEFT}" y="${top + 14}">${name}</text>
<text class="label" x="${RIGHT}" y="${top + 14}" text-anchor="end">${text}</text>
</g>
`;
}
