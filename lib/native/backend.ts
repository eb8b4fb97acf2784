import type { AttentionCall, Backend, CacheLayout, CacheStorage, StatsResults } from '../backend.ts';
import { NativeLoadError } from '../errors.ts';
import type { ResolvedWindow } from '../options.ts';
import type { AttentionProblem } from '../problem.ts';
import type { Tensor } from '../tensor.ts';
import type { Addon } from './addon.ts';
import { NativeCacheStorage } from './cache.ts';
import { checkStatus, guard, operandsOf, settle } from './call.ts';
import { encodeProblem } from './encode.ts';
import { loadAddon } from './loader.ts';
import { writeStats } from './stats.ts';

let backend: Backend | undefined;

/** The addon as a Backend, or the error that says why it cannot be had. */
export function loadNativeBackend(): Backend | NativeLoadError {
  if (backend !== undefined) return backend;
  const addon = loadAddon();
  if (addon instanceof NativeLoadError) return addon;
  backend = new NativeBackend(addon);
  return backend;
}

class NativeBackend implements Backend {
  readonly name = 'native';
  readonly #addon: Addon;

  constructor(addon: Addon) {
    this.#addon = addon;
  }

  attention(problem: AttentionProblem, out: Tensor, lse: Tensor | null): void {
    const call = { problem, out, lse };
    const { caller } = problem;
    checkStatus(
      caller,
      guard(caller, () => this.#addon.attention(encodeProblem(call), ...operandsOf(call))),
    );
  }

  async attentionAsync(
    problem: AttentionProblem,
    out: Tensor,
    lse: Tensor | null,
    signal?: AbortSignal,
  ): Promise<void> {
    const call = { problem, out, lse };
    await settle(this.#addon, call, signal, (...operandsAndId) =>
      this.#addon.attentionAsync(encodeProblem(call), ...operandsAndId),
    );
  }

  attentionStats(problem: AttentionProblem, results: StatsResults, massWindow: ResolvedWindow | null): void {
    writeStats(this.#addon, problem, results, massWindow);
  }

  createCache(layout: CacheLayout): CacheStorage {
    return NativeCacheStorage.create(this.#addon, layout);
  }

  stepAll(
    storages: readonly CacheStorage[],
    counts: readonly number[],
    k: Tensor,
    v: Tensor,
    call: AttentionCall,
  ): void {
    NativeCacheStorage.stepAll(this.#addon, storages as readonly NativeCacheStorage[], counts, k, v, call);
  }
}
