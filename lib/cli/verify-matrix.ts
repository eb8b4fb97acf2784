import { setImmediate } from 'node:timers/promises';
import { type AttentionResult, attention } from '../attention.ts';
import { backendInfo } from '../backend-info.ts';
import { judge, measure, type Yardstick } from '../compare-attention.ts';
import { describeAttention } from '../describe-attention.ts';
import type { DType } from '../dtype.ts';
import { KVCache } from '../kv-cache.ts';
import { alibiSlopes } from '../modules/alibi.ts';
import type { CacheDType } from '../modules/describe-model.ts';
import { loadAddon } from '../native/loader.ts';
import type { AttentionOptions } from '../options.ts';
import { Tensor } from '../tensor.ts';
import type { ProgressBar } from './progress-bar.ts';
import { formatShare, formatTable } from './table.ts';

/** All problems of one kind on one ISA. */
export interface MatrixRow {
  readonly isa: string;
  readonly dtype: DType;
  readonly path: 'attention' | 'KVCache';
  readonly problems: number;
  readonly failed: number;
  /** The largest error, as a share of what is tolerated. */
  readonly worstShare: number;
  /** Each failure in one line. */
  readonly failures: readonly string[];
}

/** What `verify` found about this machine's kernels; plain data. */
export interface MatrixReport {
  readonly pass: boolean;
  readonly backend: 'native' | 'reference';
  readonly reason: string;
  readonly rows: readonly MatrixRow[];
}

/** One problem's heads, tokens and channels. */
export interface Shape {
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly qLen: number;
  readonly kvLen: number;
  readonly headDim: number;
  readonly valueDim: number;
}

/** Lengths at the edges of tiles, primes, long and short; heads alone, grouped and multi-query; odd head sizes. */
export const SHAPES: readonly Shape[] = (
  [
    [4, 2, 1, 1, 64, 64],
    [4, 2, 1, 300, 128, 128],
    [8, 1, 1, 1025, 64, 64],
    [6, 2, 5, 131, 96, 96],
    [2, 2, 17, 64, 32, 32],
    [4, 1, 33, 65, 80, 80],
    [2, 1, 64, 256, 128, 128],
    [2, 2, 65, 257, 64, 40],
    [3, 1, 97, 97, 37, 61],
    [2, 1, 40, 130, 256, 256],
  ] as const
).map(([numHeads, numKvHeads, qLen, kvLen, headDim, valueDim]) => ({
  ...{ numHeads, numKvHeads, qLen, kvLen, headDim, valueDim },
}));

/** Each feature alone, and all together. */
const FEATURES: readonly (readonly [name: string, options: (shape: Shape) => AttentionOptions])[] = [
  ['plain', () => ({})],
  ['causal', () => ({ causal: true })],
  ['window', () => ({ causal: true, window: { left: 20, sinkTokens: 2 } })],
  ['softcap', () => ({ causal: true, softcap: 3 })],
  ['sinks', ({ numHeads }) => ({ causal: true, sinks: Tensor.randn([numHeads], { seed: 7 }) })],
  ['alibi', ({ numHeads }) => ({ causal: true, alibiSlopes: alibiSlopes(numHeads) })],
  ['bias', ({ qLen, kvLen }) => ({ bias: Tensor.randn([qLen, kvLen], { seed: 8 }) })],
  ['mask', ({ qLen, kvLen }) => ({ mask: stripes(qLen, kvLen) })],
  [
    'all',
    ({ numHeads, qLen, kvLen }) => ({
      ...{
        causal: true,
        softcap: 5,
        scale: 0.2,
        window: { left: 50 },
        sinks: Tensor.randn([numHeads], { seed: 7 }),
      },
      ...{ bias: Tensor.randn([qLen, kvLen], { seed: 8 }), mask: stripes(qLen, kvLen) },
      alibiSlopes: alibiSlopes(numHeads),
    }),
  ],
];

const DTYPES = ['float32', 'float16', 'bfloat16'] as const;

/** A mask with holes of many lengths, and rows that see nothing. */
function stripes(qLen: number, kvLen: number): Tensor {
  const bits = Uint8Array.from({ length: qLen * kvLen }, (_, n) => {
    const [i, j] = [Math.floor(n / kvLen), n % kvLen];
    return i % 11 === 10 || (i + j * j) % 7 < 3 ? 0 : 1;
  });
  return new Tensor(bits, [qLen, kvLen], { dtype: 'bool' });
}

/** Every shape with every feature and dtype, through `attention` and through a KVCache, on each ISA of the machine. */
export async function verifyMachine(progress: ProgressBar, shapes = SHAPES): Promise<MatrixReport> {
  const { backend, reason } = backendInfo();
  const addon = loadAddon();
  const isas = addon instanceof Error || backend === 'reference' ? ['typescript'] : addon.isas();
  const active = addon instanceof Error ? '' : addon.activeIsa();
  const rows = new Map<string, Tally>();
  const total = shapes.length * FEATURES.length * DTYPES.length;
  let done = 0;
  try {
    for (const shape of shapes) {
      for (const [feature, optionsOf] of FEATURES) {
        for (const dtype of DTYPES) {
          progress.show(done++, total, `${feature}, ${dtype}`);
          // Lets an interrupt through.
          await setImmediate();
          const problem = new Problem(shape, feature, optionsOf(shape), dtype);
          for (const isa of isas) {
            if (!(addon instanceof Error) && backend === 'native') addon.selectIsa(isa);
            for (const path of ['attention', 'KVCache'] as const) problem.checkOn(isa, path, rows);
          }
        }
      }
    }
  } finally {
    if (!(addon instanceof Error)) addon.selectIsa(active);
  }
  const order = (row: MatrixRow): number => isas.indexOf(row.isa);
  const all = [...rows.values()].map((tally) => tally.row()).sort((a, b) => order(a) - order(b));
  return { pass: all.every((row) => row.failed === 0), backend, reason, rows: all };
}

class Tally {
  readonly #key: Pick<MatrixRow, 'isa' | 'dtype' | 'path'>;
  #problems = 0;
  #worstShare = 0;
  readonly #failures: string[] = [];

  constructor(key: Pick<MatrixRow, 'isa' | 'dtype' | 'path'>) {
    this.#key = key;
  }

  add(name: string, yardstick: Yardstick, result: AttentionResult): void {
    const report = judge(yardstick, result, this.#key.isa === 'typescript' ? 'reference' : 'native');
    const { outTolerance } = yardstick;
    this.#problems++;
    const shares = [
      report.maxAbs / outTolerance.maxAbs,
      report.relativeFrobenius / outTolerance.relativeFrobenius,
    ];
    for (const share of shares) if (share > this.#worstShare) this.#worstShare = share;
    if (!report.pass) this.#failures.push(`${name}: ${`${report}`.replaceAll('\n', '; ')}`);
  }

  row(): MatrixRow {
    return {
      ...this.#key,
      problems: this.#problems,
      failed: this.#failures.length,
      worstShare: this.#worstShare,
      failures: this.#failures,
    };
  }
}

/** One problem with its answer, which is computed once for all ISAs. */
class Problem {
  readonly #name: string;
  readonly #inputs: readonly [Tensor, Tensor, Tensor];
  readonly #options: AttentionOptions;
  readonly #dtype: DType;
  readonly #yardstick: Yardstick;

  constructor(shape: Shape, feature: string, options: AttentionOptions, dtype: DType) {
    const { numHeads, numKvHeads, qLen, kvLen, headDim, valueDim } = shape;
    this.#name = `${feature}, ${numHeads}/${numKvHeads}/${headDim}-${valueDim}, ${qLen} x ${kvLen}`;
    this.#inputs = [
      Tensor.randn([1, numHeads, qLen, headDim], { seed: 1, dtype }),
      Tensor.randn([1, numKvHeads, kvLen, headDim], { seed: 2, dtype }),
      Tensor.randn([1, numKvHeads, kvLen, valueDim], { seed: 3, dtype }),
    ];
    this.#options = options;
    this.#dtype = dtype;
    this.#yardstick = measure(describeAttention('verify', ...this.#inputs, options));
  }

  checkOn(isa: string, path: MatrixRow['path'], rows: Map<string, Tally>): void {
    const key = { isa, dtype: this.#dtype, path };
    const name = Object.values(key).join();
    const tally = rows.get(name) ?? new Tally(key);
    rows.set(name, tally);
    tally.add(this.#name, this.#yardstick, path === 'attention' ? this.#attend() : this.#attendCached());
  }

  #attend(): AttentionResult {
    return attention(...this.#inputs, { ...this.#options, returnLse: true });
  }

  #attendCached(): AttentionResult {
    const [q, k, v] = this.#inputs;
    const [, numKvHeads, , headDim] = k.shape;
    const layout = { numKvHeads, headDim, valueDim: v.shape[3], dtype: this.#dtype as CacheDType };
    using cache = new KVCache(layout).append(k, v);
    return cache.attend(q, { causal: false, ...this.#options, returnLse: true }) as AttentionResult;
  }
}

/** The matrix for people. */
export function formatMatrix({ pass, backend, reason, rows }: MatrixReport): string {
  const lines = formatTable(
    ['ISA', 'dtype', 'through', 'problems', 'failed', 'largest error, of what is tolerated'],
    rows.map((row) => [
      row.isa,
      row.dtype,
      row.path,
      String(row.problems),
      String(row.failed),
      formatShare(row.worstShare),
    ]),
    3,
  );
  const failures = rows.flatMap((row) => row.failures.map((text) => `${row.isa}, ${row.path}: ${text}`));
  const verdict = pass ? 'pass: every result is within the tolerance of the oracle' : 'FAIL';
  const why = backend === 'native' ? [] : [`only the TypeScript backend was checked: ${reason}`];
  return `${[...lines, '', ...failures, ...why, verdict].join('\n')}\n`;
}
