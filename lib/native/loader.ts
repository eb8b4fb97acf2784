import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { NativeLoadError, OptionError } from '../errors.ts';
import type { Addon } from './addon.ts';
import { PROBLEM_FIELDS, SEQUENCE_FIELDS } from './encode.ts';

const require = createRequire(import.meta.url);
const root = new URL('../../', import.meta.url);

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

/** Where an addon may lie, in the order tried: shipped with the package, then built from source. */
function candidates(): string[] {
  const target = `${process.platform}-${process.arch}`;
  return [
    `prebuilds/${target}/node-sdpa.glibc.node`,
    `prebuilds/${target}/node-sdpa.node`,
    'build/Release/node_sdpa.node',
  ].map((path) => fileURLToPath(new URL(path, root)));
}

function findAddon(): Addon | NativeLoadError {
  const failures: string[] = [];
  let cause: unknown;
  for (const path of candidates()) {
    try {
      const addon = existsSync(path) ? (require(path) as Addon) : null;
      const stale = addon && staleField(addon);
      if (addon !== null && stale === undefined) return addon;
      failures.push(`${path}: ${addon === null ? 'not there' : `built from other sources (${stale})`}`);
    } catch (error) {
      cause = error;
      failures.push(`${path}: ${reasonOf(error as NodeJS.ErrnoException)}`);
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

function remedyFor(cause: unknown): string {
  const code = (cause as NodeJS.ErrnoException | undefined)?.code ?? '';
  if (Object.hasOwn(FORBIDDEN, code))
    return `With --permission, also give node --allow-addons and --allow-fs-read=${fileURLToPath(root)}*`;
  return "In a checkout, 'npm run build' builds it (python3, make and a C++17 compiler are needed)";
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
