import type { DType } from '../dtype.ts';
import { Tensor } from '../tensor.ts';

/** A prime, so that no row ever meets its own copy at the same place. */
const BLOCK = 1_000_003;

/**
 * Standard normal numbers for benchmarks. Drawn once for a million elements and repeated beyond: processors run
 * faster on zeros than on noise, but not on noise that they have seen.
 */
export function randomTensor(shape: readonly number[], seed: number, dtype: DType = 'float32'): Tensor {
  const size = shape.reduce((product, dim) => product * dim, 1);
  const block = Tensor.randn([Math.min(size, BLOCK)], { seed, dtype }).data;
  const tensor = Tensor.empty(shape, { dtype });
  for (let begin = 0; begin < size; begin += block.length) {
    tensor.data.set(block.subarray(0, Math.min(block.length, size - begin)) as never, begin);
  }
  return tensor;
}
