// What a fuzzer reports, and what it need not.

/** The errors that the library may throw, by their codes. */
export const CODES = {
  ERR_SHAPE: 'ShapeError',
  ERR_DTYPE: 'DTypeError',
  ERR_OPTION: 'OptionError',
  ERR_CAPACITY: 'CapacityError',
  ERR_DISPOSED: 'DisposedError',
  ERR_NATIVE_LOAD: 'NativeLoadError',
};

/** What is wrong with the library. */
export class Finding extends Error {}

/** An error in a few lines. */
export function show(error) {
  if (!(error instanceof Error)) return `a ${typeof error}`;
  const frames = (error.stack ?? '')
    .split('\n')
    .filter((line) => line.includes('    at '))
    .slice(0, 4);
  return [`${error.name}: ${error.message.slice(0, 300)}`, ...frames].join('\n');
}
