import { OptionError } from './errors.ts';

/** One step of splitmix32 (Steele et al. 2014, 32-bit variant): spreads a seed over the generator's state. */
function splitmix32(state: number): number {
  let z = (state + 0x9e3779b9) | 0;
  z = Math.imul(z ^ (z >>> 16), 0x21f0aaad);
  z = Math.imul(z ^ (z >>> 15), 0x735a2d97);
  return z ^ (z >>> 15);
}

const rotateLeft = (x: number, k: number): number => (x << k) | (x >>> (32 - k));

/**
 * xoshiro128** (Blackman & Vigna 2018) as a source of 32-bit integers (int32). The four words come from
 * `seed`.
 */
function createGenerator(seed: number): () => number {
  const low = seed | 0;
  const high = Math.floor(seed / 2 ** 32) | 0;
  let a = splitmix32(low);
  let b = splitmix32(a ^ high);
  let c = splitmix32(b);
  let d = splitmix32(c) | 1; // never all zero
  return () => {
    const result = Math.imul(rotateLeft(Math.imul(b, 5), 7), 9);
    const t = b << 9;
    c ^= a;
    d ^= b;
    b ^= c;
    a ^= d;
    c ^= t;
    d = rotateLeft(d, 11);
    return result;
  };
}

/**
 * A source of standard normal numbers (float64), by Box & Muller's transform (1958) of xoshiro128**. The same
 * `seed`, any safe integer, gives the same numbers; without one they differ from call to call.
 */
export function createNormal(where: string, seed: unknown): () => number {
  const chosen = seed ?? Math.floor(Math.random() * 2 ** 53);
  if (!Number.isSafeInteger(chosen)) {
    throw new OptionError(
      `${where}: seed must be a safe integer; got ${typeof seed === 'object' ? 'an object' : String(seed)}`,
    );
  }
  const next = createGenerator(chosen as number);
  // 53 bits in [0, 1)
  const uniform = (): number => ((next() >>> 5) * 2 ** 26 + (next() >>> 6)) * 2 ** -53;
  let spare: number | null = null;
  return () => {
    if (spare !== null) {
      const second = spare;
      spare = null;
      return second;
    }
    const radius = Math.sqrt(-2 * Math.log(1 - uniform())); // 1 - u is never 0
    const angle = 2 * Math.PI * uniform();
    spare = radius * Math.sin(angle);
    return radius * Math.cos(angle);
  };
}
