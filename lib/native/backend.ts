import type { Backend } from '../backend.ts';
import { NativeLoadError } from '../errors.ts';

/** The addon as a Backend, or the error that says why it cannot be had. */
export function loadNativeBackend(): Backend | NativeLoadError {
  return new NativeLoadError('the addon is not built');
}
