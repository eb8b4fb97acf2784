/**
 * Prints a tensor as NumPy 2 prints an array under its default options: `numpy.array_repr`. The structure
 * follows numpy/_core/arrayprint.py (FloatingFormat, _formatArray), so that the two can be read side by side.
 */
import { DTYPES, type DType } from './dtype.ts';
import { decodeElement, encoderOf } from './tensor-convert.ts';
import { checkExtent, type TensorLayout } from './tensor-layout.ts';

// NumPy's print options, at their defaults.
const precision = 8;
const threshold = 1000;
const edgeItems = 3;
const lineWidth = 75;
/** Elements of many axes are too many to show, even a few of each: NumPy prints millions of lines. */
const mostShown = 1e5;

type Format = (value: number) => string;

/** The indices of an axis that are shown; null stands for the ellipsis. */
function shownIndices(length: number, isSummary: boolean): (number | null)[] {
  const all = (count: number, first: number): number[] => Array.from({ length: count }, (_, i) => first + i);
  if (!isSummary || length <= 2 * edgeItems) return all(length, 0);
  return [...all(edgeItems, 0), null, ...all(edgeItems, length - edgeItems)];
}

/** The values that are shown, in order. */
function shownValues(t: TensorLayout, shown: (number | null)[][]): number[] {
  const values: number[] = [];
  const visit = (axis: number, position: number): void => {
    if (axis === t.shape.length) {
      values.push(decodeElement(t.dtype, t.data[position]));
      return;
    }
    for (const i of shown[axis]) if (i !== null) visit(axis + 1, position + i * t.strides[axis]);
  };
  visit(0, t.offset);
  return values;
}

/** Digits of every value that decide its dtype, for numpy.finfo(dtype).precision. */
const decimalDigits: Partial<Record<DType, number>> = { float32: 6, float16: 3, bfloat16: 2 };

/** Rounds a number to the dtype and back. */
function rounderOf(dtype: DType): (value: number) => number {
  if (dtype === 'float32') return Math.fround;
  const encode = encoderOf(dtype);
  return (value) => decodeElement(dtype, encode(value));
}

/** The digits of `value`, its sign aside, with `count` after the first, and the exponent of the first. */
function exactDigits(value: number, count: number): { digits: string; exponent: number } {
  const [mantissa, exponent] = halfEven(count, (digits) => Math.abs(value).toExponential(digits)).split('e');
  return { digits: mantissa.replace('.', ''), exponent: Number(exponent) };
}

/** The fewest digits that no other value of the dtype rounds to, and of these the nearest. */
function shortestDigits(
  value: number,
  round: (value: number) => number,
): { digits: string; exponent: number } {
  const magnitude = Math.abs(value);
  for (let count = 0; ; count++) {
    const nearest = exactDigits(magnitude, count);
    const scale = nearest.exponent - count;
    if (round(Number(`${nearest.digits}e${scale}`)) === magnitude) return nearest;
    // The gap below a power of two is half of the gap above: there the second nearest may do.
    const above = `${Number(nearest.digits) + 1}e${scale}`;
    if (round(Number(above)) === magnitude) return exactDigits(Number(above), count);
  }
}

const signOf = (value: number): string => (value < 0 || Object.is(value, -0) ? '-' : '');

/** Integer part (with the sign) and fraction without trailing zeros, cut to `precision` fraction digits. */
function positionalParts(value: number, round: (value: number) => number): [string, string] {
  const { digits, exponent } = shortestDigits(value, round);
  if (digits.length - 1 - exponent > precision) {
    const [whole, fraction] = halfEven(precision, (count) => Math.abs(value).toFixed(count)).split('.');
    return [signOf(value) + whole, fraction.replace(/0+$/, '')];
  }
  if (exponent < 0) return [`${signOf(value)}0`, ('0'.repeat(-exponent - 1) + digits).replace(/0+$/, '')];
  return [
    signOf(value) + digits.slice(0, exponent + 1).padEnd(exponent + 1, '0'),
    digits.slice(exponent + 1),
  ];
}

/**
 * The number that `render` (toFixed or toExponential) writes with `count` fraction digits, but with exact
 * ties to the even digit, as NumPy's dragon4 does; JavaScript takes the larger. 30 further zeros make a tie
 * exact: no float32 comes nearer to one.
 */
function halfEven(count: number, render: (count: number) => string): string {
  const rounded = render(count).split('e');
  const [mantissa, exponent] = render(count + 31).split('e');
  const isTie = mantissa.endsWith(`5${'0'.repeat(30)}`);
  if (!isTie || Number(rounded[0].at(-1)) % 2 === 0) return rounded.join('e');
  const cut = mantissa.slice(0, -31);
  return exponent === undefined ? cut : `${cut}e${exponent}`;
}

/** Whether NumPy would choose the exponent form: by size and spread of the finite values that are not 0. */
function needsExponent(finite: readonly number[], dtype: DType, round: (value: number) => number): boolean {
  const magnitudes = finite.filter((value) => value !== 0).map(Math.abs);
  if (magnitudes.length === 0) return false;
  const largest = magnitudes.reduce((a, b) => Math.max(a, b));
  const smallest = magnitudes.reduce((a, b) => Math.min(a, b));
  const cutoff = 10 ** Math.min(8, decimalDigits[dtype]!);
  return largest >= cutoff || smallest < round(0.0001) || round(largest / smallest) > 1000;
}

/** Widest of the texts. */
const widest = (texts: readonly string[]): number =>
  texts.reduce((width, text) => Math.max(width, text.length), 0);

function floatFormat(values: readonly number[], dtype: DType): Format {
  const round = rounderOf(dtype);
  const finite = values.filter(Number.isFinite);
  const isExponential = needsExponent(finite, dtype, round);
  let left = 0;
  let right = 0;
  let fractionDigits = 0;
  let exponentDigits = 0;
  if (isExponential) {
    const parts = finite.map((value) => shortestDigits(value, round));
    fractionDigits = widest(parts.map((part) => part.digits.slice(1).replace(/0+$/, '')));
    exponentDigits = Math.max(2, widest(parts.map((part) => String(Math.abs(part.exponent)))));
    left = widest(finite.map((value) => `${signOf(value)}0`));
    right = exponentDigits + 2 + fractionDigits;
  } else {
    const parts = finite.map((value) => positionalParts(value, round));
    left = widest(parts.map((part) => part[0]));
    right = widest(parts.map((part) => part[1]));
  }
  if (finite.length < values.length) {
    const infinityWidth = values.includes(-Infinity) ? 4 : 3;
    left = Math.max(left, 3 - right - 1, infinityWidth - right - 1);
  }
  return (value) => {
    if (!Number.isFinite(value)) {
      return (Number.isNaN(value) ? 'nan' : value < 0 ? '-inf' : 'inf').padStart(left + right + 1);
    }
    if (!isExponential) {
      const [whole, fraction] = positionalParts(value, round);
      return `${whole.padStart(left)}.${fraction.padEnd(right)}`;
    }
    // Every value shows as many digits as the one that needs most, exact ones.
    const shortest = shortestDigits(value, round);
    const { digits, exponent } =
      shortest.digits.length > fractionDigits ? shortest : exactDigits(value, fractionDigits);
    const whole = (signOf(value) + digits[0]).padStart(left);
    const power = String(Math.abs(exponent)).padStart(exponentDigits, '0');
    return `${whole}.${digits.slice(1)}e${exponent < 0 ? '-' : '+'}${power}`;
  };
}

function formatOf(values: readonly number[], dtype: DType, rank: number): Format {
  if (dtype === 'bool') return (value) => (value === 0 ? 'False' : rank > 0 ? ' True' : 'True');
  if (DTYPES[dtype].isFloat) return floatFormat(values, dtype);
  const width = widest(values.map(String));
  return (value) => String(value).padStart(width);
}

/** The nested brackets, rows wrapped at `lineWidth`. `words` yields the shown elements in order. */
function formatNested(shown: (number | null)[][], words: Iterator<string>): string {
  const rank = shown.length;
  const nest = (axis: number, indent: string, width: number): string => {
    if (axis === rank) return words.next().value;
    if (axis === rank - 1) return formatRow(shown[axis], words, indent, width - 1);
    const separator = `,${'\n'.repeat(rank - axis - 1)}${indent}`;
    const parts = shown[axis].map((i) => (i === null ? '...' : nest(axis + 1, `${indent} `, width - 1)));
    return `[${parts.join(separator)}]`;
  };
  // 'array(' and '[' stand before the first element; ')' after the last.
  return nest(0, ' '.repeat(7), lineWidth - 1);
}

/** One row; `width` is what fits before the separator. */
function formatRow(shown: (number | null)[], words: Iterator<string>, indent: string, width: number): string {
  let text = '';
  let line = indent;
  shown.forEach((i, position) => {
    const word: string = i === null ? '...' : words.next().value;
    if (line.length + word.length > width && line.length > indent.length) {
      text += `${line.trimEnd()}\n`;
      line = indent;
    }
    line += word + (position < shown.length - 1 ? ', ' : '');
  });
  return `[${(text + line).slice(indent.length)}]`;
}

/** A tuple as Python writes it. */
const formatTuple = (shape: readonly number[]): string =>
  `(${shape.join(', ')}${shape.length === 1 ? ',' : ''})`;

/** The tensor as `numpy.array_repr` prints it: more than 1000 elements show 3 at each end of a long axis. */
export function formatTensor(t: TensorLayout): string {
  const shape = `shape=${formatTuple(t.shape)}`;
  const dtype = `dtype=${t.dtype}`;
  try {
    checkExtent('print: shape', t);
  } catch {
    return `array(<detached>, ${shape}, ${dtype})`; // printing is for finding out, and must not throw
  }
  const isSummary = t.size > threshold;
  const shown = t.size === 0 ? [] : t.shape.map((length) => shownIndices(length, isSummary));
  if (shown.reduce((count, indices) => count * indices.length, 1) > mostShown)
    return `array(<of too many axes>, ${shape}, ${dtype})`;
  const values = t.size === 0 ? [] : shownValues(t, shown);
  const format = formatOf(values, t.dtype, t.shape.length);
  const body = t.size === 0 ? '[]' : formatNested(shown, values.map(format).values());

  const extras: string[] = [];
  if (isSummary || (t.size === 0 && t.shape.length !== 1)) extras.push(shape);
  if (t.dtype !== 'bool' || t.size === 0) extras.push(dtype);
  if (extras.length === 0) return `array(${body})`;
  const text = `array(${body},`;
  const tail = `${extras.join(', ')})`;
  const lastLine = text.length - (text.lastIndexOf('\n') + 1);
  return text + (lastLine + tail.length + 1 > lineWidth ? `\n${' '.repeat(6)}` : ' ') + tail;
}
