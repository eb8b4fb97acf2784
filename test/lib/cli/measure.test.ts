import { expect, test } from 'vitest';
import { measure, median } from '../../../lib/cli/measure.ts';

test('median', () => {
  expect(median([3, 1, 2])).toBe(2);
  expect(median([4, 1, 2, 3])).toBe(2.5);
  expect(median([5])).toBe(5);
});

test('measure: every run is undone, a ceiling stands before and after each, and the share is rate by ceiling', async () => {
  const events: string[] = [];
  const work = { run: () => void events.push('run'), rewind: () => void events.push('rewind') };
  let rate = 100;
  const ceiling = (seconds: number): number => {
    expect(seconds).toBeGreaterThanOrEqual(0);
    events.push('ceiling');
    rate += 100;
    return rate;
  };
  const {
    seconds,
    samples,
    share,
    ceiling: medianCeiling,
  } = await measure(work, 0, ceiling, {
    seconds: 0,
    minSamples: 3,
  });
  const sample = ['run', 'rewind', 'ceiling'];
  expect(events).toEqual(['ceiling', ...sample, ...sample, ...sample]);
  expect({ samples, share, medianCeiling }).toEqual({ samples: 3, share: 0, medianCeiling: 400 });
  expect(seconds).toBeGreaterThanOrEqual(0);
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
