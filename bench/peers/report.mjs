// Everything that a run of the comparison measures, as plain data: what --json writes and --from reads.
import { availableParallelism, totalmem } from 'node:os';
import { backendInfo } from '../../dist/index.js';
import { compare, QUICK } from './compare.mjs';
import { compareInDefaultPages } from './default-pages.mjs';
import { PyTorch } from './pytorch.mjs';
import { loadRuntime, VERSION } from './runtime.mjs';
import { measureSideEffects } from './side-effects.mjs';
import { asRuntime } from './systems.mjs';
import { workloadsOf } from './workloads.mjs';

const THOROUGH = {
  qualifying: { seconds: 0, minRounds: 3 },
  final: { seconds: 5, minRounds: 7 },
  isBackToBack: true,
};
const GIB = 2 ** 30;
const VERSIONS = { nodeSdpa: backendInfo().version, runtime: VERSION, node: process.versions.node };

/** Of prompts and caches the longest that every run has, for what takes a process of its own. */
const CLOSER_LOOK = { prefill: 2048, decode: 8192 };

/** @param onProgress is told what begins, in a few words */
export async function measureReport(options, onProgress) {
  const { isQuick, isLong, python } = options;
  const pytorch = python === undefined ? null : await PyTorch.start(python);
  const comparisons = await compareAll(options, pytorch, onProgress).finally(() => pytorch?.stop());
  const versions = { ...VERSIONS, pytorch: pytorch?.version ?? null };
  const report = { ...describeRun(isLong), versions, comparisons, sideEffects: [], defaultPages: [] };
  if (isQuick) return report;
  onProgress('memory and event loop');
  const sideEffects = comparisons.filter(isCloserLook).flatMap(measureAllSideEffects);
  onProgress('default pages');
  return { ...report, sideEffects, defaultPages: compareInDefaultPages() };
}

async function compareAll({ isQuick, isLong }, pytorch, onProgress) {
  const runtimes = [asRuntime(loadRuntime()), ...(pytorch === null ? [] : [pytorch])];
  const comparisons = [];
  for (const workload of workloadsOf({ isQuick, isLong, hasBFloat16: pytorch !== null })) {
    const { phase, context, dtype, threads } = workload;
    onProgress(`${phase} ${context}, ${dtype}, ${threads} thread${threads === 1 ? '' : 's'}`);
    comparisons.push(await compare(runtimes, workload, isQuick ? QUICK : THOROUGH));
  }
  return comparisons;
}

function describeRun(isLong) {
  const { cpu, isa, features } = backendInfo();
  return {
    isLong,
    machine: {
      cpu,
      isa,
      features,
      cores: availableParallelism(),
      memoryGiB: Math.round(totalmem() / GIB),
      platform: `${process.platform}-${process.arch}`,
    },
  };
}

function isCloserLook({ workload, isMain }) {
  return isMain && CLOSER_LOOK[workload.phase] === workload.context;
}

function measureAllSideEffects({ workload, rows }) {
  // Ours in both forms; PyTorch has no event loop.
  const inNode = rows.filter((row) => !row.isElsewhere);
  const systems = inNode.flatMap((row) =>
    row.system.startsWith('node-sdpa') ? [row, { ...row, system: `${row.system}Async` }] : [row],
  );
  return systems.map((row) => ({
    phase: workload.phase,
    context: workload.context,
    system: row.system,
    copiedBytes: row.copiedBytes,
    ...measureSideEffects(workload, row),
  }));
}
