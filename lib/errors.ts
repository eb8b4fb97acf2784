/** The stable, machine-readable reason of an {@link SdpaError}. */
export type ErrorCode =
  | 'ERR_SHAPE'
  | 'ERR_DTYPE'
  | 'ERR_OPTION'
  | 'ERR_CAPACITY'
  | 'ERR_DISPOSED'
  | 'ERR_NATIVE_LOAD';

/**
 * Base of every error that node-sdpa throws on purpose. It is thrown before any work is done.
 * @example
 * try {
 *   attention(q, k, v, { casual: true });
 * } catch (error) {
 *   if (!(error instanceof SdpaError)) throw error;
 *   error.code; // 'ERR_OPTION'
 * }
 */
export class SdpaError extends Error {
  readonly code: ErrorCode;

  constructor(message: string, code: ErrorCode, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/**
 * A shape, stride or extent does not fit (`ERR_SHAPE`). The message shows the shapes involved.
 * @example attention(q, k.slice(3, 0, 32), v); // throws ShapeError
 */
export class ShapeError extends SdpaError {
  constructor(message: string, options?: ErrorOptions) {
    super(message, 'ERR_SHAPE', options);
  }
}

/**
 * A dtype is unknown or not usable here (`ERR_DTYPE`).
 * @example attention(q, k.to('float16'), v); // throws DTypeError
 */
export class DTypeError extends SdpaError {
  constructor(message: string, options?: ErrorOptions) {
    super(message, 'ERR_DTYPE', options);
  }
}

/**
 * An option is unknown, misspelt or out of range (`ERR_OPTION`).
 * @example
 * attention(q, k, v, { casual: true }); // throws OptionError: did you mean 'causal'?
 */
export class OptionError extends SdpaError {
  constructor(message: string, options?: ErrorOptions) {
    super(message, 'ERR_OPTION', options);
  }
}

/**
 * A cache is full, or there is no memory for it or for a result (`ERR_CAPACITY`). The cache is unchanged.
 * @example new KVCache({ numKvHeads: 2, headDim: 64, maxLength: 8 }).append(k, v); // throws CapacityError
 */
export class CapacityError extends SdpaError {
  constructor(message: string, options?: ErrorOptions) {
    super(message, 'ERR_CAPACITY', options);
  }
}

/**
 * The object was disposed of (`ERR_DISPOSED`).
 * @example
 * cache.dispose();
 * cache.append(promptK, promptV); // throws DisposedError
 */
export class DisposedError extends SdpaError {
  constructor(message: string, options?: ErrorOptions) {
    super(message, 'ERR_DISPOSED', options);
  }
}

/**
 * The native addon was required and cannot be loaded (`ERR_NATIVE_LOAD`).
 * @example
 * try {
 *   attention(q, k, v, { backend: 'native' });
 * } catch (error) {
 *   console.error(error instanceof NativeLoadError ? error.message : error); // what was tried, and why it failed
 * }
 */
export class NativeLoadError extends SdpaError {
  constructor(message: string, options?: ErrorOptions) {
    super(message, 'ERR_NATIVE_LOAD', options);
  }
}
