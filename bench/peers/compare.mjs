// One workload: ours against each family of ONNX Runtime, and of PyTorch, by its fastest route.
import { cachedBytes, usefulFlops } from '../../dist/cli/workloads.js';
import { makeInputs } from './inputs.mjs';
import { prepareOurs } from './ours.mjs';
import { check } from './systems.mjs';
import { timeBackToBack, timeInTurn } from './timing.mjs';
import { isMain } from './workloads.mjs';

/** A budget for compare that gives an idea. */
export const QUICK = {
  qualifying: { seconds: 0, minRounds: 1 },
  final: { seconds: 0, minRounds: 5 },
  isBackToBack: false,
};

/**
 * Every result is checked before it is timed.
 *
 * @param runtimes each with routesOf(workload), prepare(route, inputs, workload, spins) and, where its idle threads may spin or
 *   sleep, maySleep
 * @param budget { qualifying, final }: of the rounds that choose routes, and of those that count; with `isBackToBack`
 *   each system is timed without pauses too
 * @returns { workload, isMain, rows, tried }: a row for each system, and the routes that rows were chosen from
 */
export async function compare(runtimes, workload, { qualifying, final, isBackToBack }) {
  const inputs = makeInputs(workload);
  const ours = prepareOurs(inputs, workload);
  for (const system of ours) system.error = await check(system, inputs);
  const peers = [];
  const tried = [];
  for (const runtime of runtimes) {
    const chosen = await choosePeers(runtime, inputs, workload, qualifying);
    peers.push(...chosen.peers);
    tried.push(...chosen.tried);
  }
  const systems = [...ours, ...peers];
  const timed = await timeInTurn(systems, final);
  const rows = [];
  for (const [i, system] of systems.entries()) {
    const backToBack = isBackToBack && !system.isElsewhere ? await timeBackToBack(system) : null;
    rows.push(makeRow(workload, system, timed[i], backToBack));
  }
  for (const system of systems) await system.dispose();
  return { workload, isMain: isMain(workload), rows, tried };
}

async function choosePeers(runtime, inputs, workload, budget) {
  const routes = runtime.routesOf(workload);
  const peers = [];
  const tried = [];
  for (const family of new Set(routes.map((route) => route.family))) {
    const ofFamily = routes.filter((route) => route.family === family);
    const { candidates, failures } = await prepareAll(runtime, ofFamily, inputs, workload);
    tried.push(...failures);
    if (candidates.length === 0) continue;
    const timed = await timeInTurn(candidates, budget);
    const best = timed.reduce((least, { seconds }, i) => (seconds < timed[least].seconds ? i : least), 0);
    for (const [i, system] of candidates.entries()) {
      tried.push({ family, route: system.route, spins: system.spins, seconds: timed[i].seconds });
      if (i === best) peers.push(system);
      else await system.dispose();
    }
  }
  return { peers, tried };
}

/** The routes that this runtime can go and that give the right result, with and without spinning threads. */
async function prepareAll(runtime, routes, inputs, workload) {
  const candidates = [];
  const failures = [];
  // With one thread there is nobody to spin.
  const spinning = runtime.maySleep && workload.threads > 1 ? [true, false] : [true];
  for (const route of routes) {
    try {
      for (const spins of spinning) {
        const system = await runtime.prepare(route, inputs, workload, spins);
        candidates.push(system);
        system.error = await check(system, inputs);
      }
    } catch (error) {
      failures.push({ family: route.family, route: route.name, failure: error.message.split('\n')[0] });
    }
  }
  const failed = new Set(failures.map(({ route }) => route));
  for (const system of candidates) if (failed.has(system.route)) await system.dispose();
  return { candidates: candidates.filter(({ route }) => !failed.has(route)), failures };
}

function makeRow(workload, system, { seconds, ratio, rounds }, backToBack) {
  const bytes = cachedBytes(workload);
  const isDecode = workload.phase === 'decode';
  return {
    system: system.name,
    route: system.route,
    spins: system.spins,
    isElsewhere: system.isElsewhere ?? false,
    seconds,
    ratio,
    rounds,
    backToBack,
    error: system.error,
    gflopsPerSecond: isDecode ? null : usefulFlops(workload) / seconds / 1e9,
    gigabytesPerSecond: isDecode ? bytes / seconds / 1e9 : null,
    copiedBytes: isDecode
      ? { operator: system.copiedCaches.operator * bytes, binding: system.copiedCaches.binding * bytes }
      : null,
  };
}
