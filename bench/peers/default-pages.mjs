// The main workloads once more in a process that was not asked to use huge pages, as Node starts by default.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { compare, QUICK } from './compare.mjs';
import { loadRuntime } from './runtime.mjs';
import { asRuntime } from './systems.mjs';
import { workloadsOf } from './workloads.mjs';

/** Comparisons as compare makes them; none where pages are no matter of glibc. */
export function compareInDefaultPages() {
  if (process.platform !== 'linux') return [];
  const { status, signal, stdout } = spawnSync(process.execPath, [fileURLToPath(import.meta.url)], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, GLIBC_TUNABLES: '' },
  });
  if (status !== 0) throw new Error(`default pages: the process ended with ${status ?? signal}`);
  return JSON.parse(stdout);
}

async function main() {
  const runtimes = [asRuntime(loadRuntime())];
  const comparisons = [];
  for (const workload of workloadsOf({ isQuick: true }))
    comparisons.push(await compare(runtimes, workload, QUICK));
  console.log(JSON.stringify(comparisons));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main();
