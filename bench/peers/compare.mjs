// One workload: ours against each family of ONNX Runtime by its fastest route.
import { cachedBytes, usefulFlops } from '../../dist/cli/workloads.js';
import { makeInputs } from './inputs.mjs';
import { prepareOurs } from './ours.mjs';
import { routesOf } from './routes.mjs';
import { check, prepareRoute } from './systems.mjs';
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
 * @param budget { qualifying, final }: of the rounds that choose routes, and of those that count; with `isBackToBack`
 *   each system is timed without pauses too
 * @returns { workload, isMain, rows, tried }: a row for each system, and the routes that rows were chosen from
 */
export async function compare(runtime, workload, { qualifying, final, isBackToBack }) {
  const inputs = makeInputs(workload);
  const ours = prepareOurs(inputs, workload);
  for (const system of ours) await check(system, inputs);
  const { peers, tried } = await choosePeers(runtime, inputs, workload, qualifying);
  const systems = [...ours, ...peers];
  const timed = await timeInTurn(systems, final);
  const rows = [];
  for (const [i, system] of systems.entries()) {
    const backToBack = isBackToBack ? await timeBackToBack(system) : null;
    rows.push(makeRow(workload, system, timed[i], backToBack));
  }
  for (const system of systems) await system.dispose();
  return { workload, isMain: isMain(workload), rows, tried };
}

async function choosePeers(runtime, inputs, workload, budget) {
  const routes = routesOf(workload);
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

/** The routes that this ONNX Runtime can go and that give the right result, with and without spinning threads. */
async function prepareAll(runtime, routes, inputs, workload) {
  const candidates = [];
  const failures = [];
  // With one thread there is nobody to spin.
  const spinning = workload.threads > 1 ? [true, false] : [true];
  for (const route of routes) {
    try {
      for (const spins of spinning) {
        const system = await prepareRoute(runtime, route, inputs, workload, spins);
        candidates.push(system);
        await check(system, inputs);
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
    seconds,
    ratio,
    rounds,
    backToBack,
    gflopsPerSecond: isDecode ? null : usefulFlops(workload) / seconds / 1e9,
    gigabytesPerSecond: isDecode ? bytes / seconds / 1e9 : null,
    copiedBytes: isDecode
      ? { operator: system.copiedCaches.operator * bytes, binding: system.copiedCaches.binding * bytes }
      : null,
  };
}
