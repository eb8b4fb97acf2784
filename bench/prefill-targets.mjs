// What prefill must reach on one thread, floors: { share } of the peak that its dtype is measured by, or instead, where
// there are, { gigaflops } a second.
import { SHAPES } from '../dist/cli/workloads.js';

/** Prompts long enough that the edges of tiles and of tasks are little. */
const LONG = 1024;

/** bfloat16 at 2048 tokens: of the peak of tiles. */
const AMX_BFLOAT16 = new Map([
  [SHAPES.llama, { share: 0.36, gigaflops: 1250 }],
  [SHAPES.qwen, { share: 0.36, gigaflops: 1350 }],
  [SHAPES.minimind, { share: 0.36, gigaflops: 1000 }],
]);
/** float32 by slices of bfloat16: of the peak of FMAs, which it passes. */
const AMX_FLOAT32 = { highest: { share: 1.4 }, high: { share: 2.3 } };
/** float32: of the peak of FMAs; avx512bf16, bfloat16: of that of tiles. */
const LONG_SHARES = { 'avx512 float32': 0.8, 'avx2 float32': 0.88, 'avx512bf16 bfloat16': 0.7 };
const SHORT_SHARE = 0.6;

/** The floor of a workload on an ISA; undefined where none is set. */
export function targetOf(isa, { shape, context, dtype, precision }) {
  const isLlama = shape === SHAPES.llama;
  if (isa === 'amx') {
    if (dtype === 'bfloat16' && context >= LONG) return AMX_BFLOAT16.get(shape);
    if (dtype === 'bfloat16' && isLlama && context === 128) return { share: 0.2 };
    return dtype === 'float32' && isLlama && context >= LONG ? AMX_FLOAT32[precision] : undefined;
  }
  if (precision !== 'highest') return undefined;
  const share = context >= LONG ? LONG_SHARES[`${isa} ${dtype}`] : undefined;
  if (share !== undefined) return { share };
  return dtype === 'float32' && context >= 512 && context < LONG ? { share: SHORT_SHARE } : undefined;
}

/** Two threads over one, where the prompt is long. */
export function scalingTargetOf({ context }) {
  return context >= LONG ? 1.9 : undefined;
}
