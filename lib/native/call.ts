import type { AttentionCall } from '../backend.ts';
import { isResizable, typedArrayBufferOf } from '../dtype.ts';
import { CapacityError, OptionError, ShapeError } from '../errors.ts';
import type { Tensor } from '../tensor.ts';
import { checkStillThere } from '../tensor-memory.ts';
import type { Addon, Operand, Operands, Status } from './addon.ts';

const dataOf = (tensor: Tensor | null): Operand => (tensor === null ? null : tensor.data);

/** The typed arrays of a call. */
export function operandsOf({ problem, out, lse }: AttentionCall): Operands {
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

const INPUTS = ['q', 'k', 'v', 'mask', 'bias', 'alibiSlopes', 'sinks'] as const;

/**
 * {@link operandsOf} of a call that runs while JavaScript goes on. What is transferred meanwhile the addon keeps in
 * place (native/binding/pinned_memory.h) or has copied (private_memory.h); what may shrink meanwhile is refused.
 */
function steadyOperandsOf(call: AttentionCall): Operands {
  for (const name of INPUTS) checkSteady(call.problem.caller, name, call.problem[name]);
  checkSteady(call.problem.caller, 'out', call.out);
  return operandsOf(call);
}

function checkSteady(caller: string, name: string, tensor: Tensor | null): void {
  if (tensor === null || !isResizable(typedArrayBufferOf(tensor.data))) return;
  throw new OptionError(
    `${caller}: ${name} lies in a resizable ArrayBuffer, which may shrink while another thread uses it; ` +
      `pass ${name}.clone(), or call the synchronous form`,
  );
}

/** `code` of the addon's error where memory is out: kOutOfMemoryCode of native/binding/entry.h. */
const OUT_OF_MEMORY = 'SDPA_OUT_OF_MEMORY';

/**
 * The addon checks extents again and throws a RangeError where memory has shrunk since the validation, and one with a code
 * where it finds no memory for its own lists; nothing has changed then. `caller` begins the message.
 */
export function guard<T>(caller: string, call: () => T): T {
  try {
    return call();
  } catch (error) {
    if (error instanceof RangeError && (error as NodeJS.ErrnoException).code === OUT_OF_MEMORY) {
      throw new CapacityError(`${caller}: memory is out, nothing has changed; free some, then try again`, {
        cause: error,
      });
    }
    throw error instanceof RangeError
      ? new ShapeError(`${caller}: ${error.message}`, { cause: error })
      : error;
  }
}

/** Turns a failed status into its error. */
export function checkStatus(caller: string, status: Status): void {
  if (status === 2) {
    throw new CapacityError(
      `${caller}: no memory for the scratch of a task; free some, or use fewer threads`,
    );
  }
}

let calls = 0;

/**
 * Runs an asynchronous call of the addon until it has ended, and rejects where it was aborted, where memory was out, or where
 * `out` is gone.
 */
export async function settle(
  addon: Addon,
  call: AttentionCall,
  signal: AbortSignal | undefined,
  start: (...operandsAndId: [...Operands, id: number]) => Promise<Status>,
): Promise<void> {
  signal?.throwIfAborted();
  const { caller } = call.problem;
  const id = calls++;
  const operands = steadyOperandsOf(call);
  const elements = call.out.data.length;
  const onAbort = (): void => addon.cancelAsync(id);
  signal?.addEventListener('abort', onAbort, { once: true });
  try {
    checkStatus(caller, await guard(caller, () => start(...operands, id)));
  } finally {
    signal?.removeEventListener('abort', onAbort);
  }
  signal?.throwIfAborted();
  checkStillThere(caller, 'out', call.out, elements);
}
