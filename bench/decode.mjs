// Decode float32, one query token against a long cache whose data are cold: share of a plain streaming read of as many
// bytes, on one thread and on two.
import { Ceilings, coldBytes } from '../dist/cli/ceilings.js';
import { prepare } from '../dist/cli/prepare.js';
import { formatNumber, formatShare } from '../dist/cli/table.js';
import { cachedBytes, decodeCases, formatHeads } from '../dist/cli/workloads.js';
import { addon, isas, print, threadCounts, time, verdict, withEachIsa } from './machine.mjs';

const TARGET = 0.85;

export default async function run() {
  const rows = [];
  await withEachIsa(isas, async (isa) => {
    for (const workload of decodeCases)
      for (const threads of threadCounts) rows.push(await runOne(isa, workload, threads));
  });
  const head = [
    'isa',
    'heads',
    'keys',
    'threads',
    'ms',
    'benchmark ms',
    '+-',
    'K+V GB/s',
    'read GB/s',
    'of read',
    '',
  ];
  print('Decode, float32, cold cache', head, rows, 2);
}

async function runOne(isa, workload, threads) {
  const bytes = cachedBytes(workload);
  const prepared = prepare(workload, { threads, coldBytes: coldBytes() });
  await prepared.check();
  const ceilings = new Ceilings(addon, threads);
  const timed = await time(`decode ${isa}`, prepared, bytes, () => ceilings.read(bytes));
  prepared.dispose();
  return [
    isa,
    formatHeads(workload.shape),
    String(workload.context),
    String(threads),
    formatNumber(1000 * timed.seconds),
    formatNumber(1000 * timed.benchmarkSeconds),
    formatShare(timed.marginOfError),
    formatNumber(bytes / timed.seconds / 1e9),
    formatNumber(timed.ceiling / 1e9),
    formatShare(timed.share),
    verdict(timed.share, TARGET),
  ];
}
