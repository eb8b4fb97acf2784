// Runs the suites named on the command line, or all: node bench/run.mjs [ladder] [prefill] [decode] [errors] [memory]
import { backendInfo } from '../dist/index.js';

const SUITES = ['ladder', 'prefill', 'decode', 'errors', 'memory'];

const chosen = process.argv.length > 2 ? process.argv.slice(2) : SUITES;
const unknown = chosen.find((name) => !SUITES.includes(name));
if (unknown !== undefined) {
  console.error(`bench: no suite is called '${unknown}'; known are ${SUITES.join(', ')}`);
  process.exit(1);
}
const { cpu, isas, threads, version } = backendInfo();
console.log(`node-sdpa ${version}, Node ${process.version}; ${cpu}, ${threads} threads; ${isas.join(', ')}`);
for (const name of chosen) {
  const { default: run } = await import(`./${name}.mjs`);
  await run();
}
