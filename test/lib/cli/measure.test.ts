import { expect, test } from 'vitest';
import { measure, median } from '../../../lib/cli/measure.ts';

test('median', () => {
  expect(median([3, 1, 2])).toBe(2);
  expect(median([4, 1, 2, 3])).toBe(2.5);
  expect(median([5])).toBe(5);
});

test('measure: every run is undone, short ones are timed in rows, and a ceiling stands before and after each', async () => {
  const events: string[] = [];
  const work = { run: () => void events.push('run'), rewind: () => void events.push('rewind') };
  let rate = 100;
  const ceiling = (seconds: number): number => {
    expect(seconds).toBeGreaterThanOrEqual(0);
    events.push('ceiling');
    rate += 100;
    return rate;
  };
  const measured = await measure(work, 0, ceiling, { seconds: 0, minSamples: 3 });
  const row = (runs: number) => [...Array.from({ length: runs }, () => ['run', 'rewind']).flat(), 'ceiling'];
  expect(events).toEqual(['ceiling', ...row(1), ...row(32), ...row(32)]);
  const { seconds, samples, share, ceiling: medianCeiling } = measured;
  expect({ samples, share, medianCeiling }).toEqual({ samples: 3, share: 0, medianCeiling: 400 });
  expect(seconds).toBeGreaterThanOrEqual(0);
});

test('measure: a run of two milliseconds is a sample', async () => {
  let runs = 0;
  const run = (): void => {
    const end = performance.now() + 2;
    while (performance.now() < end);
    runs++;
  };
  const { samples, seconds } = await measure({ run, rewind: () => {} }, 1, null, {
    seconds: 0,
    minSamples: 4,
  });
  expect({ runs, samples }).toEqual({ runs: 4, samples: 4 });
  expect(seconds).toBeGreaterThanOrEqual(0.002);
});

test('measure: the share compares a run with the mean of its neighbours', async () => {
  const busy = (): void => {
    const end = performance.now() + 2;
    while (performance.now() < end);
  };
  const rates = [100, 300];
  const { seconds, share } = await measure(
    { run: busy, rewind: () => {} },
    1,
    () => rates.shift() as number,
    {
      seconds: 0,
      minSamples: 1,
    },
  );
  expect(share).toBeCloseTo(1 / seconds / 200, 10);
});

test('measure: without a ceiling there is no share', async () => {
  const work = { run: () => {}, rewind: () => {} };
  expect(await measure(work, 1, null, { seconds: 0, minSamples: 2 })).toMatchObject({
    samples: 2,
    share: null,
    ceiling: null,
  });
});
