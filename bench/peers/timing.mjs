// Timing several systems that do the same job: in turn, so that only neighbours in time are compared, each on cold data
// and on a machine where nobody spins any more.
import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import Benchmark from 'benchmark';
import { Ceilings, coldBytes } from '../../dist/cli/ceilings.js';
import { median } from '../../dist/cli/measure.js';
import { addon } from '../machine.mjs';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc');
const reader = new Ceilings(addon, 1);

const NAP_MS = 5;
const MAX_NAPS = 40;
/** CPU time of a nap, in microseconds, below which no thread of this process is spinning. */
const QUIET = 1000;

/** Frees what the last run left, waits until its threads sleep, and puts other data into the caches. */
async function settle() {
  collectGarbage();
  for (let nap = 0; nap < MAX_NAPS; nap++) {
    const before = process.cpuUsage();
    await sleep(NAP_MS);
    const { user, system } = process.cpuUsage(before);
    if (user + system < QUIET) break;
  }
  reader.read(coldBytes());
}

/** Seconds of one run. */
async function timeOne(system) {
  await settle();
  const start = performance.now();
  const running = system.run();
  if (running !== undefined) await running;
  const seconds = (performance.now() - start) / 1000;
  system.rewind();
  return seconds;
}

/**
 * Runs all systems once a round, the order moving on by one.
 *
 * @param budget at least minRounds, then until so many seconds have passed
 * @returns of each system the median of its seconds, and of their ratio to the first one's of the same round
 */
export async function timeInTurn(systems, { seconds, minRounds }) {
  const times = systems.map(() => []);
  const end = performance.now() + 1000 * seconds;
  for (let round = 0; round < minRounds || performance.now() < end; round++) {
    for (let i = 0; i < systems.length; i++) {
      const turn = (i + round) % systems.length;
      times[turn].push(await timeOne(systems[turn]));
    }
  }
  return times.map((list) => ({
    seconds: median(list),
    ratio: median(list.map((x, round) => x / times[0][round])),
    rounds: list.length,
  }));
}

/** Runs back to back by the benchmark package: mean seconds, and the relative margin of error. */
export function timeBackToBack({ name, run, rewind }) {
  return new Promise((resolve, reject) => {
    const options = {
      minSamples: 5,
      maxTime: 1,
      onComplete: ({ target: { error, stats } }) =>
        error ? reject(error) : resolve({ seconds: stats.mean, marginOfError: stats.rme / 100 }),
    };
    const isAsync = run.constructor.name === 'AsyncFunction';
    const body = (deferred) => {
      const running = run();
      if (!isAsync) return rewind();
      running.then(() => {
        rewind();
        deferred.resolve();
      }, reject);
    };
    new Benchmark(name, body, { ...options, defer: isAsync }).run();
  });
}
