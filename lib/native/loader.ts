import { existsSync } from 'node:fs';
import module from 'node:module';
import { fileURLToPath } from 'node:url';
import { NativeLoadError, OptionError } from '../errors.ts';
import type { Addon } from './addon.ts';
import { PROBLEM_FIELDS, SEQUENCE_FIELDS } from './encode.ts';
import { type Attempt, loadPrebuild } from './prebuilds.cjs';

// Undefined where a bundler made CommonJS of this file; then nothing lies where it does here.
const here: string | undefined = import.meta.url;
const root = here === undefined ? '' : fileURLToPath(new URL('../../', here));

/** Threads that a call may use at most: kMaxThreads of native/runtime/thread_pool.h. */
export const MAX_THREADS = 1024;

let loaded: Addon | NativeLoadError | undefined;

/**
 * The addon of this platform, set up as the environment asks (`NODE_SDPA_ISA`, `NODE_SDPA_NUM_THREADS`), or the
 * error that lists all that was tried. Loads once.
 *
 * @throws OptionError where the environment asks for an ISA that the machine lacks, or for no number of threads
 */
export function loadAddon(): Addon | NativeLoadError {
  if (loaded === undefined) {
    const addon = findAddon();
    if (!(addon instanceof NativeLoadError)) applyEnvironment(addon);
    loaded = addon;
  }
  return loaded;
}

/** What was compiled from source on purpose: `node-sdpa build`, `npm run build`. */
function loadBuilt(): Attempt {
  const path = `${root}build/Release/node_sdpa.node`;
  try {
    if (here === undefined || !existsSync(path)) return {};
    return { addon: module.createRequire(here)(path) };
  } catch (error) {
    return { error: error as NodeJS.ErrnoException };
  }
}

/** The file below prebuilds/ that is made for this platform, and on Linux for its C library. */
export function prebuildFile(platform: string, arch: string, isMusl: boolean): string {
  const libc = platform === 'linux' ? `.${isMusl ? 'musl' : 'glibc'}` : '';
  return `${platform}-${arch}/node-sdpa${libc}.node`;
}

/**
 * Whether this Linux has musl for its C library. By files, since loading an addon made for the other library may do worse than
 * fail, and process.report takes its time.
 */
function isMusl(): boolean {
  const isX64 = process.arch === 'x64';
  const glibc = isX64 ? '/lib64/ld-linux-x86-64.so.2' : '/lib/ld-linux-aarch64.so.1';
  const musl = `/lib/ld-musl-${isX64 ? 'x86_64' : 'aarch64'}.so.1`;
  try {
    return existsSync('/etc/alpine-release') || (existsSync(musl) && !existsSync(glibc));
  } catch {
    return false; // Node 20 throws where it may not look
  }
}

function findAddon(): Addon | NativeLoadError {
  const prebuild = prebuildFile(process.platform, process.arch, process.platform === 'linux' && isMusl());
  const attempts: [path: string, load: () => Attempt][] = [
    [`${root}build/Release/node_sdpa.node`, loadBuilt],
    [`${root}prebuilds/${prebuild}`, () => loadPrebuild(prebuild)],
  ];
  const failures: string[] = [];
  let cause: NodeJS.ErrnoException | undefined;
  for (const [path, load] of attempts) {
    const { addon, error } = load();
    if (error !== undefined && error.code !== 'MODULE_NOT_FOUND') {
      cause ??= error;
      failures.push(`${path}: ${reasonOf(error)}`);
    } else if (addon === undefined) {
      failures.push(`${path}: not there`);
    } else {
      const stale = staleField(addon as Addon);
      if (stale === undefined) return addon as Addon;
      failures.push(`${path}: built from other sources (${stale})`);
    }
  }
  return new NativeLoadError(
    `no addon for ${process.platform}-${process.arch} could be loaded; tried ${failures.join('; ')}. ${remedyFor(cause)}`,
    { cause },
  );
}

/** Node's permission model, and --no-addons. */
const FORBIDDEN: Readonly<Record<string, string>> = {
  ERR_DLOPEN_DISABLED: 'Node was told to load no addons (ERR_DLOPEN_DISABLED)',
  ERR_ACCESS_DENIED: 'Node was told not to read it (ERR_ACCESS_DENIED)',
};

function reasonOf({ code = '', message }: NodeJS.ErrnoException): string {
  return FORBIDDEN[code] ?? message;
}

function remedyFor(cause: NodeJS.ErrnoException | undefined): string {
  const code = cause?.code ?? '';
  if (Object.hasOwn(FORBIDDEN, code))
    return `With --permission, also give node --allow-addons and --allow-fs-read=${root}*`;
  return "'npx node-sdpa build' (in a checkout: 'npm run build') compiles it; python3, make and a C++17 compiler are needed";
}

/** The first field whose name differs between this code and the addon, so that a stale binary never runs. */
function staleField(addon: Addon): string | undefined {
  const differs = (mine: readonly string[], theirs: readonly string[] | undefined): string | undefined => {
    if (theirs?.join() === mine.join()) return undefined;
    const i = mine.findIndex((name, index) => theirs?.[index] !== name);
    return `field ${mine[i] ?? theirs?.[mine.length]} against ${theirs?.[i] ?? 'none'}`;
  };
  return differs(PROBLEM_FIELDS, addon.problemFields) ?? differs(SEQUENCE_FIELDS, addon.sequenceFields);
}

function applyEnvironment(addon: Addon): void {
  const isa = process.env.NODE_SDPA_ISA;
  if (isa && !addon.selectIsa(isa)) {
    throw new OptionError(
      `NODE_SDPA_ISA asks for '${isa}', which this machine or build does not have; it has ${addon.isas().join(', ')}`,
    );
  }
  const threads = process.env.NODE_SDPA_NUM_THREADS;
  if (!threads) return;
  if (!/^[1-9]\d{0,3}$/.test(threads) || Number(threads) > MAX_THREADS) {
    throw new OptionError(
      `NODE_SDPA_NUM_THREADS must be a whole number from 1 to ${MAX_THREADS}, got '${threads}'`,
    );
  }
  addon.setNumThreads(Number(threads));
}
