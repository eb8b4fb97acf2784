/** A label where it should stand: its left edge, its middle height, and how wide it is. */
export interface PlacedLabel {
  readonly label: string;
  readonly x: number;
  readonly y: number;
  readonly width: number;
}

/** The least distance between the middles of two labels, one above the other. */
const LINE_HEIGHT = 13;

/** Moves labels up and down until none covers another, in the order in which they lie, between `top` and `bottom`. */
export function placeLabels<T extends PlacedLabel>(labels: readonly T[], top: number, bottom: number): T[] {
  const placed: T[] = [];
  const sorted = [...labels].sort((a, b) => a.y - b.y);
  for (const group of columns(sorted)) placed.push(...spread(group, top + 6, bottom - 4));
  return placed;
}

/** Labels that share some column of the drawing, together; those of a group keep their order. */
function columns<T extends PlacedLabel>(sorted: readonly T[]): T[][] {
  const groups: T[][] = [];
  for (const label of sorted) {
    const near = groups.filter((group) => group.some((other) => meet(label, other)));
    const rest = groups.filter((group) => !near.includes(group));
    groups.splice(
      0,
      groups.length,
      ...rest,
      [...near.flat(), label].sort((a, b) => a.y - b.y),
    );
  }
  return groups;
}

const meet = (a: PlacedLabel, b: PlacedLabel): boolean => a.x < b.x + b.width && b.x < a.x + a.width;

/** From the top down each as near to its place as the one above allows; then from the bottom up. */
function spread<T extends PlacedLabel>(labels: readonly T[], top: number, bottom: number): T[] {
  const ys = labels.map(({ y }) => y);
  // Clusters of labels that touch are centred on where their members wanted to be.
  const clusters: { sum: number; count: number; begin: number }[] = [];
  for (const y of ys) {
    clusters.push({ sum: y, count: 1, begin: y });
    for (let last = clusters.length - 1; last > 0; last--) {
      const [above, below] = [clusters[last - 1], clusters[last]];
      if (above.begin + above.count * LINE_HEIGHT <= below.begin) break;
      const merged = { sum: above.sum + below.sum, count: above.count + below.count };
      const begin = merged.sum / merged.count - ((merged.count - 1) * LINE_HEIGHT) / 2;
      clusters.splice(last - 1, 2, { ...merged, begin });
    }
  }
  const placed = clusters.flatMap(({ begin, count }) =>
    Array.from({ length: count }, (_, i) => begin + i * LINE_HEIGHT),
  );
  const overTop = Math.max(0, top - placed[0]);
  const underBottom = Math.max(0, placed[placed.length - 1] + overTop - bottom);
  return labels.map((label, i) => ({ ...label, y: placed[i] + overTop - underBottom }));
}

type Place = { readonly x: number; readonly y: number };

/** Whether a label covers a part of one of the lines, each given by its corners from left to right. */
export function liesOnAny({ x, y, width }: PlacedLabel, lines: readonly (readonly Place[])[]): boolean {
  const [above, below] = [y - LINE_HEIGHT / 2, y + LINE_HEIGHT / 2];
  return lines.some((line) =>
    line.slice(1).some((to, i) => {
      const from = line[i];
      const [left, right] = [Math.max(x, from.x), Math.min(x + width, to.x)];
      if (left >= right) return false;
      const at = (column: number): number => from.y + ((to.y - from.y) * (column - from.x)) / (to.x - from.x);
      return Math.min(at(left), at(right)) < below && Math.max(at(left), at(right)) > above;
    }),
  );
}
