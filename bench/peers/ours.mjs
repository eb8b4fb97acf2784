// This package, as a system beside the others. See systems.mjs.
import { attention, attentionAsync, KVCache, Tensor } from '../../dist/index.js';

/** The calls that do a workload's job, the first being the one that others are held against. */
export function prepareOurs(inputs, workload) {
  return workload.phase === 'prefill'
    ? [prepareAttention(inputs, workload), prepareStep(inputs, workload, 0)]
    : [prepareStep(inputs, workload, workload.context - 1)];
}

/** attention, or with `isAsync` attentionAsync, on the memory that GroupQueryAttention reads too. */
export function prepareAttention(inputs, { threads }, isAsync = false) {
  const { q, k, v } = inputs;
  const [, numHeads, qLen, headDim] = q.shape;
  const out = Tensor.full([1, qLen, numHeads, headDim], NaN, { dtype: q.dtype }).transpose(1, 2);
  const options = { causal: true, threads, out };
  return {
    name: isAsync ? 'node-sdpa attentionAsync' : 'node-sdpa attention',
    route: 'out given',
    spins: null,
    run: isAsync ? () => attentionAsync(q, k, v, options) : () => void attention(q, k, v, options),
    rewind() {},
    readOut: () => out,
    dispose() {},
  };
}

/** KVCache.step, or with `isAsync` stepAsync, of all tokens that come after the first `past` ones. */
export function prepareStep(inputs, { shape, context, dtype, threads }, past, isAsync = false) {
  const { numKvHeads, headDim } = shape;
  const { q, k, v } = inputs;
  const cache = new KVCache({ numKvHeads, headDim, dtype, maxLength: context });
  if (past > 0) cache.append(k.slice(2, 0, past), v.slice(2, 0, past));
  const [newK, newV] = past > 0 ? [inputs.newK, inputs.newV] : [k, v];
  const out = Tensor.full([1, q.shape[2], q.shape[1], headDim], NaN, { dtype }).transpose(1, 2);
  const options = { threads, out };
  return {
    name: isAsync ? 'node-sdpa KVCache.stepAsync' : 'node-sdpa KVCache.step',
    route: 'out given',
    spins: null,
    copiedCaches: { operator: 0, binding: 0 },
    run: isAsync
      ? () => cache.stepAsync(q, newK, newV, options)
      : () => void cache.step(q, newK, newV, options),
    rewind: () => void cache.truncate(past),
    readOut: () => out,
    dispose: () => cache.dispose(),
  };
}
