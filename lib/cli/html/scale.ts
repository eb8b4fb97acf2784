/** Where the values of an axis lie, and the values that it names. */
export interface Scale {
  readonly domain: readonly [number, number];
  /** 0 at the beginning of the domain, 1 at its end. */
  at(value: number): number;
  /** Ascending, within the domain. */
  readonly ticks: readonly number[];
}

/** Room that is left beyond the outermost values, as a share of the span. */
const PADDING = 0.05;

/** From 0 to a round number that no value passes, with at most `maxTicks` ticks. */
export function linearScale(values: readonly number[], maxTicks: number): Scale {
  const highest = Math.max(...usable(values));
  const step = niceStep(highest / (maxTicks - 1));
  const end = step * Math.max(1, Math.ceil(highest / step - 1e-9));
  const ticks = Array.from({ length: Math.round(end / step) + 1 }, (_, i) => roundOff(i * step));
  return { domain: [0, end], at: (value) => value / end, ticks };
}

/** The least of 1, 2, 5, 10, 20, ... that is not below `least`. */
function niceStep(least: number): number {
  const decade = 10 ** Math.floor(Math.log10(least));
  return decade * ([1, 2, 5].find((mantissa) => mantissa * decade >= least * (1 - 1e-9)) ?? 10);
}

/** 0.30000000000000004 is 0.3. */
const roundOff = (value: number): number => Number(value.toPrecision(12));

/** A span below this factor is widened, so that noise does not look like a slope. */
const MIN_FACTOR = { 2: 4, 10: 8 };

/**
 * Logarithmic: ticks at powers of two, or at 1, 2 and 5 times powers of ten, and fewer of them where those are more than
 * `maxTicks`. Values that are not positive have no place and are not looked at.
 */
export function logScale(values: readonly number[], base: 2 | 10, maxTicks: number): Scale {
  const positive = usable(values).filter((value) => value > 0);
  const known = positive.length === 0 ? [1] : positive;
  let [low, high] = [Math.log2(Math.min(...known)), Math.log2(Math.max(...known))];
  const missing = Math.max(0, Math.log2(MIN_FACTOR[base]) - (high - low));
  const room = missing / 2 + PADDING * (high - low + missing);
  [low, high] = [low - room, high + room];
  const domain = [2 ** low, 2 ** high] as const;
  const ticks = base === 2 ? binaryTicks(domain, maxTicks) : decimalTicks(domain, maxTicks);
  return { domain, at: (value) => (Math.log2(value) - low) / (high - low), ticks };
}

function usable(values: readonly number[]): number[] {
  const finite = values.filter(Number.isFinite);
  return finite.length > 0 && Math.max(...finite) > 0 ? finite : [1];
}

function binaryTicks([begin, end]: readonly [number, number], maxTicks: number): number[] {
  const [first, last] = [Math.ceil(Math.log2(begin)), Math.floor(Math.log2(end))];
  // Counted from the end, so that the longest context has its name.
  for (let step = 1; ; step++) {
    if (Math.floor((last - first) / step) >= maxTicks) continue;
    const ticks: number[] = [];
    for (let exponent = last; exponent >= first; exponent -= step) ticks.unshift(2 ** exponent);
    return ticks;
  }
}

function decimalTicks([begin, end]: readonly [number, number], maxTicks: number): number[] {
  const [first, last] = [Math.floor(Math.log10(begin)), Math.floor(Math.log10(end))];
  const within = (mantissas: readonly number[], step: number): number[] => {
    const decades = Array.from({ length: last - first + 1 }, (_, i) => first + i);
    return decades
      .filter((decade) => decade % step === 0)
      .flatMap((decade) => mantissas.map((mantissa) => Number(`${mantissa}e${decade}`)))
      .filter((value) => value >= begin && value <= end);
  };
  for (const mantissas of [
    [1, 2, 5],
    [1, 3],
  ]) {
    const ticks = within(mantissas, 1);
    if (ticks.length <= maxTicks) return ticks;
  }
  for (let step = 1; ; step++) {
    const ticks = within([1], step);
    if (ticks.length <= maxTicks) return ticks;
  }
}
