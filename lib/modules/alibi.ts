import { OptionError } from '../errors.ts';
import { MAX_HEADS } from '../limits.ts';
import { Tensor } from '../tensor.ts';
import { formatValue } from '../tensor-layout.ts';

/**
 * The slopes of attention with linear biases, float32 [numHeads], for attention's option `alibiSlopes`: the
 * geometric sequence 2^(-8 i / n), i = 1 … n, for a power of two n; otherwise that of the power of two below,
 * followed by every other slope of the power of two above (Press et al. 2021, "Train Short, Test Long", §3
 * and its code's get_slopes).
 *
 * @throws OptionError unless numHeads is a whole number from 1 to 2^24
 * @example
 * alibiSlopes(4).toArray(); // [0.25, 0.0625, 0.015625, 0.00390625]
 * const out = attention(q, k, v, { causal: true, alibiSlopes: alibiSlopes(8) });
 */
export function alibiSlopes(numHeads: number): Tensor {
  if (!Number.isSafeInteger(numHeads) || numHeads < 1 || numHeads > MAX_HEADS) {
    throw new OptionError(
      `alibiSlopes: numHeads must be a whole number from 1 to ${MAX_HEADS}; got ${formatValue(numHeads)}`,
    );
  }
  const below = 2 ** Math.floor(Math.log2(numHeads));
  const slopes = Tensor.empty([numHeads]);
  for (let i = 0; i < numHeads; i++) {
    const exponent = i < below ? (i + 1) / below : (2 * (i - below) + 1) / (2 * below);
    slopes.data[i] = 2 ** (-8 * exponent);
  }
  return slopes;
}
