/** Where a command writes: the process's own streams, or a test's. */
export interface Output {
  readonly isTTY?: boolean;
  write(text: string): unknown;
}

/** What a command prints into. Results go to stdout, everything else to stderr. */
export interface Streams {
  readonly stdout: Output;
  readonly stderr: Output;
}

/** One command of `node-sdpa`. */
export interface Command {
  /** One line of the list of commands. */
  readonly summary: string;
  /** What `--help` prints. */
  readonly help: string;
  /**
   * @returns the exit code
   * @throws UsageError, SdpaError: one line on stderr, exit code 1
   */
  run(argv: readonly string[], streams: Streams): Promise<number>;
}

/** The user asked for something that cannot be; the message is one line and says what to do. */
export class UsageError extends Error {}
