// Runs the suites named on the command line, or all: node bench/run.mjs [ladder] [prefill] [decode] [step] [errors] [memory]
// Those that can be narrowed down are: node bench/run.mjs prefill errors [--isa NAME] [--dtype NAME] [--precision NAME]
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { backendInfo } from '../dist/index.js';

// A KVCache lies in huge pages where the system gives them. So must the buffer whose plain read is the ceiling of
// decode: in small pages it reads a sixth slower, which flatters every share. glibc does that when a process starts.
const HUGE_PAGES = 'glibc.malloc.hugetlb=1';
if (process.platform === 'linux' && process.env.GLIBC_TUNABLES === undefined) {
  const { status } = spawnSync(process.execPath, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], {
    stdio: 'inherit',
    env: { ...process.env, GLIBC_TUNABLES: HUGE_PAGES },
  });
  process.exit(status ?? 1);
}

const SUITES = ['ladder', 'prefill', 'decode', 'step', 'errors', 'memory'];

const filter = { type: 'string' };
const { values: filters, positionals } = parseArgs({
  allowPositionals: true,
  options: { isa: filter, dtype: filter, precision: filter },
});
const chosen = positionals.length > 0 ? positionals : SUITES;
const unknown = chosen.find((name) => !SUITES.includes(name));
if (unknown !== undefined) {
  console.error(`bench: no suite is called '${unknown}'; known are ${SUITES.join(', ')}`);
  process.exit(1);
}
const { cpu, isas, threads, version } = backendInfo();
console.log(`node-sdpa ${version}, Node ${process.version}; ${cpu}, ${threads} threads; ${isas.join(', ')}`);
for (const name of chosen) {
  const { default: run } = await import(`./${name}.mjs`);
  if (run.length === 0 && Object.keys(filters).length > 0)
    console.log(`\n${name} runs whole: it takes no filters`);
  await run(filters);
}
