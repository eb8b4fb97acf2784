import { SdpaError } from '../errors.ts';
import { nearestName } from '../nearest-name.ts';
import { VERSION } from '../version.ts';
import { bench } from './bench.ts';
import { build } from './build.ts';
import { type Command, type Streams, UsageError } from './command.ts';
import { info } from './info.ts';
import { plan } from './plan.ts';
import { verify } from './verify.ts';

const COMMANDS: Readonly<Record<string, Command>> = { bench, verify, plan, info, build };

/**
 * Runs one command of `node-sdpa`.
 *
 * @param argv what follows the program's name
 * @returns the exit code: 0; 1 after one line on stderr; 2 where what was verified is wrong
 */
export async function main(argv: readonly string[], streams: Streams): Promise<number> {
  const [name, ...rest] = argv;
  if (name === undefined || name === '--help' || name === '-h' || name === 'help') {
    streams.stdout.write(overview());
    return 0;
  }
  if (name === '--version' || name === '-v') {
    streams.stdout.write(`${VERSION}\n`);
    return 0;
  }
  if (!Object.hasOwn(COMMANDS, name)) {
    const nearest = nearestName(name, Object.keys(COMMANDS));
    const remedy =
      nearest === undefined ? `known are ${Object.keys(COMMANDS).join(', ')}` : `did you mean '${nearest}'?`;
    streams.stderr.write(`node-sdpa: unknown command '${name}'; ${remedy}\n`);
    return 1;
  }
  return runCommand(name, COMMANDS[name], rest, streams);
}

async function runCommand(
  name: string,
  command: Command,
  argv: readonly string[],
  streams: Streams,
): Promise<number> {
  if (argv.includes('--help') || argv.includes('-h')) {
    streams.stdout.write(command.help);
    return 0;
  }
  try {
    return await command.run(argv, streams);
  } catch (error) {
    if (!isExpected(error)) throw error;
    streams.stderr.write(`node-sdpa ${name}: ${inOneLine((error as Error).message, name)}\n`);
    return 1;
  }
}

/** Without the command's own name before it, and without what a terminal would obey: a file's bytes may be in it. */
function inOneLine(message: string, name: string): string {
  const own = `${name}: `;
  return (message.startsWith(own) ? message.slice(own.length) : message).replaceAll(/\p{Cc}/gu, ' ');
}

/** Errors that tell the user something; others are our own mistakes and keep their stack. */
function isExpected(error: unknown): boolean {
  return error instanceof UsageError || error instanceof SdpaError;
}

function overview(): string {
  const width = Math.max(...Object.keys(COMMANDS).map((name) => name.length));
  const lines = Object.entries(COMMANDS).map(([name, { summary }]) => `  ${name.padEnd(width)}  ${summary}`);
  return [
    'Exact scaled-dot-product attention for Node.js on the CPU.',
    '',
    'node-sdpa <command> [options]',
    '',
    ...lines,
    '',
    'node-sdpa <command> --help tells the options of a command.',
    '',
  ].join('\n');
}
