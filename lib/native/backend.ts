import type { Backend, CacheLayout, CacheStorage } from '../backend.ts';
import { NativeLoadError } from '../errors.ts';
import type { AttentionProblem } from '../problem.ts';
import type { Tensor } from '../tensor.ts';
import type { Addon } from './addon.ts';
import { NativeCacheStorage } from './cache.ts';
import { checkStatus, dataOf, guard, withCancelFlag } from './call.ts';
import { encodeProblem } from './encode.ts';
import { loadAddon } from './loader.ts';

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
    const wire = encodeProblem({ problem, out, lse });
    const { q, k, v, mask, bias, alibiSlopes, sinks } = problem;
    checkStatus(
      guard(() =>
        this.#addon.attention(
          wire,
          q.data,
          dataOf(k),
          dataOf(v),
          out.data,
          dataOf(lse),
          dataOf(mask),
          dataOf(bias),
          dataOf(alibiSlopes),
          dataOf(sinks),
        ),
      ),
    );
  }

  async attentionAsync(
    problem: AttentionProblem,
    out: Tensor,
    lse: Tensor | null,
    signal?: AbortSignal,
  ): Promise<void> {
    const wire = encodeProblem({ problem, out, lse });
    const { q, k, v, mask, bias, alibiSlopes, sinks } = problem;
    await withCancelFlag(signal, (cancelFlag) =>
      guard(() =>
        this.#addon.attentionAsync(
          wire,
          q.data,
          dataOf(k),
          dataOf(v),
          out.data,
          dataOf(lse),
          dataOf(mask),
          dataOf(bias),
          dataOf(alibiSlopes),
          dataOf(sinks),
          cancelFlag,
        ),
      ),
    );
  }

  createCache(layout: CacheLayout): CacheStorage {
    return new NativeCacheStorage(this.#addon, layout);
  }
}
