import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const dist = resolve(import.meta.dirname, '../dist');

/** How a child process ended. */
export interface ChildResult {
  /** null when a signal ended it: a crash. */
  readonly status: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** What a child process gets beside its script. */
export interface ChildOptions {
  readonly env?: Readonly<Record<string, string>>;
  /** Flags of node. */
  readonly flags?: readonly string[];
  /** The folder of the compiled library; default dist/ of this checkout. */
  readonly folder?: string;
  /** What the process may take, as the shell's ulimit puts it, in KiB: `-v 4000000`. */
  readonly ulimit?: string;
  /** Milliseconds until it is ended; more under a sanitizer. */
  readonly timeout?: number;
}

/**
 * Runs an ES module in a process of its own, with the whole library in scope as `sdpa`: for what concerns the process
 * (its environment, its memory, its end). The variables of node-sdpa are taken out of the environment it inherits.
 */
export function runChild(
  script: string,
  { env = {}, flags = [], folder = dist, ulimit, timeout = 50_000 }: ChildOptions = {},
): ChildResult {
  if (!existsSync(resolve(folder, 'index.js'))) throw new Error('dist/ is missing; run npm run build');
  const url = JSON.stringify(pathToFileURL(resolve(folder, 'index.js')).href);
  const inherited = Object.entries(process.env).filter(([name]) => !name.startsWith('NODE_SDPA_'));
  const args = [
    ...flags,
    '--input-type=module',
    '-e',
    `const url = ${url};\nconst sdpa = await import(url);\n${script}`,
  ];
  const limited = ['-c', `ulimit ${ulimit} && exec "$0" "$@"`, process.execPath, ...args];
  const { status, signal, stdout, stderr, error } = spawnSync(
    ulimit === undefined ? process.execPath : 'sh',
    ulimit === undefined ? args : limited,
    {
      encoding: 'utf8',
      env: { ...Object.fromEntries(inherited), ...env },
      timeout: process.env.SDPA_SANITIZED ? 10 * timeout : timeout,
    },
  );
  if (error) throw error;
  return { status, signal, stdout, stderr };
}

/** As {@link runChild}, for a script that must end well and print one line of JSON: what it prints, parsed. */
export function runChildOk<T>(script: string, options: ChildOptions = {}): T {
  const result = runChild(script, options);
  if (result.status !== 0) throw new Error(`the child process failed: ${JSON.stringify(result, null, 1)}`);
  return JSON.parse(result.stdout) as T;
}
