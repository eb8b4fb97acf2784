import { selectBackend } from './backend.ts';
import { NativeLoadError, OptionError } from './errors.ts';
import { loadAddon, MAX_THREADS } from './native/loader.ts';
import { formatValue } from './tensor-layout.ts';
import { VERSION } from './version.ts';

/** What computes, and why. */
export interface BackendInfo {
  readonly backend: 'native' | 'reference';
  /** The instruction set in use; 'typescript' for the reference backend. */
  readonly isa: string;
  /** Every instruction set that this machine could use, best first. */
  readonly isas: readonly string[];
  /** Features of the processor that kernels could use. */
  readonly features: readonly string[];
  /** The processor, as it calls itself. */
  readonly cpu: string;
  readonly threads: number;
  readonly version: string;
  /** Why this backend and not the other. */
  readonly reason: string;
}

/**
 * What computes here, and why.
 *
 * @example
 * const { backend, isa, reason } = backendInfo(); // such as 'native' and 'avx512'
 */
export function backendInfo(): BackendInfo {
  const addon = loadAddon();
  const backend = selectBackend().name;
  const unwanted = 'NODE_SDPA_BACKEND asks for the reference backend';
  if (addon instanceof NativeLoadError) {
    return {
      backend,
      isa: 'typescript',
      isas: [],
      features: [],
      cpu: '',
      threads: 1,
      version: VERSION,
      reason:
        process.env.NODE_SDPA_BACKEND === 'reference' ? `${unwanted}; and ${addon.message}` : addon.message,
    };
  }
  const native = backend === 'native';
  return {
    backend,
    isa: native ? addon.activeIsa() : 'typescript',
    isas: addon.isas(),
    features: addon.features(),
    cpu: addon.cpuBrand(),
    threads: native ? addon.getNumThreads() : 1,
    version: VERSION,
    reason: native
      ? process.env.NODE_SDPA_ISA
        ? 'NODE_SDPA_ISA chose the instruction set'
        : 'the best instruction set of this machine'
      : unwanted,
  };
}

/**
 * Threads that one call may use; 1 where the addon is missing.
 * @example const threads = getNumThreads();
 */
export function getNumThreads(): number {
  const addon = loadAddon();
  return addon instanceof NativeLoadError ? 1 : addon.getNumThreads();
}

/**
 * Sets how many threads later calls of this process may use, all of its workers included. Threads beyond the cores that
 * the system lets the process use would only take turns, and are not started. Without effect where the addon is missing.
 *
 * @param n a whole number from 1 to 1024
 * @throws OptionError
 * @example
 * setNumThreads(1);
 * getNumThreads(); // 1
 */
export function setNumThreads(n: number): void {
  if (!Number.isInteger(n) || n < 1 || n > MAX_THREADS) {
    throw new OptionError(
      `setNumThreads: n must be a whole number from 1 to ${MAX_THREADS}; got ${formatValue(n)}`,
    );
  }
  const addon = loadAddon();
  if (!(addon instanceof NativeLoadError)) addon.setNumThreads(n);
}
