import type { Output } from './command.ts';

const WIDTH = 24;
const CLEAR_LINE = '\r\x1b[2K';

/** One line of progress, rewritten in place; silent where the output is no terminal. */
export class ProgressBar {
  readonly #output: Output;

  constructor(output: Output) {
    this.#output = output;
  }

  /** Shows that `done` of `total` pieces are done and what runs now. */
  show(done: number, total: number, label: string): void {
    if (!this.#output.isTTY) return;
    const filled = Math.round((WIDTH * done) / total);
    const bar = '#'.repeat(filled) + '.'.repeat(WIDTH - filled);
    this.#output.write(`${CLEAR_LINE}[${bar}] ${done}/${total} ${label}`);
  }

  /** Gives the line back to the terminal. */
  clear(): void {
    if (this.#output.isTTY) this.#output.write(CLEAR_LINE);
  }
}
