/** What came of an attempt to load an addon: neither, where there is none. */
export interface Attempt {
  readonly addon?: unknown;
  readonly error?: NodeJS.ErrnoException;
}

/** `file` lies below prebuilds/. */
export declare function loadPrebuild(file: string): Attempt;
