import { CapacityError, ShapeError } from '../errors.ts';
import type { Tensor } from '../tensor.ts';
import type { Operand, Operands, Status } from './addon.ts';
import type { Call } from './encode.ts';

const dataOf = (tensor: Tensor | null): Operand => (tensor === null ? null : tensor.data);

/** The typed arrays of a call. */
export function operandsOf({ problem, out, lse }: Call): Operands {
  const { q, k, v, mask, bias, alibiSlopes, sinks } = problem;
  return [
    q.data,
    dataOf(k),
    dataOf(v),
    out.data,
    dataOf(lse),
    dataOf(mask),
    dataOf(bias),
    dataOf(alibiSlopes),
    dataOf(sinks),
  ];
}

/** The addon checks extents again and throws a RangeError where memory has shrunk since the validation. */
export function guard<T>(call: () => T): T {
  try {
    return call();
  } catch (error) {
    throw error instanceof RangeError
      ? new ShapeError(`attention: ${error.message}`, { cause: error })
      : error;
  }
}

/** Turns a failed status into its error. */
export function checkStatus(status: Status): void {
  if (status === 2) {
    throw new CapacityError(
      'attention: no memory for the scratch of a task; free some, or use fewer threads',
    );
  }
}

/** Runs an async call whose flag is raised when the signal aborts; rejects with the signal's reason then. */
export async function withCancelFlag(
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
