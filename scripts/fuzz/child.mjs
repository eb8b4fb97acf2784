// Runs the programs [first, first + count) of a seed, and tells its parent of each finding and of how far it is. Where it
// stands it writes to a file, which tells what it was at should it die.
import { openSync, writeSync } from 'node:fs';
import { getHeapStatistics } from 'node:v8';
import * as sdpa from '../../dist/index.js';
import { generate, run, scriptOf, shrink } from './program.mjs';

const [seed, first, count, placeFile] = process.argv.slice(2);
const place = openSync(placeFile, 'w');
const standing = new Float64Array(1);

/** Tells after so many programs. */
const REPORT = 250;

const TRIES = 5;

/** Bytes of V8's heap that a program of a few elements may take: a list that somebody only claimed takes more. */
const MOST_HEAP = 64 * 2 ** 20;

const heapUsed = () => getHeapStatistics().used_heap_size;

/** Seeds of programs lie far apart from one run to the next. */
const seedOf = (n) => (Number(seed) * 1000003 + n) >>> 0;

const send = (message) => new Promise((resolve) => process.send(message, resolve));

const pause = () => new Promise((resolve) => setTimeout(resolve, 20));

let stray = null;
process.on('unhandledRejection', (error) => {
  stray = error;
});

/** Of programs that were only tried in order to shrink another nobody waits for every promise. */
async function tell(n, finding, lines) {
  const script = scriptOf(await shrink(lines, finding, sdpa));
  await send({ finding, seed: seedOf(n), script, calls: totals.calls });
  await pause();
  stray = null;
}

/** Native caches that are still there when nobody holds one any more. */
async function cachesLeft() {
  for (let tries = 0; tries < TRIES; tries++) {
    await pause();
    globalThis.gc();
    if (sdpa.memoryInfo().caches === 0) break;
  }
  return sdpa.memoryInfo().caches;
}

let totals = { programs: 0, calls: 0, refused: 0, judged: 0 };

/** What nobody uses any more is no growth: it is collected first. */
async function report(more = {}) {
  globalThis.gc();
  await send({ totals, rss: process.memoryUsage().rss, ...more });
  totals = { programs: 0, calls: 0, refused: 0, judged: 0 };
}

for (let n = Number(first); n < Number(first) + Number(count); n++) {
  standing[0] = seedOf(n);
  writeSync(place, standing, 0, 8, 0);
  const lines = generate(seedOf(n));
  const before = heapUsed();
  const { finding: found, ...counts } = await run(lines, sdpa);
  const taken = heapUsed() - before;
  const finding =
    found ?? (taken > MOST_HEAP ? `${Math.round(taken / 2 ** 20)} MiB of V8's heap were taken` : null);
  totals.programs += 1;
  for (const [name, more] of Object.entries(counts)) totals[name] += more;
  if (finding !== null) await tell(n, finding, lines);
  if (stray !== null) {
    await send({
      finding: `nobody handled: ${stray?.stack ?? stray}`,
      seed: seedOf(n),
      script: scriptOf(lines),
      calls: totals.calls,
    });
    stray = null;
  }
  if (totals.programs === REPORT) await report();
}

await report({ caches: await cachesLeft(), bytes: sdpa.memoryInfo().bytes });
process.disconnect();
