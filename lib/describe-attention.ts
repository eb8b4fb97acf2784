import { isFloatDType } from './dtype.ts';
import { DTypeError, ShapeError } from './errors.ts';
import { checkLimits } from './limits.ts';
import {
  ATTENTION_OPTIONS,
  type AttentionOptions,
  BACKENDS,
  type CacheAttentionOptions,
  checkOptions,
  readBoolean,
  readCount,
  readScale,
  readSoftcap,
  readWindow,
  readWord,
} from './options.ts';
import { checkOut } from './out-option.ts';
import type { AttentionProblem, KeyValueShape } from './problem.ts';
import { readAlibiSlopes, readBias, readCacheMask, readMask, readSinks } from './score-options.ts';
import { describeSequences } from './sequences.ts';
import { lastAxisContiguous, Tensor } from './tensor.ts';
import { formatShape } from './tensor-layout.ts';
import { asTensor, type TensorLike } from './tensor-like.ts';

const PRECISIONS: readonly AttentionProblem['precision'][] = ['highest', 'high', 'medium'];

/** q and what it attends to, each checked by itself and against the others; rank 4. */
interface Operands {
  readonly caller: string;
  /** The rank of the caller's tensors, 3 or 4. */
  readonly rank: number;
  readonly q: Tensor;
  readonly k: Tensor | null;
  readonly v: Tensor | null;
  readonly keys: KeyValueShape;
}

/**
 * The validated problem of `attention(q, k, v, options)`, every default resolved: the only validator there is.
 *
 * @param caller the public function, which begins every message
 * @param q [B, Hq, Lq, D]; k [B, Hkv, Lk, D]; v [B, Hkv, Lk, Dv]; or all of them without B; ragged batches
 *   (options.cuSeqlensQ and cuSeqlensK) q [Hq, totalQ, D], k and v [Hkv, totalK, ...]
 * @param names the names that `options` may have; those beyond `ATTENTION_OPTIONS` are the caller's to read
 * @throws ShapeError, DTypeError, OptionError
 */
export function describeAttention(
  caller: string,
  q: TensorLike,
  k: TensorLike,
  v: TensorLike,
  options?: AttentionOptions | null,
  names: readonly string[] = ATTENTION_OPTIONS,
): AttentionProblem {
  const checked = checkOptions(caller, 'options', options, names);
  return assemble(
    checkOperands(caller, asTensor(caller, 'q', q), asTensor(caller, 'k', k), asTensor(caller, 'v', v)),
    checked,
    false,
  );
}

/**
 * As {@link describeAttention}, for keys and values that a KVCache holds: `k` and `v` of the problem are null, and
 * `causal` is true where it is not given.
 *
 * @param keys what the cache holds, as seen by this call
 * @param options as readCacheOptions gives them; with kvLengths where batch entries differ
 */
export function describeCacheAttention(
  caller: string,
  q: TensorLike,
  keys: KeyValueShape,
  options: CacheAttentionOptions & Pick<AttentionOptions, 'kvLengths'>,
): AttentionProblem {
  return assemble(checkQuery(caller, asTensor(caller, 'q', q), keys), options, true);
}

function assemble(operands: Operands, options: AttentionOptions, causalByDefault: boolean): AttentionProblem {
  const { caller, rank, q, k, v, keys } = operands;
  // Sizes are those that were checked: a getter below may write others into q, of which a list would be made.
  const batch = q.shape[0];
  const numHeads = q.shape[1];
  const rows = q.shape[2];
  // Each property is read once: a getter must not answer the check and the use differently.
  const { scale, causal, queryOffset, window, kvLengths, mask, bias, alibiSlopes, softcap, sinks } = options;
  const { cuSeqlensQ, cuSeqlensK, precision, returnLse, out, threads, backend } = options;
  const { numKvHeads, headDim, valueDim } = keys;
  const { sequences, qLen, kvLen, maskKvLen, ragged } = describeSequences(
    { caller, rank, batch, qLen: rows, kvLen: keys.kvLen },
    { queryOffset, kvLengths, cuSeqlensQ, cuSeqlensK },
  );
  const { windowLeft, windowRight, sinkTokens } = readWindow(
    caller,
    window,
    readBoolean(caller, 'causal', causal, causalByDefault),
  );
  // Written out, here and below: to spread an object, or to slice a frozen list, costs more than all else of a small call.
  const target = { caller, numHeads, sequences, qLen, kvLen, maskKvLen, ragged };
  const lseShape = rank === 3 ? [numHeads, rows] : [batch, numHeads, rows];
  const scoreMask = causalByDefault ? readCacheMask(target, mask) : readMask(target, mask);
  const problem: AttentionProblem = {
    caller,
    numSequences: sequences.length,
    numHeads,
    numKvHeads,
    groupSize: numHeads / numKvHeads,
    headDim,
    valueDim,
    qLen,
    kvLen,
    q,
    k,
    v,
    sequences,
    scale: readScale(caller, scale, 1 / Math.sqrt(headDim)),
    softcap: readSoftcap(caller, softcap),
    windowLeft,
    windowRight,
    sinkTokens,
    mask: scoreMask,
    maskNewest: scoreMask !== null && scoreMask.shape[3] !== kvLen,
    bias: readBias(target, bias),
    alibiSlopes: readAlibiSlopes(target, alibiSlopes),
    sinks: readSinks(target, sinks),
    precision: readWord(caller, 'precision', precision, PRECISIONS),
    threads: readCount(caller, 'threads', threads, 1, 0),
    backend: readWord(caller, 'backend', backend, BACKENDS),
    returnLse: readBoolean(caller, 'returnLse', returnLse, false),
    outShape: [...lseShape, valueDim],
    lseShape,
    out: out === undefined || out === null ? null : asTensor(caller, 'out', out),
  };
  if (problem.out !== null) checkOut(caller, problem.out, problem);
  checkIntact(caller, { q, k, v });
  return Object.freeze(problem);
}

/** q, k and v of one call, each rank 4 in what comes back. */
function checkOperands(caller: string, q: Tensor, k: Tensor, v: Tensor): Operands {
  const rank = q.rank;
  if ((rank !== 3 && rank !== 4) || k.rank !== rank || v.rank !== rank) {
    throw new ShapeError(
      `${caller}: q, k and v must all have rank 4 [batch, heads, length, dim], or all rank 3 [heads, length, dim]; ` +
        shapes(q, k, v),
    );
  }
  if (q.dtype !== k.dtype || q.dtype !== v.dtype || !isFloatDType(q.dtype)) {
    throw new DTypeError(
      `${caller}: q, k and v must share one dtype of float32, float16, bfloat16; q ${q.dtype}, k ${k.dtype}, ` +
        `v ${v.dtype}; convert with .to('${isFloatDType(q.dtype) ? q.dtype : 'float32'}')`,
    );
  }
  const axis = rank - 4;
  if (k.shape[axis + 3] !== q.shape[axis + 3]) {
    throw new ShapeError(`${caller}: k.headDim must equal q.headDim; ${shapes(q, k)}`);
  }
  if (k.shape[axis + 1] !== v.shape[axis + 1] || k.shape[axis + 2] !== v.shape[axis + 2]) {
    throw new ShapeError(`${caller}: k and v must have the same heads and length; ${shapes(null, k, v)}`);
  }
  if (rank === 4 && (k.shape[0] !== q.shape[0] || v.shape[0] !== q.shape[0])) {
    throw new ShapeError(`${caller}: q, k and v must have the same batch size; ${shapes(q, k, v)}`);
  }
  checkHeads(caller, q, k.shape[axis + 1], () => `k ${formatShape(k.shape)}`);
  checkLimits(
    caller,
    {
      batch: rank === 3 ? 1 : q.shape[0],
      numHeads: q.shape[axis + 1],
      numKvHeads: k.shape[axis + 1],
      qLen: q.shape[axis + 2],
      kvLen: k.shape[axis + 2],
    },
    () => shapes(q, k, v),
  );
  checkReadable(caller, 'q', q);
  checkReadable(caller, 'k', k);
  checkReadable(caller, 'v', v);
  const k4 = rankFour(k);
  const v4 = rankFour(v);
  const keys: KeyValueShape = {
    batch: k4.shape[0],
    numKvHeads: k4.shape[1],
    kvLen: k4.shape[2],
    headDim: k4.shape[3],
    valueDim: v4.shape[3],
  };
  return { caller, rank, q: rankFour(q), k: k4, v: v4, keys };
}

/** q of a call on a cache. */
function checkQuery(caller: string, q: Tensor, keys: KeyValueShape): Operands {
  const { batch, numKvHeads, headDim } = keys;
  const cache = (): string => `the cache has batch ${batch}, numKvHeads ${numKvHeads}, headDim ${headDim}`;
  const rank = q.rank;
  if (rank !== 3 && rank !== 4) {
    throw new ShapeError(
      `${caller}: q must have rank 4 [batch, numHeads, qLen, headDim], or rank 3 without batch; ${shapes(q)}`,
    );
  }
  if (!isFloatDType(q.dtype)) {
    throw new DTypeError(
      `${caller}: q must be float32, float16 or bfloat16; q ${q.dtype}; convert with .to('float32')`,
    );
  }
  if (q.shape[rank - 1] !== headDim) {
    throw new ShapeError(`${caller}: q.headDim must equal that of the cache; ${shapes(q)}, ${cache()}`);
  }
  if ((rank === 3 ? 1 : q.shape[0]) !== batch) {
    throw new ShapeError(`${caller}: q must have the batch size of the cache; ${shapes(q)}, ${cache()}`);
  }
  checkHeads(caller, q, numKvHeads, cache);
  const sizes = {
    batch,
    numHeads: q.shape[rank - 3],
    numKvHeads,
    qLen: q.shape[rank - 2],
    kvLen: keys.kvLen,
  };
  checkLimits(caller, sizes, () => `${shapes(q)}, ${cache()}`);
  checkReadable(caller, 'q', q);
  return { caller, rank, q: rankFour(q), k: null, v: null, keys };
}

/** Numbers of heads that go together, and a headDim that has a scale. Zero-length batch, length and valueDim are legal. */
function checkHeads(caller: string, q: Tensor, numKvHeads: number, keys: () => string): void {
  const numHeads = q.shape[q.rank - 3];
  if (numHeads === 0 || numKvHeads === 0 || numHeads % numKvHeads !== 0) {
    throw new ShapeError(
      `${caller}: q.numHeads must be a positive multiple of k.numKvHeads; ${numHeads} and ${numKvHeads}: ` +
        `${shapes(q)}, ${keys()}; the heads axis is the third from the last (use .transpose(1, 2) for [B, L, H, D])`,
    );
  }
  if (q.shape[q.rank - 1] === 0) {
    throw new ShapeError(`${caller}: headDim must be at least 1; ${shapes(q)}`);
  }
}

/** That no getter of an option has written to the fields of a tensor that had been checked before. */
function checkIntact(caller: string, operands: Pick<Operands, 'q' | 'k' | 'v'>): void {
  for (const name of ['q', 'k', 'v'] as const) {
    const x = operands[name];
    if (x === null || Tensor.isIntact(x)) continue;
    throw new ShapeError(
      `${caller}: a getter of an argument changed the fields of ${name} while it was read; read it before the call`,
    );
  }
}

/** What can be read in place. (That it still is there, asTensor has checked.) */
function checkReadable(caller: string, name: string, x: Tensor): void {
  if (!lastAxisContiguous(x)) {
    throw new ShapeError(
      `${caller}: the last axis of ${name} must be contiguous; ${name} ${formatShape(x.shape)} with strides ` +
        `${formatShape(x.strides)}; pass ${name}.contiguous()`,
    );
  }
}

function rankFour(x: Tensor): Tensor {
  return x.rank === 4 ? x : x.unsqueeze(0);
}

function shapes(q: Tensor | null, k?: Tensor, v?: Tensor): string {
  const list: string[] = [];
  if (q) list.push(`q ${formatShape(q.shape)}`);
  if (k) list.push(`k ${formatShape(k.shape)}`);
  if (v) list.push(`v ${formatShape(v.shape)}`);
  return list.join(', ');
}
