import { OptionError } from './errors.ts';
import { type IntegerVector, readIntegers } from './options.ts';
import type { AttentionProblem } from './problem.ts';
import { type Run, sliceProblem } from './problem-slice.ts';

/** Which rows of the attention matrix a call is about; the options of attentionWeights and attentionStats. */
export interface RowSelection {
  /** Which query rows the result has, in this order; all by default. */
  readonly queries?: IntegerVector | null;
  /** Which query heads the result has, in this order; all by default. */
  readonly heads?: IntegerVector | null;
}

/** A selection as it was given: null where all are meant. */
export interface GivenSelection {
  readonly queries: ArrayLike<number> | null;
  readonly heads: ArrayLike<number> | null;
}

/**
 * The lists of a selection. They are read before the tensors are, which say how long they may be: a list may be a tensor of
 * another library, and its getters could write to q, k or v after those were checked.
 */
export function readSelection(caller: string, { queries, heads }: RowSelection): GivenSelection {
  const read = (name: 'queries' | 'heads', value: unknown): ArrayLike<number> | null =>
    value === undefined || value === null ? null : readIntegers(caller, name, value, -1);
  return { queries: read('queries', queries), heads: read('heads', heads) };
}

/** Indices below `length`, in the caller's order; all of them where none are given. */
export function selectedOf(
  caller: string,
  name: 'queries' | 'heads',
  indices: ArrayLike<number> | null,
  length: number,
): ArrayLike<number> {
  if (indices === null) return Array.from({ length }, (_, index) => index);
  for (let n = 0; n < indices.length; n++) {
    if (indices[n] >= 0 && indices[n] < length) continue;
    throw new OptionError(
      `${caller}: ${name} must be indices from 0 to ${length - 1}; element ${n} is ${indices[n]}; there are ${length}`,
    );
  }
  return indices;
}

/** A part of a selection that is a problem of its own, and where its first head and row stand in the result. */
export interface SelectedPart {
  readonly problem: AttentionProblem;
  readonly headAt: number;
  readonly rowAt: number;
}

/**
 * The selected heads and queries of sequence b, in as few problems as runs of neighbours allow. Nothing else is read.
 * `queries` count from row `origin`; those that are no rows of the sequence are passed over.
 */
export function* selectedParts(
  problem: AttentionProblem,
  b: number,
  heads: ArrayLike<number>,
  queries: ArrayLike<number>,
  origin = 0,
): Generator<SelectedPart> {
  const { groupSize, numHeads } = problem;
  const { qLen } = problem.sequences[b];
  const group = (h: number): number => Math.floor(h / groupSize);
  const neighbours = runsOf(heads, () => true);
  const areAll = neighbours.length === 1 && neighbours[0].run.end - neighbours[0].run.begin === numHeads;
  const headRuns = areAll ? neighbours : runsOf(heads, (a, b) => group(a) === group(b));
  const isRow = (query: number): boolean => query >= origin && query < origin + qLen;
  for (const { at: rowAt, run: rows } of runsOf(queries, (a, b) => isRow(a) === isRow(b))) {
    if (!isRow(rows.begin)) continue;
    for (const { at: headAt, run } of headRuns) {
      const part = { heads: run, queries: { begin: rows.begin - origin, end: rows.end - origin } };
      yield { problem: sliceProblem(problem, b, part), headAt, rowAt };
    }
  }
}

/** Runs of consecutive indices whose neighbours `belong` together, and the place of the first of each in the list. */
function runsOf(
  indices: ArrayLike<number>,
  belong: (a: number, b: number) => boolean,
): { readonly at: number; readonly run: Run }[] {
  const runs: { at: number; run: { begin: number; end: number } }[] = [];
  for (let n = 0; n < indices.length; n++) {
    const index = indices[n];
    const last = runs.at(-1)?.run;
    if (last !== undefined && index === last.end && belong(index - 1, index)) last.end++;
    else runs.push({ at: n, run: { begin: index, end: index + 1 } });
  }
  return runs;
}
