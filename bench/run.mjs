// Runs the suites named on the command line, or all:
//   node bench/run.mjs [ladder] [prefill] [decode] [step] [step-all] [ragged] [int8] [window] [forks] [errors]
//     [adversarial] [memory] [contention] [save] [plan]
// Narrowed down: node bench/run.mjs prefill errors adversarial [--isa NAME] [--dtype NAME] [--precision NAME]
import { parseArgs } from 'node:util';
import { backendInfo } from '../dist/index.js';
import { arePagesChosen, restartInHugePages } from './huge-pages.mjs';

if (!arePagesChosen) restartInHugePages();

const SUITES = [
  'ladder',
  'prefill',
  'decode',
  'step',
  'step-all',
  'ragged',
  'int8',
  'window',
  'forks',
  'errors',
  'adversarial',
  'memory',
  'contention',
  'save',
  'plan',
];

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
