/** The version of this package; test/package holds it to package.json. */
export const VERSION = '0.1.0';
