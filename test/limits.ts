import { loadAddon } from '../lib/native/loader.ts';
import { runChild, runChildOk } from './child.ts';

/** A line of /proc/self/status by the limit that it counts against. */
const COUNTED = { '-v': 'VmPeak', '-d': 'VmData' };

export type Limit = keyof typeof COUNTED;

/**
 * The ulimit with which a process has `spare` KiB beside those that Node takes by itself; undefined where such a process
 * does not start, or the limit is not kept.
 */
export function limitTo(limit: Limit, spare = 2 ** 19): string | undefined {
  if (process.platform !== 'linux' || loadAddon() instanceof Error) return undefined;
  const taken = runChildOk<number>(`
    const { readFileSync } = await import('node:fs');
    const [, kib] = /${COUNTED[limit]}:\\s+(\\d+) kB/.exec(readFileSync('/proc/self/status', 'utf8'));
    console.log(kib);`);
  const ulimit = `${limit} ${taken + spare}`;
  const tooMuch = `try { Buffer.alloc(${spare + 2 ** 19} * 1024); } catch { process.exit(3); }`;
  const { status, stderr } = runChild(tooMuch, { ulimit });
  if (status === 3) return ulimit;
  console.warn(`ulimit ${ulimit}: the process ended with ${status}, not 3; skipped. ${stderr.slice(0, 200)}`);
  return undefined;
}
