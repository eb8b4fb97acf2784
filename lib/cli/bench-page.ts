import type { CacheDType, ModelDescription } from '../modules/describe-model.ts';
import type { PeerReport } from './onnx/peers.ts';
import { type KvRow, kvRow } from './plan-run.ts';

/** GFLOP/s of fused multiply-adds and of products of bfloat16 tiles (null: the ISA has none), GB/s of a plain read. */
export interface CeilingRates {
  readonly fma: number;
  readonly tile: number | null;
  readonly read: number;
}

/** What a page shows beside the tables; plain data. */
export interface BenchPage {
  /** Bytes of keys and values by dtype and context; empty of a model that keeps none. */
  readonly kv: readonly KvRow[];
  /** null where they were not measured. */
  readonly ceilings: CeilingRates | null;
  readonly peers: PeerReport;
}

const DTYPES: readonly CacheDType[] = ['float32', 'float16', 'bfloat16', 'int8'];
const SHORTEST = 512;
const DEFAULT_LONGEST = 32768;

/** From 512 tokens to the longest context of the model, or of the run, each twice the one before. */
export function kvCurve(model: ModelDescription, contexts: readonly number[]): KvRow[] {
  if (!model.causal) return [];
  const longest = Math.max(model.maxPosition ?? DEFAULT_LONGEST, ...contexts);
  const lengths: number[] = [];
  for (let length = Math.min(SHORTEST, longest); length <= longest; length *= 2) lengths.push(length);
  return DTYPES.flatMap((dtype) => lengths.map((context) => kvRow(model, dtype, context)));
}
