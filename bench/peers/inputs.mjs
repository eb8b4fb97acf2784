// The random numbers of a workload in the layouts that the systems take them in: the same values for all, each layout
// made when somebody first asks for it.
import { randomTensor } from '../../dist/cli/random-tensor.js';
import { Tensor } from '../../dist/index.js';

/**
 * Of prefill: q, k and v as projections leave them, [1, qLen, heads · headDim], and views of the same memory,
 * [1, heads, qLen, headDim]. Of decode: one query token, all keys and values of the cache with the newest last.
 *
 * @param workload { phase, shape, context, dtype }
 */
export function makeInputs(workload) {
  return workload.phase === 'prefill' ? makePrefillInputs(workload) : makeDecodeInputs(workload);
}

function makePrefillInputs({ shape, context, dtype }) {
  const { numHeads, numKvHeads, headDim } = shape;
  const flatQ = randomTensor([1, context, numHeads * headDim], 1, dtype);
  const flatK = randomTensor([1, context, numKvHeads * headDim], 2, dtype);
  const flatV = randomTensor([1, context, numKvHeads * headDim], 3, dtype);
  const [q, k, v] = [flatQ, flatK, flatV].map((x) => splitHeads(x, headDim));
  return lazily(
    { flatQ, flatK, flatV, q, k, v },
    {
      contiguousQ: () => q.contiguous(),
      contiguousK: () => k.contiguous(),
      contiguousV: () => v.contiguous(),
      repeatedK: () => repeatHeads(k, numHeads / numKvHeads),
      repeatedV: () => repeatHeads(v, numHeads / numKvHeads),
    },
  );
}

function makeDecodeInputs({ shape, context, dtype }) {
  const { numHeads, numKvHeads, headDim } = shape;
  const q = randomTensor([1, numHeads, 1, headDim], 1, dtype);
  const k = randomTensor([1, numKvHeads, context, headDim], 2, dtype);
  const v = randomTensor([1, numKvHeads, context, headDim], 3, dtype);
  const past = (x) => x.slice(2, 0, context - 1).contiguous();
  return lazily(
    { q, k, v, newK: k.slice(2, context - 1).contiguous(), newV: v.slice(2, context - 1).contiguous() },
    {
      pastK: () => past(k),
      pastV: () => past(v),
      // Buffers of a system's own: it writes into them.
      bufferK: () => k.clone(),
      bufferV: () => v.clone(),
      transposedK: () => k.transpose(2, 3).contiguous(),
    },
  );
}

/** [1, L, heads · headDim] as [1, heads, L, headDim], without a copy. */
export function splitHeads(x, headDim) {
  const [, length, width] = x.shape;
  return x.reshape([1, length, width / headDim, headDim]).transpose(1, 2);
}

/** Each head so many times, one after the other: [1, heads · times, L, headDim]. */
function repeatHeads(x, times) {
  const [, heads, length, headDim] = x.shape;
  const repeated = Tensor.empty([1, heads * times, length, headDim], { dtype: x.dtype });
  for (let head = 0; head < heads * times; head++) {
    const source = Math.floor(head / times);
    repeated.data.set(x.slice(1, source, source + 1).contiguous().data, head * length * headDim);
  }
  return repeated;
}

function lazily(values, makers) {
  for (const [name, make] of Object.entries(makers)) {
    Object.defineProperty(values, name, {
      configurable: true,
      get() {
        const value = make();
        Object.defineProperty(values, name, { value });
        return value;
      },
    });
  }
  return values;
}
