import { describe, expect, test } from 'vitest';
import { loadAddon } from '../../lib/native/loader.ts';
import { runChildOk } from '../child.ts';

// The pool when there are not enough cores. Each test has a process of its own, whose time is bounded (test/child.ts): a
// stall fails it. All results must be the bits of one thread.

/** Problems of every kind that is spread over threads, and the results of one thread. */
const start = `
import { createHash } from 'node:crypto';
import { spawn } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { Worker } from 'node:worker_threads';
const hash = (t) => createHash('sha256').update(t.data).digest('hex');
const make = (heads, length, seed) => sdpa.Tensor.randn([1, heads, length, 64], { seed });
const problems = [[8, 1, 6000], [8, 2, 900], [8, 300, 300], [4, 64, 64], [2, 1, 40]].map(([heads, qLen, kvLen], n) =>
  [make(heads, qLen, n), make(2, kvLen, n + 10), make(2, kvLen, n + 20), { causal: true }]);
const want = problems.map(([q, k, v, options]) => hash(sdpa.attention(q, k, v, { ...options, threads: 1 })));
let wrong = 0;
const check = (out, n) => { if (hash(out) !== want[n]) wrong++; };
const runSync = (n, threads) => { const [q, k, v, o] = problems[n]; check(sdpa.attention(q, k, v, { ...o, threads }), n); };
const runAsync = async (n, threads) => {
  const [q, k, v, o] = problems[n];
  check(await sdpa.attentionAsync(q, k, v, { ...o, threads }), n);
};
/** Ends a while after \`ms\`: the slowest turn, in ms. */
const repeat = async (ms, turn) => {
  const end = performance.now() + ms;
  let longest = 0;
  for (let n = 0; performance.now() < end; n++) {
    const begin = performance.now();
    await turn(n);
    longest = Math.max(longest, performance.now() - begin);
  }
  return longest;
};
/** Processes that each want a core until \`stop\`. */
const startNeighbours = (count) => {
  const script = 'const parent = process.ppid; while (process.ppid === parent) for (let i = 0; i < 1e6; i++);';
  const all = Array.from({ length: count }, () => spawn(process.execPath, ['-e', script], { stdio: 'ignore' }));
  return () => { for (const one of all) one.kill('SIGKILL'); };
};
`;

interface Outcome {
  readonly wrong: number;
  /** Of a turn, in ms. */
  readonly longest: number;
}

/** No turn needs a second of computing; several seconds of waiting for it are a stall. */
const STALL_MS = 10_000;

function expectNoStall(outcome: Outcome): void {
  expect(outcome).toEqual({ wrong: 0, longest: expect.any(Number) });
  expect(outcome.longest).toBeLessThan(STALL_MS);
}

const run = (script: string): Outcome => runChildOk<Outcome>(`${start}${script}`);

describe.runIf(!(loadAddon() instanceof Error))('on a busy machine', () => {
  test('beside a process on every core', () => {
    expectNoStall(
      run(`
      const stop = startNeighbours(availableParallelism());
      const longest = await repeat(1500, (n) => runSync(n % problems.length));
      stop();
      console.log(JSON.stringify({ wrong, longest }));`),
    );
  });

  test('with more threads than cores, while their number changes', () => {
    expectNoStall(
      run(`
      const longest = await repeat(1500, async (n) => {
        sdpa.setNumThreads(1 + (n * 7) % 32);
        const calls = [0, 1, 2, 3].map((i) => runAsync((n + i) % problems.length, 1 + (n + i) % 40));
        sdpa.setNumThreads(1 + (n * 5) % 9);
        runSync(n % problems.length, 64);
        await Promise.all(calls);
      });
      console.log(JSON.stringify({ wrong, longest }));`),
    );
  });

  test('many calls at once, from several workers, sync and async', () => {
    const inWorker = `
      const { parentPort, workerData } = require('node:worker_threads');
      import(workerData.url).then(async (sdpa) => {
        const body = new (Object.getPrototypeOf(async () => {}).constructor)('sdpa', 'require', workerData.body);
        parentPort.postMessage(await body(sdpa, require));
      });`;
    expectNoStall(
      run(`
      const body = ${JSON.stringify(
        `${start.replaceAll(/^import (.*) from '(.*)';$/gm, "const $1 = require('$2');")}
        const longest = await repeat(1500, async (n) => {
          const calls = [0, 1, 2].map((i) => runAsync((n + i) % problems.length));
          runSync(n % problems.length, n % 4 || undefined);
          await Promise.all(calls);
        });
        return { wrong, longest };`,
      )};
      const startWorker = () => new Promise((resolve, reject) => {
        const worker = new Worker(${JSON.stringify(inWorker)}, { eval: true, execArgv: [], workerData: { url, body } });
        worker.on('message', resolve).on('error', reject);
      });
      const others = Array.from({ length: 6 }, startWorker);
      let longest = await repeat(1500, async (n) => {
        const calls = Array.from({ length: 24 }, (_, i) => runAsync((n + i) % problems.length));
        runSync(n % problems.length);
        await Promise.all(calls);
      });
      for (const other of await Promise.all(others)) {
        wrong += other.wrong;
        longest = Math.max(longest, other.longest);
      }
      console.log(JSON.stringify({ wrong, longest }));`),
    );
  });

  test('a parked pool uses no time', { retry: 3 }, () => {
    const { idle } = runChildOk<{ idle: number }>(`${start}
      sdpa.setNumThreads(8);
      for (let n = 0; n < 20; n++) runSync(n % problems.length);
      await new Promise((resolve) => setTimeout(resolve, 200));
      const before = process.cpuUsage();
      await new Promise((resolve) => setTimeout(resolve, 1000));
      const { user, system } = process.cpuUsage(before);
      console.log(JSON.stringify({ idle: (user + system) / 1000 }));`);
    // Milliseconds in a second: Node's own timers and garbage collector.
    expect(idle).toBeLessThan(100);
  });
});
