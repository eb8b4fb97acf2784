import { readFileSync } from 'node:fs';
import { freemem } from 'node:os';
import type { Addon } from '../native/addon.ts';
import { randomTensor } from './random-tensor.ts';

/** The FMA probe runs as long as the work beside it, within these seconds. */
const MIN_PROBE_SECONDS = 0.002;
const MAX_PROBE_SECONDS = 0.05;
const MIB = 2 ** 20;

/** What this machine can do at most, on so many threads with the ISA in use. */
export class Ceilings {
  readonly #addon: Addon;
  readonly #threads: number;
  readonly #flopsPerIteration: number;
  #flopRate = 1e9;
  #pool: Float32Array | null = null;
  #cursor = 0;

  constructor(addon: Addon, threads: number) {
    this.#addon = addon;
    this.#threads = threads;
    this.#flopsPerIteration = addon.fmaProbe(1, threads);
  }

  /** FLOP/s of independent fused multiply-adds in registers, measured for about so many seconds. */
  fma(seconds: number): number {
    const target = Math.min(MAX_PROBE_SECONDS, Math.max(MIN_PROBE_SECONDS, seconds));
    const iterations = Math.ceil((target * this.#flopRate) / this.#flopsPerIteration);
    const start = performance.now();
    const flops = this.#addon.fmaProbe(iterations, this.#threads);
    this.#flopRate = (flops / (performance.now() - start)) * 1000;
    return this.#flopRate;
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
