import { afterEach, describe, expect, test } from 'vitest';
import { backendInfo, getNumThreads, setNumThreads } from '../../lib/backend-info.ts';
import { OptionError } from '../../lib/errors.ts';
import { loadAddon } from '../../lib/native/loader.ts';
import { formatValue } from '../../lib/tensor-layout.ts';
import { VERSION } from '../../lib/version.ts';
import { runChild, runChildOk } from '../child.ts';

const hasAddon = !(loadAddon() instanceof Error);

test.runIf(hasAddon)('backendInfo tells what computes', () => {
  const info = backendInfo();
  expect(info.backend).toBe('native');
  expect(info.isas).toContain(info.isa);
  expect(info.isas.at(-1)).toBe('portable');
  expect(info.threads).toBe(getNumThreads());
  expect(info.version).toBe(VERSION);
  expect(info.reason).not.toBe('');
});

describe.runIf(hasAddon)('setNumThreads', () => {
  const before = getNumThreads();
  afterEach(() => setNumThreads(before));

  test('is what getNumThreads and backendInfo tell', () => {
    for (const n of [1, 3, 1024]) {
      setNumThreads(n);
      expect([getNumThreads(), backendInfo().threads]).toEqual([n, n]);
    }
  });

  test.each([0, -1, 1.5, NaN, Infinity, 1025, '2', null, undefined])('refuses %s', (n) => {
    expect(() => setNumThreads(n as number)).toThrow(OptionError);
    expect(() => setNumThreads(n as number)).toThrow(`from 1 to 1024; got ${formatValue(n)}`);
    expect(getNumThreads()).toBe(before);
  });
});

describe.runIf(hasAddon)('NODE_SDPA_NUM_THREADS', () => {
  test.each(['1', '3', '1024'])('%s', (value) => {
    const env = { NODE_SDPA_NUM_THREADS: value };
    expect(runChildOk('console.log(sdpa.getNumThreads())', { env })).toBe(Number(value));
  });

  test('empty is none', () => {
    const env = { NODE_SDPA_NUM_THREADS: '' };
    expect(runChildOk('console.log(sdpa.getNumThreads())', { env })).toBe(getNumThreads());
  });

  test.each(['0', '-1', '2.5', 'all', '1e3', ' 2', '1025', '99999'])(
    '%s is refused at the first use',
    (value) => {
      const { status, stderr } = runChild('sdpa.getNumThreads()', { env: { NODE_SDPA_NUM_THREADS: value } });
      expect(status).toBe(1);
      expect(stderr).toContain('OptionError');
      expect(stderr).toContain(`NODE_SDPA_NUM_THREADS must be a whole number from 1 to 1024, got '${value}'`);
    },
  );
});
