// Prefill, causal, one shot, by dtype and precision: share of each ISA's peak of the products, on one thread and on two.
//
// That of float32 and float16 is FMAs; an ISA that multiplies their slices as tiles may pass it. bfloat16, and precision
// 'medium', have the peak of tiles where there are such.
import { Ceilings } from '../dist/cli/ceilings.js';
import { measure, timeOf } from '../dist/cli/measure.js';
import { prepare } from '../dist/cli/prepare.js';
import { formatNumber, formatShare } from '../dist/cli/table.js';
import { formatHeads, prefillCases, usefulFlops } from '../dist/cli/workloads.js';
import { addon, print, threadCounts, time, verdict, withEachIsa } from './machine.mjs';
import { scalingTargetOf, targetOf } from './prefill-targets.mjs';
import { formatVariant, planVariants, printMissing } from './variants.mjs';

const HEAD = [
  'isa',
  'dtype',
  'heads',
  'L',
  'threads',
  'ms',
  'benchmark ms',
  '+-',
  'GFLOP/s',
  'peak GFLOP/s',
  'share',
  '',
  'x 1 thread',
  '',
];

export default async function run(filters) {
  printMissing();
  const rows = [];
  const plan = await planVariants(filters);
  await withEachIsa([...plan.keys()], async (isa) => {
    for (const variant of plan.get(isa)) {
      for (const prefillCase of prefillCases) {
        for (const threads of threadCounts)
          rows.push(await runOne(isa, { ...prefillCase, ...variant }, threads));
      }
    }
  });
  print('Prefill, causal', HEAD, rows, 3);
}

async function runOne(isa, workload, threads) {
  const flops = usefulFlops(workload);
  const prepared = prepare(workload, { threads });
  await prepared.check();
  const ceilings = new Ceilings(addon, threads);
  const unit = ceilings.unitOf(workload);
  const name = `prefill ${isa} ${formatVariant(workload)}`;
  const timed = await time(name, prepared, flops, (seconds) => ceilings.products(unit, seconds));
  const scaling = threads > 1 ? await measureScaling(workload, prepared, flops) : null;
  return [
    isa,
    formatVariant(workload),
    formatHeads(workload.shape),
    String(workload.context),
    String(threads),
    formatNumber(1000 * timed.seconds),
    formatNumber(1000 * timed.benchmarkSeconds),
    formatShare(timed.marginOfError),
    formatNumber(flops / timed.seconds / 1e9),
    formatNumber(timed.ceiling / 1e9),
    `${formatShare(timed.share)} of ${unit}`,
    judge(timed.share, flops / timed.seconds / 1e9 / threads, targetOf(isa, workload)),
    scaling === null ? '-' : scaling.toFixed(2),
    scaling === null ? '' : verdict(scaling, scalingTargetOf(workload), String),
  ];
}

/** The verdict on the share, or on GFLOP/s of a thread where those are enough. */
function judge(share, gigaflops, target) {
  if (target?.gigaflops !== undefined && share < target.share && gigaflops >= target.gigaflops) {
    return verdict(gigaflops, target.gigaflops, (x) => `${x} GFLOP/s`);
  }
  return verdict(share, target?.share);
}

/** How many times faster than one thread, both run in turn. */
async function measureScaling(workload, prepared, flops) {
  const single = prepare(workload, { threads: 1 });
  const { share } = await measure(prepared, flops, async () => flops / (await timeOf(single)), {
    seconds: 2,
    minSamples: 7,
  });
  return share;
}
