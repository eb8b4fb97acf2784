/** The stable, machine-readable reason of an {@link SdpaError}. */
export type ErrorCode =
  | 'ERR_SHAPE'
  | 'ERR_DTYPE'
  | 'ERR_OPTION'
  | 'ERR_CAPACITY'
  | 'ERR_DISPOSED'
  | 'ERR_NATIVE_LOAD';

/** Base of every error that node-sdpa throws on purpose. It is thrown before any work is done. */
export class SdpaError extends Error {
  readonly code: ErrorCode;

  constructor(message: string, code: ErrorCode, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
  }
}

/** A shape, stride or extent does not fit (`ERR_SHAPE`). The message shows the shapes involved. */
export class ShapeError extends SdpaError {
  constructor(message: string, options?: ErrorOptions) {
    super(message, 'ERR_SHAPE', options);
  }
}

/** A dtype is unknown or not usable here (`ERR_DTYPE`). */
export class DTypeError extends SdpaError {
  constructor(message: string, options?: ErrorOptions) {
    super(message, 'ERR_DTYPE', options);
  }
}

/** An option is unknown, misspelt or out of range (`ERR_OPTION`). */
export class OptionError extends SdpaError {
  constructor(message: string, options?: ErrorOptions) {
    super(message, 'ERR_OPTION', options);
  }
}

/** A cache is full, or memory for it could not be had (`ERR_CAPACITY`). The cache is unchanged. */
export class CapacityError extends SdpaError {
  constructor(message: string, options?: ErrorOptions) {
    super(message, 'ERR_CAPACITY', options);
  }
}

/** The object was disposed of (`ERR_DISPOSED`). */
export class DisposedError extends SdpaError {
  constructor(message: string, options?: ErrorOptions) {
    super(message, 'ERR_DISPOSED', options);
  }
}

/** The native addon was demanded and cannot be had (`ERR_NATIVE_LOAD`). */
export class NativeLoadError extends SdpaError {
  constructor(message: string, options?: ErrorOptions) {
    super(message, 'ERR_NATIVE_LOAD', options);
  }
}
