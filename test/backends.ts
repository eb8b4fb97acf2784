import { NativeLoadError } from '../lib/errors.ts';
import { loadAddon } from '../lib/native/loader.ts';
import type { AttentionProblem } from '../lib/problem.ts';

/** One way to compute: the oracle, or the addon on one ISA. */
export interface BackendUnderTest {
  /** `reference`, `native/avx2`, … */
  readonly name: string;
  /** The `backend` option that asks for it. */
  readonly backend: Exclude<AttentionProblem['backend'], 'auto'>;
  /** Makes the addon use this ISA from here on; call it before the tests of this backend. */
  readonly select: () => void;
}

/** Every backend this machine has: the reference always, the addon once for each ISA. Says why where there is no addon. */
export function backendsUnderTest(): BackendUnderTest[] {
  const reference: BackendUnderTest = { name: 'reference', backend: 'reference', select: () => {} };
  const addon = loadAddon();
  if (addon instanceof NativeLoadError) {
    console.warn(`only the reference backend is tested: ${addon.message}`);
    return [reference];
  }
  const select = (isa: string) => (): void => {
    if (!addon.selectIsa(isa)) throw new Error(`the addon lists ${isa} but does not select it`);
  };
  const isas = addon.isas();
  return [
    reference,
    ...isas.map((isa) => ({ name: `native/${isa}`, backend: 'native' as const, select: select(isa) })),
  ];
}
