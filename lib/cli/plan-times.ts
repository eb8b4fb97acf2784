import type { CacheDType } from '../modules/describe-model.ts';
import type { ProductUnit } from './ceilings.ts';
import { cachedBytes, type LayerShape, visiblePairs, type Workload } from './workloads.ts';

/** A measured time. `amount` is what time goes with: pairs that prefill computes, bytes that decode reads. */
export interface RatePoint {
  readonly context: number;
  readonly amount: number;
  readonly seconds: number;
}

/** What was measured of one phase of a layer. */
export interface PhaseRates {
  /** From few tokens to many. Decode reads data that no cache of the processor holds. */
  readonly points: readonly RatePoint[];
  /** FLOP/s of the unit, or bytes/s of a plain read, beside the last point; null on the reference backend. */
  readonly ceiling: number | null;
  /** The share of the ceiling that the last point reached. */
  readonly share: number | null;
}

/** How fast this machine does one layer. */
export interface LayerRates {
  readonly dtype: CacheDType;
  readonly layer: string;
  readonly shape: LayerShape;
  /** `unit`: what does the products, 'FMA' or 'tile'; null on the reference backend. */
  readonly prefill: PhaseRates & { readonly unit: ProductUnit | null };
  /** null: the model does not decode. */
  readonly decode: PhaseRates | null;
}

/**
 * Pairs of one head that prefill computes: those that are visible, and half a tile more at each query, where a tile
 * lies across the edge of what is visible.
 */
const EDGE_PAIRS = 32;
const computedPairs = (workload: Workload): number => {
  const { context, causal, window } = workload;
  return visiblePairs(workload) + (causal || window < context ? EDGE_PAIRS * context : 0);
};

/** What the time of a workload goes with. */
export function amountOf(workload: Workload): number {
  return workload.phase === 'decode' ? cachedBytes(workload) : computedPairs(workload);
}

/** Seconds that one layer should take; NaN where the rates say nothing of the phase. */
export function predictSeconds(rates: LayerRates, workload: Workload): number {
  const points = (workload.phase === 'decode' ? rates.decode : rates.prefill)?.points;
  return points === undefined ? Number.NaN : secondsAt(points, amountOf(workload));
}

/**
 * On straight lines between the measured points: short steps cost more than their bytes, and bytes in the last-level
 * cache less than those in memory. Less than the first point costs what the first line says, but not less than its part
 * of that point; more than the last point goes on with the last line, between half its average and its average.
 */
function secondsAt(points: readonly RatePoint[], amount: number): number {
  const first = points[0];
  const last = points[points.length - 1];
  const average = last.seconds / last.amount;
  if (points.length === 1) return average * amount;
  const slopeTo = (n: number): number =>
    (points[n].seconds - points[n - 1].seconds) / (points[n].amount - points[n - 1].amount);
  if (amount < first.amount) {
    const onLine = first.seconds - slopeTo(1) * (first.amount - amount);
    return Math.min(first.seconds, Math.max(onLine, (first.seconds / first.amount) * amount));
  }
  if (amount > last.amount) {
    const slope = Math.min(average, Math.max(average / 2, slopeTo(points.length - 1)));
    return last.seconds + slope * (amount - last.amount);
  }
  const next = Math.max(
    1,
    points.findIndex((point) => amount <= point.amount),
  );
  return points[next].seconds - slopeTo(next) * (points[next].amount - amount);
}
