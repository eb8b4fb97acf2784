// Other processes that want the cores too.
import { spawn } from 'node:child_process';
import { cpus } from 'node:os';
import { setTimeout } from 'node:timers/promises';

/** Spins until its parent is gone, however that ended. */
const SPIN = 'const parent = process.ppid; while (process.ppid === parent) for (let i = 0; i < 1e6; i++);';
const SETTLE_MS = 300;

const running = new Set();
process.on('exit', () => {
  for (const neighbour of running) neighbour.kill('SIGKILL');
});

/** Runs `body` while `count` other processes spin, each of them wanting a core for itself. */
export async function withNeighbours(count, body) {
  const neighbours = Array.from({ length: count }, () =>
    spawn(process.execPath, ['-e', SPIN], { stdio: 'ignore' }),
  );
  for (const neighbour of neighbours) running.add(neighbour);
  try {
    await setTimeout(SETTLE_MS);
    return await body();
  } finally {
    for (const neighbour of neighbours) {
      neighbour.kill('SIGKILL');
      running.delete(neighbour);
    }
    await setTimeout(SETTLE_MS);
  }
}

/** Share of all the cores' time that nobody used during the next half second: 1 on a machine that is really quiet. */
export async function idleShare() {
  const before = totals();
  await setTimeout(500);
  const after = totals();
  return (after.idle - before.idle) / (after.all - before.all);
}

function totals() {
  let idle = 0;
  let all = 0;
  for (const { times } of cpus()) {
    idle += times.idle;
    for (const time of Object.values(times)) all += time;
  }
  return { idle, all };
}
