/** Rows of cells as lines of text: the first `numLabels` columns to the left, numbers to the right, two spaces between. */
export function formatTable(
  head: readonly string[],
  rows: readonly (readonly string[])[],
  numLabels = 1,
): string[] {
  const widths = head.map((name, j) => Math.max(name.length, ...rows.map((row) => row[j].length)));
  return [head, ...rows].map((row) =>
    row
      .map((cell, j) => (j < numLabels ? cell.padEnd(widths[j]) : cell.padStart(widths[j])))
      .join('  ')
      .trimEnd(),
  );
}

/** Three significant digits without an exponent, from 1000 on none after the point; '-' where there is no number. */
export function formatNumber(x: number | null): string {
  if (x === null || !Number.isFinite(x)) return '-';
  if (Math.abs(x) >= 1000) return x.toFixed(0);
  // toPrecision rounds 999.7 to '1.00e+3'.
  const text = x.toPrecision(3);
  return text.includes('e') ? String(Number(text)) : text;
}

/** 0.853 as '85%'; '-' where there is no number. */
export function formatShare(x: number | null): string {
  return x === null || !Number.isFinite(x) ? '-' : `${(100 * x).toFixed(0)}%`;
}
