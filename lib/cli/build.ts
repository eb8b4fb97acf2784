import { spawnSync } from 'node:child_process';
import { copyFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { readArguments } from './arguments.ts';
import { type Command, type Streams, UsageError } from './command.ts';

const root = fileURLToPath(new URL('../../', import.meta.url));

/** `node-sdpa build`: compiles the addon from the sources in the package, where none that ships fits. */
export const build: Command = {
  summary: 'compiles the addon from source, for a platform without a prebuilt one',
  help: `node-sdpa build [--verbose]

Compiles the addon from the sources in this package, for a platform without a prebuilt one; what was compiled is
then loaded in place of what ships. Takes a few minutes, python3, make and a C++17 compiler (Windows: Visual Studio).
Outside Windows nothing is downloaded. node-gyp is that of the project, else the one that npm brings.

  --verbose   show what the compiler says
`,
  async run(argv: readonly string[], streams: Streams): Promise<number> {
    const given = readArguments(argv, { verbose: 'flag' });
    const nodeGyp = findNodeGyp();
    const missing = missingTools();
    if (missing.length > 0)
      throw new UsageError(
        `${missing.join(', ')} not found; install python3, make and a C++17 compiler (Debian: apt-get install python3 make g++)`,
      );
    const addon = compile(nodeGyp, given.has('verbose'), streams);
    streams.stdout.write(`node-sdpa build: ${addon} will be loaded from now on\n`);
    return 0;
  },
};

function missingTools(): string[] {
  if (process.platform === 'win32') return []; // node-gyp looks for Visual Studio itself
  const compiler = process.env.CXX ?? (process.platform === 'darwin' ? 'c++' : 'g++');
  return [process.env.PYTHON ?? 'python3', 'make', compiler].filter(
    (tool) => spawnSync(tool.split(' ')[0], ['--version'], { stdio: 'ignore' }).error !== undefined,
  );
}

/** That of the project, of this package's surroundings, of the npm that runs this, or of the npm that came with Node. */
function findNodeGyp(): string {
  const name = 'node-gyp/bin/node-gyp.js';
  for (const from of [join(process.cwd(), 'package.json'), join(root, 'package.json')]) {
    try {
      return createRequire(from).resolve(name);
    } catch {
      // not there: the next one
    }
  }
  const npms = [
    join(dirname(process.execPath), '../lib/node_modules/npm'),
    join(dirname(process.execPath), 'node_modules/npm'),
  ];
  if (process.env.npm_execpath) npms.unshift(join(dirname(process.env.npm_execpath), '..'));
  const found = npms.map((npm) => join(npm, 'node_modules', name)).find((path) => existsSync(path));
  if (found === undefined)
    throw new UsageError("node-gyp not found; 'npm install --save-dev node-gyp' in your project brings it");
  return found;
}

/** Options that give node-gyp headers without a download; on Windows it needs node.lib too, and fetches both. */
function headerOptions(sources: string): string[] {
  const prefix = dirname(dirname(process.execPath));
  if (existsSync(join(prefix, 'include/node/common.gypi'))) return [`--nodedir=${prefix}`];
  return process.platform === 'win32'
    ? []
    : [`--nodedir=${join(sources, 'native/headers')}`, '--force-process-config'];
}

/** Compiles in a folder of its own, since make takes no spaces in paths. Returns where the addon lies in the end. */
function compile(nodeGyp: string, isVerbose: boolean, { stderr }: Streams): string {
  const sources = mkdtempSync(join(tmpdir(), 'node-sdpa-build-'));
  try {
    cpSync(join(root, 'dist/source'), sources, { recursive: true });
    stderr.write('node-sdpa build: compiling, which takes a few minutes\n');
    const {
      status,
      stdout,
      stderr: complaints,
    } = spawnSync(
      process.execPath,
      [nodeGyp, 'rebuild', '--jobs=max', ...(isVerbose ? [] : ['--silent']), ...headerOptions(sources)],
      { cwd: sources, encoding: 'utf8', stdio: isVerbose ? ['ignore', 2, 2] : 'pipe', maxBuffer: 2 ** 28 },
    );
    if (status !== 0) {
      const said = `${stdout ?? ''}${complaints ?? ''}`.split('\n').find((line) => /\berror\b/i.test(line));
      throw new UsageError(
        `node-gyp failed${said === undefined ? '' : `: ${said.trim()}`}${isVerbose ? '' : '; --verbose shows all of it'}`,
      );
    }
    return install(join(sources, 'build/Release/node_sdpa.node'));
  } finally {
    rmSync(sources, { recursive: true, force: true });
  }
}

/** By a new name first: a process may have the old one open. */
function install(built: string): string {
  const target = join(root, 'build/Release/node_sdpa.node');
  try {
    mkdirSync(dirname(target), { recursive: true });
    copyFileSync(built, `${target}.new`);
    renameSync(`${target}.new`, target);
  } catch (error) {
    throw new UsageError(`cannot write ${target}: ${(error as Error).message}`);
  }
  return target;
}
