import type { AttentionCall, Backend, CacheLayout, CacheStorage, RowStorage } from './backend.ts';
import { keptTokens } from './cache-layout.ts';
import type { Tokens } from './cache-tokens.ts';
import { OptionError, ShapeError } from './errors.ts';
import type { AttentionProblem, SequenceView } from './problem.ts';
import { Tensor } from './tensor.ts';
import { checkFinite } from './tensor-int8.ts';

/**
 * The memory of a KVCache whose batch entries have different lengths: a cache of its own for each of them, all advanced in
 * one crossing (Backend.stepAll). So each entry truncates, forks and slides its window by itself.
 */
export class RaggedStorage implements CacheStorage {
  /** Each entry has its own, at which truncate looks. */
  readonly keptBegin = 0;
  readonly #backend: Backend;
  readonly #layout: CacheLayout;
  readonly #entries: readonly CacheStorage[];
  /** Of each entry, the tokens of the newest append that are still there. */
  #newest: readonly number[];

  constructor(
    backend: Backend,
    layout: CacheLayout,
    entries: readonly CacheStorage[],
    newest: readonly number[],
  ) {
    this.#backend = backend;
    this.#layout = layout;
    this.#entries = entries;
    this.#newest = newest;
  }

  /**
   * What `storage`, whose entries all have one length, holds; copied once. It is left as it is.
   *
   * @throws OptionError where a window has dropped tokens already: positions would not stay
   */
  static from(backend: Backend, layout: CacheLayout, storage: CacheStorage, newest: number): RaggedStorage {
    const { batch, window } = layout;
    if (window > 0 && storage.length > window) {
      throw new OptionError(
        `KVCache: lengths that differ cannot begin once the window of ${window} has dropped tokens, at length ` +
          `${storage.length}; give lengths from the first append on`,
      );
    }
    const entries: CacheStorage[] = [];
    try {
      const [k, v] = [storage.keys(0, 0), storage.values(0, 0)];
      for (let b = 0; b < batch; b++) {
        entries.push(backend.createCache({ ...layout, batch: 1 }));
        if (storage.length > 0) entries[b].append(k.slice(0, b, b + 1), v.slice(0, b, b + 1));
      }
    } catch (error) {
      for (const entry of entries) entry.dispose();
      throw error;
    }
    return new RaggedStorage(
      backend,
      layout,
      entries,
      entries.map(() => newest),
    );
  }

  get length(): number {
    return this.lengths.reduce((longest, own) => Math.max(longest, own), 0);
  }

  get lengths(): Int32Array {
    return Int32Array.from(this.#entries, (entry) => entry.length);
  }

  /** Of each entry, the tokens of the newest append that are still there. */
  get newestOfEach(): readonly number[] {
    return this.#newest;
  }

  /** Tokens of the newest append that every entry still has. */
  get newest(): number {
    return smallest(this.#newest);
  }

  get capacity(): number {
    return smallest(this.#entries.map((entry) => entry.capacity));
  }

  get byteLength(): number {
    return this.#entries.reduce((bytes, entry) => bytes + entry.byteLength, 0);
  }

  append(k: Tensor, v: Tensor, counts: readonly number[] | null = null): void {
    this.appendRevocably(k, v, counts);
    this.confirmAppend();
  }

  appendRevocably(k: Tensor, v: Tensor, counts: readonly number[] | null = null): void {
    const before = this.lengths;
    const newest = this.#newest;
    const taken = counts ?? this.#all(k.shape[2]);
    try {
      this.#entries.forEach((entry, b) => {
        entry.appendRevocably(tokensOf(k, b, taken), tokensOf(v, b, taken));
      });
    } catch (error) {
      this.takeBack(before, newest);
      throw error;
    }
    this.#newest = taken;
  }

  confirmAppend(): void {
    for (const entry of this.#entries) entry.confirmAppend();
  }

  attend(problem: AttentionProblem, out: Tensor, lse: Tensor | null): void {
    const { numKvHeads, headDim, valueDim, batch, dtype } = this.#layout;
    const nothing = (dim: number): Tensor => Tensor.empty([batch, numKvHeads, 0, dim], { dtype });
    const call = { problem, out, lse };
    this.#backend.stepAll(this.#entries, this.#all(0), nothing(headDim), nothing(valueDim), call);
  }

  step(
    k: Tensor,
    v: Tensor,
    problem: AttentionProblem,
    out: Tensor,
    lse: Tensor | null,
    counts: readonly number[] | null = null,
  ): void {
    const taken = counts ?? this.#all(k.shape[2]);
    if (this.#layout.dtype === 'int8')
      taken.forEach((_, b) => {
        checkFinite(tokensOf(k, b, taken), tokensOf(v, b, taken));
      });
    this.#backend.stepAll(this.#entries, taken, k, v, { problem, out, lse });
    this.#newest = taken;
  }

  repeatStep(): boolean {
    return false;
  }

  async attendAsync(
    problem: AttentionProblem,
    out: Tensor,
    lse: Tensor | null,
    signal?: AbortSignal,
  ): Promise<void> {
    for (const [b, entry] of this.#entries.entries()) {
      const call = entryOf({ problem, out, lse }, b);
      await entry.attendAsync(call.problem, call.out, call.lse, signal);
    }
  }

  /** Each entry forgets what it has at and beyond `length`. */
  truncate(length: number): void {
    this.truncateEach(this.lengths.map((own) => Math.min(own, length)));
  }

  /** @throws OptionError, and nothing has changed, where an entry's window has dropped tokens from there on */
  truncateEach(lengths: ArrayLike<number>): void {
    this.#entries.forEach(({ keptBegin }, b) => {
      if (lengths[b] >= keptBegin) return;
      throw new OptionError(
        `KVCache.truncate: tokens before ${keptBegin} of batch entry ${b} have left the window of ${this.#layout.window}; ` +
          `got length ${lengths[b]}`,
      );
    });
    this.#newest = this.#newest.map((count, b) =>
      Math.max(0, count - Math.max(0, this.#entries[b].length - lengths[b])),
    );
    this.#entries.forEach((entry, b) => {
      entry.truncate(lengths[b]);
    });
  }

  /** Undoes an append that is not confirmed. */
  takeBack(lengths: ArrayLike<number>, newest: readonly number[]): void {
    this.truncateEach(lengths);
    this.#newest = newest;
  }

  /** Of each entry's newest tokens; where those begin depends on the entry. */
  keep(_begin: number, indices: readonly number[]): void {
    this.#entries.forEach((entry, b) => {
      entry.keep(entry.length - this.#newest[b], indices);
    });
    this.#newest = this.#all(indices.length);
  }

  fork(): CacheStorage {
    const forks = this.#entries.map((entry) => entry.fork());
    return new RaggedStorage(this.#backend, this.#layout, forks, this.#newest);
  }

  /** Entry b in the first rows of its own; the rest is zero. */
  keys(): Tensor {
    return this.#padded(this.#layout.headDim, (entry, sinkEnd, begin) => entry.keys(sinkEnd, begin));
  }

  values(): Tensor {
    return this.#padded(this.#layout.valueDim, (entry, sinkEnd, begin) => entry.values(sinkEnd, begin));
  }

  rowStorages(): readonly RowStorage[] {
    return this.#entries.flatMap((entry) => entry.rowStorages());
  }

  dispose(): void {
    for (const entry of this.#entries) entry.dispose();
  }

  #all(count: number): readonly number[] {
    return this.#entries.map(() => count);
  }

  #padded(dim: number, rowsOf: (entry: CacheStorage, sinkEnd: number, begin: number) => Tensor): Tensor {
    const { numKvHeads } = this.#layout;
    const each = this.#entries.map((entry) => {
      const { sinkEnd, begin } = keptTokens(this.#layout, entry);
      return rowsOf(entry, sinkEnd, begin);
    });
    const longest = each.reduce((most, rows) => Math.max(most, rows.shape[2]), 0);
    const padded = Tensor.zeros([each.length, numKvHeads, longest, dim], { dtype: each[0].dtype });
    each.forEach((rows, b) => {
      const size = rows.shape[2] * dim;
      for (let h = 0; h < numKvHeads; h++) {
        padded.data.set(rows.data.subarray(h * size, (h + 1) * size), (b * numKvHeads + h) * longest * dim);
      }
    });
    return padded;
  }
}

/** A list may be too long to be spread into arguments. */
const smallest = (list: readonly number[]): number => list.reduce((least, x) => Math.min(least, x), Infinity);

/** Of tokens for all entries, those that entry b takes. */
const tokensOf = (x: Tensor, b: number, taken: readonly number[]): Tensor =>
  x.slice(0, b, b + 1).slice(2, 0, taken[b]);

/** The call of batch entry b by itself. */
function entryOf({ problem, out, lse }: AttentionCall, b: number): AttentionCall {
  const only = (x: Tensor): Tensor => x.slice(0, b, b + 1);
  const ifGiven = (x: Tensor | null): Tensor | null => (x === null ? null : only(x));
  const sequence: SequenceView = { ...problem.sequences[b], batch: 0 };
  return {
    problem: {
      ...problem,
      numSequences: 1,
      sequences: [sequence],
      q: only(problem.q),
      mask: ifGiven(problem.mask),
      bias: ifGiven(problem.bias),
      alibiSlopes: ifGiven(problem.alibiSlopes),
    },
    out: only(out),
    lse: ifGiven(lse),
  };
}

/**
 * A step's problem in which entry b has counts[b] queries, those of the tokens that it takes, behind the tokens that it had.
 * The rows behind them are padding: {@link clearPadding}.
 */
export function withCounts(
  caller: string,
  problem: AttentionProblem,
  { counts, length, lengths }: Tokens,
  hasOffset: boolean,
): AttentionProblem {
  if (counts === null) return problem;
  const wrong = problem.sequences.findIndex(({ qLen }, b) => qLen < counts[b]);
  if (wrong >= 0) {
    throw new ShapeError(
      `${caller}: with lengths, q must have a row for each token; entry ${wrong} takes ${counts[wrong]} tokens, and q has ` +
        `${problem.qLen} rows`,
    );
  }
  const sequences = problem.sequences.map((sequence, b) => ({
    ...sequence,
    qLen: counts[b],
    queryOffset: hasOffset ? sequence.queryOffset : (lengths?.[b] ?? length) - counts[b],
  }));
  return Object.freeze({ ...problem, sequences });
}

/** Zeros in the rows of out, and -Infinity in those of lse, that belong to no query. */
export function clearPadding({ problem, out, lse }: AttentionCall): void {
  problem.sequences.forEach(({ batch, qLen }) => {
    for (let h = 0; h < problem.numHeads; h++) {
      for (let i = qLen; i < out.shape[2]; i++) {
        const at = (x: Tensor): number =>
          x.offset + batch * x.strides[0] + h * x.strides[1] + i * x.strides[2];
        out.data.fill(0, at(out), at(out) + out.shape[3]);
        if (lse !== null) lse.data[at(lse)] = -Infinity;
      }
    }
  });
}
