import type { AttentionCall } from '../backend.ts';
import type { DType } from '../dtype.ts';
import { maskBeginOf, type SequenceView } from '../problem.ts';
import type { Tensor } from '../tensor.ts';

const DTYPE_CODES: Partial<Record<DType, number>> = { float32: 0, float16: 1, bfloat16: 2, int8: 3 };
const PRECISION_CODES = { highest: 0, high: 1, medium: 2 };

/** The code of a dtype that kernels read (native/problem.h). */
export const dtypeCode = (dtype: DType): number => DTYPE_CODES[dtype]!;

const dtypeCodeOf = (tensor: Tensor | null): number => (tensor === null ? 0 : dtypeCode(tensor.dtype));
const stride = (tensor: Tensor | null, axis: number): number => (tensor === null ? 0 : tensor.strides[axis]);

/** Index of the element (batch, head 0, row) of a tensor [batch, heads, rows, ...]. */
const rowOffset = (tensor: Tensor | null, batch: number, row: number): number =>
  tensor === null ? 0 : tensor.offset + batch * tensor.strides[0] + row * tensor.strides[2];

/** Index of the first element of a tensor's batch entry. */
const batchOffset = (tensor: Tensor | null, batch: number): number =>
  tensor === null ? 0 : tensor.offset + batch * tensor.strides[0];

/** The scalars of the wire format (native/problem.h), in order, and where each comes from. */
const PROBLEM_ENCODERS: readonly (readonly [string, (call: AttentionCall) => number])[] = [
  ['numSequences', ({ problem }) => problem.numSequences],
  ['numHeads', ({ problem }) => problem.numHeads],
  ['numKvHeads', ({ problem }) => problem.numKvHeads],
  ['headDim', ({ problem }) => problem.headDim],
  ['valueDim', ({ problem }) => problem.valueDim],
  ['scale', ({ problem }) => problem.scale],
  ['softcap', ({ problem }) => problem.softcap],
  ['windowLeft', ({ problem }) => problem.windowLeft],
  ['windowRight', ({ problem }) => problem.windowRight],
  ['sinkTokens', ({ problem }) => problem.sinkTokens],
  ['threads', ({ problem }) => problem.threads],
  ['precision', ({ problem }) => PRECISION_CODES[problem.precision]],
  ['qDType', ({ problem }) => dtypeCodeOf(problem.q)],
  ['kvDType', ({ problem }) => dtypeCodeOf(problem.k)],
  ['biasDType', ({ problem }) => dtypeCodeOf(problem.bias)],
  ['qHeadStride', ({ problem }) => stride(problem.q, 1)],
  ['qRowStride', ({ problem }) => stride(problem.q, 2)],
  ['kHeadStride', ({ problem }) => stride(problem.k, 1)],
  ['kRowStride', ({ problem }) => stride(problem.k, 2)],
  ['vHeadStride', ({ problem }) => stride(problem.v, 1)],
  ['vRowStride', ({ problem }) => stride(problem.v, 2)],
  ['outHeadStride', ({ out }) => stride(out, 1)],
  ['outRowStride', ({ out }) => stride(out, 2)],
  ['lseHeadStride', ({ lse }) => stride(lse, 1)],
  ['lseRowStride', ({ lse }) => stride(lse, 2)],
  ['maskHeadStride', ({ problem }) => stride(problem.mask, 1)],
  ['maskRowStride', ({ problem }) => stride(problem.mask, 2)],
  ['maskKeyStride', ({ problem }) => stride(problem.mask, 3)],
  ['biasHeadStride', ({ problem }) => stride(problem.bias, 1)],
  ['biasRowStride', ({ problem }) => stride(problem.bias, 2)],
  ['biasKeyStride', ({ problem }) => stride(problem.bias, 3)],
  ['alibiHeadStride', ({ problem }) => stride(problem.alibiSlopes, 1)],
];

/** The fields of each sequence, in order. A ragged mask is indexed by sequence, all else by batch and row. */
const SEQUENCE_ENCODERS: readonly (readonly [
  string,
  (call: AttentionCall, sequence: SequenceView, index: number) => number,
])[] = [
  ['qLen', (_, sequence) => sequence.qLen],
  ['kvLen', (_, sequence) => sequence.kvLen],
  ['queryOffset', (_, sequence) => sequence.queryOffset],
  ['qOffset', ({ problem }, sequence) => rowOffset(problem.q, sequence.batch, sequence.qBegin)],
  ['kOffset', ({ problem }, sequence) => rowOffset(problem.k, sequence.batch, sequence.kvBegin)],
  ['vOffset', ({ problem }, sequence) => rowOffset(problem.v, sequence.batch, sequence.kvBegin)],
  ['outOffset', ({ out }, sequence) => rowOffset(out, sequence.batch, sequence.qBegin)],
  ['lseOffset', ({ lse }, sequence) => rowOffset(lse, sequence.batch, sequence.qBegin)],
  ['maskOffset', ({ problem }, _, index) => batchOffset(problem.mask, index)],
  ['maskBegin', ({ problem }, sequence) => maskBeginOf(problem, sequence)],
  ['biasOffset', ({ problem }, _, index) => batchOffset(problem.bias, index)],
  ['alibiOffset', ({ problem }, _, index) => batchOffset(problem.alibiSlopes, index)],
];

/** Names of the wire fields; the loader compares them with the addon's own. */
export const PROBLEM_FIELDS: readonly string[] = PROBLEM_ENCODERS.map(([name]) => name);
export const SEQUENCE_FIELDS: readonly string[] = SEQUENCE_ENCODERS.map(([name]) => name);

let wire = new Float64Array(0);

/**
 * The problem as one flat array: the scalars, then the fields of each sequence. Good until the next one is encoded: the
 * addon copies it, and to allocate one costs more than to fill it.
 */
export function encodeProblem(call: AttentionCall): Float64Array {
  const { sequences } = call.problem;
  const length = PROBLEM_ENCODERS.length + sequences.length * SEQUENCE_ENCODERS.length;
  if (wire.length !== length) wire = new Float64Array(length);
  let i = 0;
  for (const [, read] of PROBLEM_ENCODERS) wire[i++] = read(call);
  for (let index = 0; index < sequences.length; index++) {
    for (const [, read] of SEQUENCE_ENCODERS) wire[i++] = read(call, sequences[index], index);
  }
  return wire;
}
