// A KVCache lies in huge pages where the system gives them. So must whatever is held against it: in small pages a plain
// read is a sixth slower, and a fresh buffer pays for each of them. glibc does that when a process starts.
import { spawnSync } from 'node:child_process';

const TUNABLE = 'glibc.malloc.hugetlb=1';

/** Whether this process was asked for the pages it has. */
export const arePagesChosen = process.platform !== 'linux' || process.env.GLIBC_TUNABLES !== undefined;

/** Runs the script of this process once more, in huge pages, and ends as that does. */
export function restartInHugePages() {
  const { status, signal } = spawnSync(process.execPath, process.argv.slice(1), {
    stdio: 'inherit',
    env: { ...process.env, GLIBC_TUNABLES: TUNABLE },
  });
  if (signal !== null) console.error(`the process was ended by ${signal}`);
  process.exit(status ?? 1);
}
