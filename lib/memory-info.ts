import { loadAddon } from './native/loader.ts';

/** Memory of the native KV caches of this process, of all its threads. */
export interface MemoryInfo {
  /** Caches that were made and not disposed, forks too. */
  readonly caches: number;
  /** Bytes that they hold; what forks share counts once. */
  readonly bytes: number;
  /** The most that was ever held. */
  readonly peakBytes: number;
}

/**
 * What the native KV caches of this process hold. Caches of the reference backend live in JavaScript's own memory and are
 * not counted.
 *
 * @example
 * const { caches, bytes, peakBytes } = memoryInfo(); // such as 1, 268435456, 536870912
 */
export function memoryInfo(): MemoryInfo {
  const addon = loadAddon();
  const [caches, bytes, peakBytes] = addon instanceof Error ? [0, 0, 0] : addon.cacheMemory();
  return { caches, bytes, peakBytes };
}
