// What every suite shares: the addon, the ISAs and numbers of threads to try, and timing by two hands.

import { availableParallelism } from 'node:os';
import Benchmark from 'benchmark';
import { measure } from '../dist/cli/measure.js';
import { formatTable } from '../dist/cli/table.js';
import { loadAddon } from '../dist/native/loader.js';

export const addon = loadAddon();
if (addon instanceof Error) throw addon;

/** ISAs of this machine among those that targets speak of, best first. */
export const isas = addon.isas().filter((isa) => isa !== 'portable');

export const threadCounts = [...new Set([1, Math.min(2, availableParallelism())])];

/** Runs `body` with one ISA after the other in use, and the best one again afterwards. */
export async function withEachIsa(names, body) {
  const before = addon.activeIsa();
  try {
    for (const isa of names) {
      addon.selectIsa(isa);
      await body(isa);
    }
  } finally {
    addon.selectIsa(before);
  }
}

const BUDGET = { seconds: 2, minSamples: 9 };

/**
 * Times a prepared workload twice: by the benchmark package (mean and relative margin of error), and paired with the
 * ceiling between the runs (medians), which is what shares are taken from.
 */
export async function time(name, prepared, amount, ceiling) {
  const runs = await measure(prepared, amount, ceiling, BUDGET);
  const bench = new Benchmark(
    name,
    () => {
      prepared.run();
      prepared.rewind();
    },
    { minSamples: 5, maxTime: 1 },
  );
  bench.run();
  if (bench.error) throw bench.error;
  return { ...runs, benchmarkSeconds: bench.stats.mean, marginOfError: bench.stats.rme / 100 };
}

/** Milliseconds: of one thread by the process's own clock, which runs only while it does; of more of them by the wall's. */
export function clockOf(threads) {
  if (threads > 1) return () => Number(process.hrtime.bigint()) / 1e6;
  return () => {
    const { user, system } = process.cpuUsage();
    return (user + system) / 1e3;
  };
}

/** Prints a suite's table. */
export function print(title, head, rows, numLabels) {
  console.log(`\n${title}\n${formatTable(head, rows, numLabels).join('\n')}`);
}

/** 'at least 75%: ok', or LOW. */
export function verdict(value, target, format = (x) => `${Math.round(100 * x)}%`) {
  if (target === undefined) return '';
  return `>= ${format(target)} ${value >= target ? 'ok' : 'LOW'}`;
}
