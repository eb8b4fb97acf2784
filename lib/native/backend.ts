import type { Backend, CacheLayout, CacheStorage } from '../backend.ts';
import { CapacityError, NativeLoadError, ShapeError } from '../errors.ts';
import type { AttentionProblem } from '../problem.ts';
import type { Tensor } from '../tensor.ts';
import type { Addon, Operand, Status } from './addon.ts';
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

  createCache(_layout: CacheLayout): CacheStorage {
    throw new Error('not built yet');
  }
}

const dataOf = (tensor: Tensor | null): Operand => (tensor === null ? null : tensor.data);

/** The addon checks extents again and throws a RangeError where memory has shrunk since the validation. */
function guard<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw error instanceof RangeError ? new ShapeError(`attention: ${error.message}`, { cause: error }) : error;
  }
}

function checkStatus(status: Status): void {
  if (status === 2) {
    throw new CapacityError('attention: no memory for the scratch of a task; free some, or use fewer threads');
  }
}

/** Runs an async call whose flag is raised when the signal aborts; rejects with the signal's reason then. */
async function withCancelFlag(
  signal: AbortSignal | undefined,
  start: (cancelFlag: Int32Array) => Promise<Status>,
): Promise<void> {
  signal?.throwIfAborted();
  const cancelFlag = new Int32Array(1);
  const onAbort = (): void => {
    cancelFlag[0] = 1;
  };
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    checkStatus(await start(cancelFlag));
  } finally {
    signal?.removeEventListener('abort', onAbort);
  }
  signal?.throwIfAborted();
}
