// Runs every other script of this folder, one after the other, and says which of them failed:
//   node scripts/soak/run.mjs --minutes 60      that long in all; default 5
import { spawnSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const { values } = parseArgs({ options: { minutes: { type: 'string', default: '5' } } });
const folder = import.meta.dirname;
// Left alone, glibc raises its limits once it sees large blocks freed, and keeps some MiB more of freed memory from then on:
// a step of 3% that may come after hundreds of rounds, in a process that leaks nothing.
const env = { MALLOC_MMAP_THRESHOLD_: '131072', MALLOC_TRIM_THRESHOLD_: '131072', ...process.env };
const scripts = readdirSync(folder)
  .filter((name) => name.endsWith('.mjs') && name !== 'run.mjs')
  .sort();
const failed = scripts.filter((name) => {
  console.log(`\n=== ${name}`);
  const minutes = String(Number(values.minutes) / scripts.length);
  const args = ['--expose-gc', join(folder, name), '--minutes', minutes];
  return spawnSync(process.execPath, args, { env, stdio: ['ignore', 'inherit', 'inherit'] }).status !== 0;
});
console.log(`\nsoak: ${failed.length === 0 ? `ok (${scripts.join(', ')})` : `failed: ${failed.join(', ')}`}`);
process.exitCode = failed.length === 0 ? 0 : 1;
