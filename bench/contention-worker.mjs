// A worker_thread that runs a workload again and again until it is told to stop, and counts the runs.
import { workerData } from 'node:worker_threads';
import { prepare } from '../dist/cli/prepare.js';

const { workload, threads, index, counts, ready, stop } = workerData;
const prepared = prepare(workload, { threads });
prepared.run();
prepared.rewind();
Atomics.add(ready, 0, 1);
Atomics.notify(ready, 0);
while (Atomics.load(stop, 0) === 0) {
  prepared.run();
  prepared.rewind();
  Atomics.add(counts, index, 1);
}
prepared.dispose();
