import type { TensorData } from '../dtype.ts';

/** What a native call returns: 0 done, 1 cancelled, 2 out of memory. */
export type Status = 0 | 1 | 2;

/** What crosses for a tensor: its typed array, or null where the call has none. */
export type Operand = TensorData | null;

/** The tensors of a problem, in the order they cross. k and v are null where a cache holds them. */
export type Operands = readonly [
  q: Operand,
  k: Operand,
  v: Operand,
  out: Operand,
  lse: Operand,
  mask: Operand,
  bias: Operand,
  alibiSlopes: Operand,
  sinks: Operand,
];

/** The exports of the addon (native/binding/addon.cc): the whole contract between the two languages. */
export interface Addon {
  /** Names of the scalars and of the per-sequence fields of an encoded problem, in wire order. */
  readonly problemFields: readonly string[];
  readonly sequenceFields: readonly string[];

  attention(problem: Float64Array, ...operands: Operands): Status;
  /** As attention, off the event loop. `id` is the number by which cancelAsync knows the call. */
  attentionAsync(problem: Float64Array, ...operandsAndId: [...Operands, id: number]): Promise<Status>;
  /** Ends the call with the status 1: at once if it still waits for a thread, else soon. */
  cancelAsync(id: number): void;
  /**
   * Whether the memory of an ArrayBuffer can be kept in place during an asynchronous call; where not, the call works on
   * copies. For tests, `enabled` false makes this process do without.
   */
  pinsMemory(enabled?: boolean): boolean;

  /**
   * Statistics of the weights, [B, numHeads, Lq] each, laid out as lse is. out and v are left out: valueDim is 0.
   * massWindow: left, right and sinkTokens of the window whose mass is wanted, or null as windowMass is.
   */
  attentionStats(
    problem: Float64Array,
    ...operandsAndResults: [
      ...Operands,
      entropy: Operand,
      maxWeight: Operand,
      argmax: Operand,
      windowMass: Operand,
      massWindow: Float64Array | null,
    ]
  ): Status;

  /**
   * layout: batch, numKvHeads, headDim, valueDim, dtype code, maxLength (0 = unbounded), window (0 = none), sinkTokens. With
   * another cache of that layout: an independent continuation of it.
   */
  readonly KvCache: new (
    layout: Float64Array,
    parent?: NativeCache,
  ) => NativeCache;

  /**
   * One step of many caches (native/binding/step_all_binding.h): cache i takes the first tokens[i] of entry i of k and v,
   * sequence i of the problem attends to it. 2, with nothing appended anywhere: no room.
   */
  stepAll(
    caches: readonly NativeCache[],
    tokens: Float64Array,
    layout: Float64Array,
    k: TensorData,
    v: TensorData,
    problem: Float64Array,
    ...operands: Operands
  ): Status;

  /** Of all native caches of this process: how many, bytes held, the most that was held. */
  cacheMemory(): [caches: number, bytes: number, peakBytes: number];

  /** ISAs that this machine runs, best first; the one in use; choosing another (false: the machine lacks it). */
  isas(): string[];
  activeIsa(): string;
  selectIsa(isa: string): boolean;
  features(): string[];
  cpuBrand(): string;

  getNumThreads(): number;
  setNumThreads(numThreads: number): void;
  availableCores(): number;

  /** FLOPs done by `iterations` rounds of independent FMA chains on each of `threads` threads; the caller times it. */
  fmaProbe(iterations: number, threads: number): number;
  /** As fmaProbe for products of bfloat16 tiles, on random data; 0 where the ISA in use has none. */
  tileProbe(iterations: number, threads: number): number;
  /** Sums a buffer on `threads` threads; the caller times it. */
  readProbe(data: Float32Array, threads: number): number;
}

/** Cache memory in the addon (native/binding/kv_cache_binding.h). */
export interface NativeCache {
  /** layout: tokens, then offset and batch, head, row strides in elements of k, then of v. False: no room. */
  append(layout: Float64Array, k: TensorData, v: TensorData): boolean;
  /** append in two parts; between them, truncate to the length before leaves no trace. */
  appendRevocably(layout: Float64Array, k: TensorData, v: TensorData): boolean;
  confirmAppend(): void;
  attend(problem: Float64Array, ...operands: Operands): Status;
  step(
    layout: Float64Array,
    k: TensorData,
    v: TensorData,
    problem: Float64Array,
    ...operands: Operands
  ): Status;
  /** Whether the cache can hold these rows: one of int8, finite numbers. */
  holds(layout: Float64Array, k: TensorData, v: TensorData): boolean;
  repeater(): RepeatStep;
  attendAsync(problem: Float64Array, ...operandsAndId: [...Operands, id: number]): Promise<Status>;
  truncate(length: number): void;
  /** Of the tokens from `begin` on keeps those at begin + indices[i], in that order. False: no room. */
  keep(begin: number, indices: Float64Array): boolean;
  keptBegin(): number;
  /** Copies keys (0) or values (1) of tokens [0, sinkEnd) and [begin, length), contiguous. */
  copyRows(which: 0 | 1, out: TensorData, sinkEnd: number, begin: number): void;
  /** An empty cache becomes one of `length` tokens, those from sinkTokens up to keptBegin gone. False: no room. */
  restore(keptBegin: number, length: number): boolean;
  /** Keys (0) or values (1): rows from `first` on of [batch, numKvHeads, kept tokens], as many as `bytes` holds. */
  copyRowsOut(which: 0 | 1, first: number, bytes: Uint8Array): void;
  copyRowsIn(which: 0 | 1, first: number, bytes: Uint8Array): void;
  dispose(): void;
  length(): number;
  capacity(): number;
  byteLength(): number;
}

/**
 * Does the last step of a cache again, with other memory; the offsets count elements. False, with nothing changed, where
 * that step had more operands, where the memory does not hold the tensors, where q and out share some, or where the
 * cache has no room.
 */
export type RepeatStep = (
  q: TensorData,
  k: TensorData,
  v: TensorData,
  out: TensorData,
  qOffset: number,
  kOffset: number,
  vOffset: number,
  outOffset: number,
) => boolean;
