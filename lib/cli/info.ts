import { backendInfo } from '../backend-info.ts';
import { readArguments } from './arguments.ts';
import type { Command, Streams } from './command.ts';
import { formatTable } from './table.ts';

/** `node-sdpa info`: what computes on this machine, and why. */
export const info: Command = {
  summary: 'backend, instruction set, processor features, threads, and why these',
  help: `node-sdpa info [--json]

Tells what computes on this machine, and why: backend, instruction set, features of the processor, threads.

  --json   as JSON
`,
  async run(argv: readonly string[], { stdout }: Streams): Promise<number> {
    const given = readArguments(argv, { json: 'flag' });
    const facts = {
      ...backendInfo(),
      node: process.version,
      platform: `${process.platform}-${process.arch}`,
    };
    if (given.has('json')) {
      stdout.write(`${JSON.stringify(facts, null, 2)}\n`);
      return 0;
    }
    const text = (value: unknown): string => (Array.isArray(value) ? value.join(', ') : String(value)) || '-';
    const [, ...lines] = formatTable(
      ['', ''],
      Object.entries(facts).map(([name, value]) => [name, text(value)]),
      2,
    );
    stdout.write(`${lines.join('\n')}\n`);
    return 0;
  },
};
