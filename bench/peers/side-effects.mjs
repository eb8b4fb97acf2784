// What a system does to the process around it, each in a process of its own: how far memory grows while it runs, and how
// long the event loop has to wait. node bench/peers/side-effects.mjs '{ workload, system, route, spins }'
import { spawnSync } from 'node:child_process';
import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { forgetPeak, residentMiB } from '../resident.mjs';
import { makeInputs } from './inputs.mjs';
import { prepareAttention, prepareStep } from './ours.mjs';
import { routesOf } from './routes.mjs';
import { loadRuntime } from './runtime.mjs';
import { prepareRoute } from './systems.mjs';

/** A prompt takes a hundred times as long as a step. */
const RUNS = { prefill: 4, decode: 16 };
const TIMER_MS = 1;

/** { growthMiB (null where it cannot be told), longestWaitMs, medianMs } of a system named by a row of compare.mjs. */
export function measureSideEffects(workload, { system, route, spins }) {
  const { status, signal, stdout } = spawnSync(
    process.execPath,
    ['--expose-gc', fileURLToPath(import.meta.url), JSON.stringify({ workload, system, route, spins })],
    { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'] },
  );
  if (status !== 0) throw new Error(`${system}: the process ended with ${status ?? signal}`);
  return JSON.parse(stdout);
}

async function prepareSystem({ workload, system, route, spins }) {
  const inputs = makeInputs(workload);
  const past = workload.phase === 'decode' ? workload.context - 1 : 0;
  const isAsync = system.endsWith('Async');
  if (system.startsWith('node-sdpa KVCache')) return prepareStep(inputs, workload, past, isAsync);
  if (system.startsWith('node-sdpa')) return prepareAttention(inputs, workload, isAsync);
  const chosen = routesOf(workload).find(({ family, name }) => family === system && name === route);
  return prepareRoute(loadRuntime(), chosen, inputs, workload, spins ?? true);
}

/** Of the runs from the first on; inputs and the session, or the cache, are there before. */
async function measureGrowth(system, runs) {
  globalThis.gc();
  const before = forgetPeak();
  for (let run = 0; run < runs; run++) {
    await system.run();
    system.rewind();
  }
  return before === null ? null : Math.max(0, residentMiB('VmHWM') - before);
}

/** How much later than it should a timer of 1 ms fires at most while the system runs. */
async function measureLongestWait(system, runs) {
  let longest = 0;
  let last = performance.now();
  const timer = setInterval(() => {
    const now = performance.now();
    longest = Math.max(longest, now - last - TIMER_MS);
    last = now;
  }, TIMER_MS);
  for (let run = 0; run < runs; run++) {
    await system.run();
    system.rewind();
    await setImmediate();
  }
  await sleep(2 * TIMER_MS);
  clearInterval(timer);
  return longest;
}

async function main(request) {
  const system = await prepareSystem(request);
  const runs = RUNS[request.workload.phase];
  const growthMiB = await measureGrowth(system, runs);
  const longestWaitMs = await measureLongestWait(system, runs);
  console.log(JSON.stringify({ growthMiB, longestWaitMs }));
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await main(JSON.parse(process.argv[2]));
