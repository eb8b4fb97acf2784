import { createHash } from 'node:crypto';
import { afterAll, describe, expect, test } from 'vitest';
import { attention } from '../../lib/attention.ts';
import { backendInfo } from '../../lib/backend-info.ts';
import { loadAddon } from '../../lib/native/loader.ts';
import { Tensor } from '../../lib/tensor.ts';
import { runChild, runChildOk } from '../child.ts';

// ISAs add in different orders, so the bits of a result tell which one has run.
const addon = loadAddon();
const isas = addon instanceof Error ? [] : addon.isas();

/** [qLen, kvLen]: the prefill kernel and the decode kernel. */
const SHAPES = [
  [64, 64, 'float32'],
  [1, 300, 'float32'],
  [130, 300, 'bfloat16'],
] as const;

function fingerprints(): string[] {
  return SHAPES.map(([qLen, kvLen, dtype]) => {
    const make = (length: number, seed: number): Tensor => Tensor.randn([1, 2, length, 64], { seed, dtype });
    const out = attention(make(qLen, 1), make(kvLen, 2), make(kvLen, 3), { causal: true, backend: 'native' });
    return createHash('sha256').update(out.data).digest('hex');
  });
}

const script = `
import { createHash } from 'node:crypto';
const prints = ${JSON.stringify(SHAPES)}.map(([qLen, kvLen, dtype]) => {
  const make = (length, seed) => sdpa.Tensor.randn([1, 2, length, 64], { seed, dtype });
  const out = sdpa.attention(make(qLen, 1), make(kvLen, 2), make(kvLen, 3), { causal: true });
  return createHash('sha256').update(out.data).digest('hex');
});
const { isa, reason } = sdpa.backendInfo();
console.log(JSON.stringify({ isa, reason, prints }));
`;
interface Told {
  readonly isa: string;
  readonly reason: string;
  readonly prints: readonly string[];
}

describe.runIf(isas.length > 0)('NODE_SDPA_ISA', () => {
  if (addon instanceof Error) return;
  const active = addon.activeIsa();
  afterAll(() => void addon.selectIsa(active));

  test('every ISA has results of its own', () => {
    const prints = isas.map((isa) => {
      expect(addon.selectIsa(isa)).toBe(true);
      expect(addon.activeIsa()).toBe(isa);
      return fingerprints();
    });
    expect(new Set(prints.map((print) => print.join())).size).toBe(isas.length);
  });

  test.each(isas)('%s: this one runs', (isa) => {
    addon.selectIsa(isa);
    const told = runChildOk<Told>(script, { env: { NODE_SDPA_ISA: isa } });
    expect(told).toEqual({ isa, reason: 'NODE_SDPA_ISA chose the instruction set', prints: fingerprints() });
  });

  test('without it the best one runs', () => {
    const { isa, prints } = runChildOk<Told>(script, { env: { NODE_SDPA_ISA: '' } });
    addon.selectIsa(isa);
    expect(prints).toEqual(fingerprints());
    // vdpbf16ps is slow on some processors that have it; AMX where a build for tests emulates it, without the feature.
    const mayBeSlow = (name: string) =>
      name === 'avx512bf16' || (name === 'amx' && !backendInfo().features.includes('amx-bf16'));
    expect(isa).toBe(isas.find((name) => !mayBeSlow(name) || name === isa));
  });

  test.each(['sse9', 'AVX2', 'avx', ['neon', 'avx2'].find((isa) => !isas.includes(isa))!])(
    '%s, which the machine lacks, is refused with those it has',
    (isa) => {
      const { status, stderr } = runChild(script, { env: { NODE_SDPA_ISA: isa } });
      expect(status).toBe(1);
      expect(stderr).toContain(`OptionError: NODE_SDPA_ISA asks for '${isa}'`);
      expect(stderr).toContain(`it has ${isas.join(', ')}`);
    },
  );

  test('is nothing to the reference backend', () => {
    const env = { NODE_SDPA_ISA: 'sse9', NODE_SDPA_BACKEND: 'reference' };
    expect(
      runChildOk('console.log(sdpa.attention(...Array(3).fill(sdpa.Tensor.zeros([1, 1, 1]))).data[0])', {
        env,
      }),
    ).toBe(0);
  });
});
