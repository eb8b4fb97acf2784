// Timing one system after the other; several in turn: lib/cli/time-in-turn.ts.
import Benchmark from 'benchmark';

export { timeInTurn } from '../../dist/cli/time-in-turn.js';

/** Runs back to back by the benchmark package: mean seconds, and the relative margin of error. */
export function timeBackToBack({ name, run, rewind }) {
  return new Promise((resolve, reject) => {
    const options = {
      minSamples: 5,
      maxTime: 1,
      onComplete: ({ target: { error, stats } }) =>
        error ? reject(error) : resolve({ seconds: stats.mean, marginOfError: stats.rme / 100 }),
    };
    const isAsync = run.constructor.name === 'AsyncFunction';
    const body = (deferred) => {
      const running = run();
      if (!isAsync) return rewind();
      running.then(() => {
        rewind();
        deferred.resolve();
      }, reject);
    };
    new Benchmark(name, body, { ...options, defer: isAsync }).run();
  });
}
