// What there is to time or to judge: the ISAs of this machine, and the dtypes and precisions each computes in a way of
// its own. All can be narrowed down: { isa, dtype, precision } of the command line.
import { addon, isas, withEachIsa } from './machine.mjs';

// Ask the probe whether an ISA has tiles; that these two run the same code where no tile takes part, no probe tells.
// So float32 ('highest', 'high') and float16 of the first are not run twice.
const SAME_WITHOUT_TILES = { avx512bf16: 'avx512' };

/** Map of the ISAs that the filters leave, best first, to their variants [{ dtype, precision }], the most exact first. */
export async function planVariants(filters) {
  const plan = new Map();
  await withEachIsa(isas, (isa) => {
    const variants = variantsOf(isa).filter((variant) => matches({ isa, ...variant }, filters));
    if (variants.length > 0) plan.set(isa, variants);
  });
  if (plan.size > 0) return plan;
  const asked = Object.entries(filters).map(([name, value]) => `--${name} ${value}`);
  throw new Error(`nothing is left by ${asked.join(' ')}; this machine has ${isas.join(', ')}`);
}

/** The variants of an ISA that is in use. */
function variantsOf(isa) {
  const hasTiles = addon.tileProbe(1, 1) > 0;
  const isTwin = isas.includes(SAME_WITHOUT_TILES[isa]);
  const variants = [
    // Without tiles, 'high' and 'medium' compute as 'highest' does.
    { dtype: 'float32', precision: 'highest', isOwn: !isTwin },
    { dtype: 'float32', precision: 'high', isOwn: hasTiles && !isTwin },
    { dtype: 'float32', precision: 'medium', isOwn: hasTiles },
    { dtype: 'float16', precision: 'highest', isOwn: !isTwin },
    { dtype: 'bfloat16', precision: 'highest', isOwn: true },
  ];
  return variants.filter(({ isOwn }) => isOwn).map(({ dtype, precision }) => ({ dtype, precision }));
}

function matches(variant, filters = {}) {
  return Object.entries(filters).every(([name, value]) => variant[name] === value);
}

/** 'bfloat16'; 'float32 high' where dtype alone does not say it. */
export function formatVariant({ dtype, precision }) {
  return dtype === 'float32' ? `${dtype} ${precision}` : dtype;
}

/** Says in a line what this machine cannot tell. */
export function printMissing() {
  const missing = ['amx', 'avx512'].filter((isa) => !isas.includes(isa));
  if (missing.length > 0) console.log(`\nThis machine lacks ${missing.join(' and ')}: the rest follows.`);
}
