/**
 * Exact scaled-dot-product attention for Node.js on the CPU.
 *
 * ```ts
 * import { attention, Tensor } from 'node-sdpa';
 *
 * const q = Tensor.randn([1, 32, 512, 128]);
 * const k = Tensor.randn([1, 8, 512, 128]);
 * const v = Tensor.randn([1, 8, 512, 128]);
 * const out = attention(q, k, v, { causal: true }); // [1, 32, 512, 128]
 * ```
 *
 * @module
 */
export { type AttentionResult, attention, attentionAsync, referenceAttention } from './attention.ts';
export {
  type AttentionStats,
  type AttentionStatsOptions,
  type AttentionStatsWithMass,
  attentionStats,
} from './attention-stats.ts';
export { type AttentionWeightsOptions, attentionWeights, type WeightsStage } from './attention-weights.ts';
export type { BackendChoice } from './backend.ts';
export { type BackendInfo, backendInfo, getNumThreads, setNumThreads } from './backend-info.ts';
export type { ReadableFile, WritableFile } from './byte-file.ts';
export type { CacheFile, CacheLoadOptions } from './cache-file.ts';
export { type CompareOptions, compareAttention, type Report, type Verdict } from './compare-attention.ts';
export type { DType, TensorData } from './dtype.ts';
export type { ErrorSummary, Tolerance } from './error-summary.ts';
export {
  CapacityError,
  DisposedError,
  DTypeError,
  type ErrorCode,
  NativeLoadError,
  OptionError,
  SdpaError,
  ShapeError,
} from './errors.ts';
export { readNpy, readNpyFrom, writeNpy, writeNpyTo } from './formats/npy.ts';
export type { ReadOptions } from './formats/reading.ts';
export {
  type NamedTensors,
  readSafetensors,
  type Safetensors,
  type SafetensorsReadOptions,
  writeSafetensors,
  writeSafetensorsTo,
} from './formats/safetensors.ts';
export { openSafetensors, type SafetensorsFile, type TensorReadOptions } from './formats/safetensors-file.ts';
export type { SafetensorsEntry } from './formats/safetensors-header.ts';
export {
  type AppendOptions,
  type CacheAttentionAsyncOptions,
  type CacheAttentionOptions,
  type CacheResult,
  type CacheStepAsyncOptions,
  type CacheStepOptions,
  KVCache,
  type KVCacheOptions,
} from './kv-cache.ts';
export { type MemoryInfo, memoryInfo } from './memory-info.ts';
export { type AttentionPart, mergeAttention } from './merge-attention.ts';
export { alibiSlopes } from './modules/alibi.ts';
export {
  type CacheDType,
  describeModel,
  kvCacheBytes,
  type LayerDescription,
  type ModelDescription,
} from './modules/describe-model.ts';
export type { LayerKind } from './modules/model-layers.ts';
export type { AttentionParameters } from './modules/model-parameters.ts';
export type { RopeDescription } from './modules/model-rope.ts';
export { PRESETS, presetConfig, presetNames } from './modules/presets.ts';
export { type RopeOptions, type RopeTableOptions, rope, ropeTables } from './modules/rope.ts';
export type { RopeScaling } from './modules/rope-scaling.ts';
export type {
  AttentionAsyncOptions,
  AttentionOptions,
  AttentionWindow,
  FloatVector,
  IntegerVector,
} from './options.ts';
export type { RowSelection } from './selection.ts';
export { type NestedArray, Tensor, type TensorOptions } from './tensor.ts';
export type { ForeignTensor, TensorLike } from './tensor-like.ts';
