// The same prefill on every rung, one thread: naive JavaScript, the oracle, portable C++, each ISA of this machine.
import Benchmark from 'benchmark';
import { formatNumber } from '../dist/cli/table.js';
import { prefillCases, SHAPES, usefulFlops } from '../dist/cli/workloads.js';
import { attention, referenceAttention, Tensor } from '../dist/index.js';
import { addon, print, verdict } from './machine.mjs';

/** Native over reference. */
const TARGET = 60;
const workload = prefillCases.find(({ shape }) => shape === SHAPES.minimind);

export default async function run() {
  const { numHeads, numKvHeads, headDim } = workload.shape;
  const q = Tensor.randn([1, numHeads, workload.context, headDim], { seed: 1 });
  const k = Tensor.randn([1, numKvHeads, workload.context, headDim], { seed: 2 });
  const v = Tensor.randn([1, numKvHeads, workload.context, headDim], { seed: 3 });
  const out = Tensor.zeros(q.shape);
  const options = { causal: true, threads: 1, out };
  const { naiveAttention } = await import('./naive.mjs');
  const native = (isa) => () => {
    addon.selectIsa(isa);
    attention(q, k, v, options);
  };
  const rungs = [
    ['naive JavaScript', () => naiveAttention(q, k, v, out)],
    ['reference', () => referenceAttention(q, k, v, options)],
    ...addon
      .isas()
      .reverse()
      .map((isa) => [isa, native(isa)]),
  ];
  const best = addon.activeIsa();
  for (const [name, rung] of rungs) verify(name, rung, out, referenceAttention(q, k, v, { causal: true }));
  const timed = timeSuite(rungs);
  addon.selectIsa(best);
  const reference = timed.find(({ name }) => name === 'reference').seconds;
  const flops = usefulFlops(workload);
  const rows = timed.map(({ name, seconds, marginOfError }) => [
    name,
    formatNumber(1000 * seconds),
    `${marginOfError.toFixed(1)}%`,
    formatNumber(flops / seconds / 1e9),
    `${formatNumber(reference / seconds)}x`,
    name === best ? verdict(reference / seconds, TARGET, (x) => `${x}x`) : '',
  ]);
  print(
    `Ladder: prefill 8/2/64, L = ${workload.context}, causal, one thread`,
    ['rung', 'ms', '+-', 'GFLOP/s', 'of reference', ''],
    rows,
  );
}

function verify(name, rung, out, want) {
  rung();
  let worst = 0;
  for (let i = 0; i < want.data.length; i++) worst = Math.max(worst, Math.abs(out.data[i] - want.data[i]));
  if (!(worst < 1e-4)) throw new Error(`${name} is wrong by ${worst}`);
}

function timeSuite(rungs) {
  const suite = new Benchmark.Suite();
  for (const [name, rung] of rungs) suite.add(name, rung, { minSamples: 5, maxTime: 1 });
  suite.run();
  return suite.map(({ name, stats, error }) => {
    if (error) throw error;
    return { name, seconds: stats.mean, marginOfError: stats.rme };
  });
}
