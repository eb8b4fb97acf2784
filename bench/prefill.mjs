// Prefill float32, causal, one shot: share of the FMA ceiling of each ISA, on one thread and on two.
import { Ceilings } from '../dist/cli/ceilings.js';
import { measure, timeOf } from '../dist/cli/measure.js';
import { prepare } from '../dist/cli/prepare.js';
import { formatNumber, formatShare } from '../dist/cli/table.js';
import { formatHeads, prefillCases, usefulFlops } from '../dist/cli/workloads.js';
import { addon, isas, print, threadCounts, time, verdict, withEachIsa } from './machine.mjs';

/** Share of the ceiling of one thread, by ISA, for long prompts; short ones need 60% anywhere. */
const LONG_TARGETS = { avx512: 0.75, avx2: 0.8 };
const SHORT_TARGET = 0.6;
const SCALING_TARGET = 1.9;

export default async function run() {
  const rows = [];
  await withEachIsa(isas, async (isa) => {
    for (const workload of prefillCases) {
      const target = workload.context < 1024 ? SHORT_TARGET : LONG_TARGETS[isa];
      for (const threads of threadCounts) rows.push(await runOne(isa, workload, threads, target));
    }
  });
  const head = [
    'isa',
    'heads',
    'L',
    'threads',
    'ms',
    'benchmark ms',
    '+-',
    'GFLOP/s',
    'FMA GFLOP/s',
    'of FMA',
    '',
    'x 1 thread',
    '',
  ];
  print('Prefill, float32, causal', head, rows, 2);
}

async function runOne(isa, workload, threads, target) {
  const flops = usefulFlops(workload);
  const prepared = prepare(workload, { threads });
  prepared.check();
  const ceilings = new Ceilings(addon, threads);
  const timed = await time(`prefill ${isa}`, prepared, flops, (seconds) => ceilings.fma(seconds));
  const scaling = threads > 1 ? await measureScaling(workload, prepared, flops) : null;
  return [
    isa,
    formatHeads(workload.shape),
    String(workload.context),
    String(threads),
    formatNumber(1000 * timed.seconds),
    formatNumber(1000 * timed.benchmarkSeconds),
    formatShare(timed.marginOfError),
    formatNumber(flops / timed.seconds / 1e9),
    formatNumber(timed.ceiling / 1e9),
    formatShare(timed.share),
    verdict(timed.share, target),
    scaling === null ? '-' : scaling.toFixed(2),
    scaling === null ? '' : verdict(scaling, target === SHORT_TARGET ? undefined : SCALING_TARGET, String),
  ];
}

/** How many times faster than one thread, both run in turn. */
async function measureScaling(workload, prepared, flops) {
  const single = prepare(workload, { threads: 1 });
  const { share } = await measure(prepared, flops, () => flops / timeOf(single), {
    seconds: 2,
    minSamples: 7,
  });
  return share;
}
