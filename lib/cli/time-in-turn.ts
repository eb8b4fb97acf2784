import { setTimeout as sleep } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { loadAddon } from '../native/loader.ts';
import { Ceilings, coldBytes } from './ceilings.ts';
import { median } from './measure.ts';

/** One of several that do the same job. */
export interface System {
  /** A number, or the promise of one, is the seconds that it took by a clock of its own: another process's. */
  run(): unknown;
  /** Undoes a run; not timed. */
  rewind(): void;
}

/** Medians over the rounds. */
export interface Turns {
  readonly seconds: number;
  /** To the first system's seconds of the same round. */
  readonly ratio: number;
  readonly rounds: number;
}

const NAP_MS = 5;
const MAX_NAPS = 40;
/** CPU time of a nap, in microseconds, below which no thread of this process is spinning. */
const QUIET = 1000;

/**
 * Runs all systems once a round, the order moving on by one, so that only neighbours in time are compared: each on cold
 * data, and when nobody spins any more.
 *
 * @param budget at least minRounds, then until so many seconds have passed
 */
export async function timeInTurn(
  systems: readonly System[],
  { seconds, minRounds }: { readonly seconds: number; readonly minRounds: number },
): Promise<Turns[]> {
  const settle = makeSettle();
  const times: number[][] = systems.map(() => []);
  const end = performance.now() + 1000 * seconds;
  for (let round = 0; round < minRounds || performance.now() < end; round++) {
    for (let i = 0; i < systems.length; i++) {
      const turn = (i + round) % systems.length;
      await settle();
      times[turn].push(await timeOne(systems[turn]));
    }
  }
  return times.map((list) => ({
    seconds: median(list),
    ratio: median(list.map((x, round) => x / times[0][round])),
    rounds: list.length,
  }));
}

async function timeOne(system: System): Promise<number> {
  const start = performance.now();
  const running = system.run();
  const answer = running === undefined ? undefined : await running;
  const seconds = (performance.now() - start) / 1000;
  system.rewind();
  return typeof answer === 'number' ? answer : seconds;
}

/** Frees what the last run left, waits until its threads sleep, and puts other data into the caches. */
function makeSettle(): () => Promise<void> {
  setFlagsFromString('--expose-gc');
  const collectGarbage = runInNewContext('gc') as () => void;
  const addon = loadAddon();
  const reader = addon instanceof Error ? null : new Ceilings(addon, 1);
  return async () => {
    collectGarbage();
    for (let nap = 0; nap < MAX_NAPS; nap++) {
      const before = process.cpuUsage();
      await sleep(NAP_MS);
      const { user, system } = process.cpuUsage(before);
      if (user + system < QUIET) break;
    }
    reader?.read(coldBytes());
  };
}
