import type { AttentionProblem } from './problem.ts';
import type { Tensor } from './tensor.ts';

/** Indices from `begin` up to `end`, exclusive. */
export interface Run {
  readonly begin: number;
  readonly end: number;
}

/** What {@link sliceProblem} keeps of a sequence; all of an axis that is not given. */
export interface ProblemSlice {
  /** Query heads of one group, or of whole groups. */
  readonly heads?: Run;
  /** Query rows and keys, counted from the sequence's first. */
  readonly queries?: Run;
  readonly keys?: Run;
}

/**
 * A part of sequence b as a dense problem of its own, of batch 1: views of the same tensors, whose scores are those of
 * the whole. Positions count from the first key that is kept. `out` is null.
 */
export function sliceProblem(
  problem: AttentionProblem,
  b: number,
  { heads, queries, keys }: ProblemSlice,
): AttentionProblem {
  const { batch, qBegin, qLen, kvBegin, kvLen, queryOffset } = problem.sequences[b];
  const h = heads ?? { begin: 0, end: problem.numHeads };
  const i = queries ?? { begin: 0, end: qLen };
  const j = keys ?? { begin: 0, end: kvLen };
  const kvHeads = {
    begin: Math.floor(h.begin / problem.groupSize),
    end: Math.ceil(h.end / problem.groupSize),
  };
  const numKvHeads = kvHeads.end - kvHeads.begin;
  const [numHeads, rows, count] = [h.end - h.begin, i.end - i.begin, j.end - j.begin];
  const cutKeys = (x: Tensor | null): Tensor | null =>
    x && cut(x, [at(batch), kvHeads, { begin: kvBegin + j.begin, end: kvBegin + j.end }]);
  const cutScores = (x: Tensor | null): Tensor | null => x && cut(x, [at(b), h, i, j]);
  return {
    ...problem,
    numSequences: 1,
    numHeads,
    numKvHeads,
    groupSize: numHeads / numKvHeads,
    qLen: rows,
    kvLen: count,
    q: cut(problem.q, [at(batch), h, { begin: qBegin + i.begin, end: qBegin + i.end }]),
    k: cutKeys(problem.k),
    v: cutKeys(problem.v),
    sequences: [
      {
        batch: 0,
        qBegin: 0,
        qLen: rows,
        kvBegin: 0,
        kvLen: count,
        queryOffset: queryOffset + i.begin - j.begin,
      },
    ],
    sinkTokens: Math.max(0, problem.sinkTokens - j.begin),
    mask: cutScores(problem.mask),
    bias: cutScores(problem.bias),
    alibiSlopes: problem.alibiSlopes && cut(problem.alibiSlopes, [at(b), h]),
    sinks: problem.sinks && cut(problem.sinks, [h]).contiguous(),
    outShape: [1, numHeads, rows, problem.valueDim],
    lseShape: [1, numHeads, rows],
    out: null,
  };
}

const at = (index: number): Run => ({ begin: index, end: index + 1 });

/** The runs of the first axes of x, as a view. */
export function cut(x: Tensor, runs: readonly Run[]): Tensor {
  return runs.reduce((part, { begin, end }, axis) => part.slice(axis, begin, end), x);
}
