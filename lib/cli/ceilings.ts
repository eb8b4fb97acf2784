import { readFileSync } from 'node:fs';
import { freemem } from 'node:os';
import type { Addon } from '../native/addon.ts';
import { randomTensor } from './random-tensor.ts';
import { inputDType, type Workload } from './workloads.ts';

/** A probe of arithmetic runs as long as the work beside it, within these seconds. */
const MIN_PROBE_SECONDS = 0.002;
const MAX_PROBE_SECONDS = 0.05;
const MIB = 2 ** 20;

/** What does the products: fused multiply-adds in float32, or the instructions for tiles of bfloat16. */
export type ProductUnit = 'FMA' | 'tile';

/** What this machine can do at most, on so many threads with the ISA that is in use when this is made. */
export class Ceilings {
  /** Whether the ISA has instructions for tiles of bfloat16. */
  readonly hasTiles: boolean;
  readonly #addon: Addon;
  readonly #threads: number;
  readonly #fma: FlopRate;
  readonly #tile: FlopRate;
  #pool: Float32Array | null = null;
  #cursor = 0;

  constructor(addon: Addon, threads: number) {
    this.#addon = addon;
    this.#threads = threads;
    this.#fma = new FlopRate((iterations) => addon.fmaProbe(iterations, threads));
    this.#tile = new FlopRate((iterations) => addon.tileProbe(iterations, threads));
    this.hasTiles = addon.tileProbe(1, threads) > 0;
  }

  /** FLOP/s of independent fused multiply-adds in registers, measured for about so many seconds. */
  fma(seconds: number): number {
    return this.#fma.measure(seconds);
  }

  /** FLOP/s of independent products of bfloat16 tiles in registers, likewise; 0 where the ISA has none. */
  tile(seconds: number): number {
    return this.hasTiles ? this.#tile.measure(seconds) : 0;
  }

  /**
   * The unit that the share of prefill speaks of: tiles, where the ISA has them and one product of bfloat16 does for
   * one of the inputs; otherwise FMAs, whose peak float32 and float16 may pass that are cut into slices for tiles.
   */
  unitOf({ dtype, precision }: Pick<Workload, 'dtype' | 'precision'>): ProductUnit {
    const isOneProduct = inputDType(dtype) === 'bfloat16' || (dtype === 'float32' && precision === 'medium');
    return this.hasTiles && isOneProduct ? 'tile' : 'FMA';
  }

  /** FLOP/s of the unit. */
  products(unit: ProductUnit, seconds: number): number {
    return unit === 'tile' ? this.tile(seconds) : this.fma(seconds);
  }

  /**
   * Bytes/s of a plain streaming read of so many bytes of memory that no cache holds. The memory is Node's own: where
   * that lies in small pages and a KVCache in huge ones, the ceiling comes out lower than the cache's own would
   * (GLIBC_TUNABLES=glibc.malloc.hugetlb=1 in the environment puts both in huge pages).
   */
  read(bytes: number): number {
    this.#pool ??= randomTensor([coldBytes() / 4], 1).data as Float32Array;
    let seconds = 0;
    for (let left = Math.ceil(bytes / 4); left > 0; ) {
      const count = Math.min(left, this.#pool.length);
      if (this.#cursor + count > this.#pool.length) this.#cursor = 0;
      const part = this.#pool.subarray(this.#cursor, this.#cursor + count);
      const start = performance.now();
      this.#addon.readProbe(part, this.#threads);
      seconds += (performance.now() - start) / 1000;
      this.#cursor += count;
      left -= count;
    }
    return bytes / seconds;
  }
}

/** Times a probe, in as many iterations as the seconds asked for take. */
class FlopRate {
  readonly #probe: (iterations: number) => number;
  #iterationsPerSecond = 0;

  constructor(probe: (iterations: number) => number) {
    this.#probe = probe;
  }

  measure(seconds: number): number {
    const target = Math.min(MAX_PROBE_SECONDS, Math.max(MIN_PROBE_SECONDS, seconds));
    // The first time: how many fill the least time, by doubling.
    for (let n = 1; this.#iterationsPerSecond === 0; n *= 2) {
      const run = this.#time(n);
      if (run.seconds >= MIN_PROBE_SECONDS) this.#iterationsPerSecond = n / run.seconds;
    }
    const iterations = Math.ceil(target * this.#iterationsPerSecond);
    const run = this.#time(iterations);
    this.#iterationsPerSecond = iterations / run.seconds;
    return run.flops / run.seconds;
  }

  #time(iterations: number): { flops: number; seconds: number } {
    const start = performance.now();
    const flops = this.#probe(iterations);
    return { flops, seconds: (performance.now() - start) / 1000 };
  }
}

/**
 * Bytes to go through before the first of them have left the caches: twice the last-level cache, as far as memory
 * can be spared. Work on cold data and its ceiling each go through so many.
 */
export function coldBytes(): number {
  const wanted = Math.min(2 * lastLevelCacheBytes(), 512 * MIB, freemem() / 8);
  return Math.ceil(Math.max(wanted, 16 * MIB) / MIB) * MIB;
}

/** As Linux tells; elsewhere more than most processors have. */
function lastLevelCacheBytes(): number {
  try {
    const size = readFileSync('/sys/devices/system/cpu/cpu0/cache/index3/size', 'utf8').trim();
    const [, digits, unit] = /^(\d+)([KM])$/.exec(size) ?? [];
    if (digits !== undefined) return Number(digits) * (unit === 'M' ? MIB : 1024);
  } catch {
    // No such file: not Linux, or a processor without a third level.
  }
  return 64 * MIB;
}
