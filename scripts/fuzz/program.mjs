// A case: a program that follows from its seed, and what becomes of it.
import { CACHES } from './caches.mjs';
import { CALLS } from './calls.mjs';
import { Context } from './context.mjs';
import { Field } from './field.mjs';
import { Finding } from './finding.mjs';
import { print, smaller } from './source.mjs';
import { sweep } from './sweep.mjs';

const ENTRIES = { ...CALLS, ...CACHES };
const WEIGHTS = Object.fromEntries(Object.entries(ENTRIES).map(([name, [, weight]]) => [name, weight]));

const AsyncFunction = (async () => {}).constructor;

/** So many programs apart are those that leave nothing to chance. */
const SWEEP_EVERY = 16;

/** The lines of the program of a seed. */
export function generate(seed) {
  const context = new Context(seed);
  if (seed % SWEEP_EVERY === 0) {
    sweep(context, seed / SWEEP_EVERY);
    return context.lines;
  }
  const [make] = ENTRIES[context.random.weighted(WEIGHTS)];
  make(context);
  return context.lines;
}

const textOf = (lines) => lines.map(print).join('\n');

/**
 * Runs a program.
 *
 * @returns {Promise<{ calls: number, refused: number, judged: number, finding: string | null }>}
 */
export async function run(lines, sdpa) {
  const field = new Field(sdpa);
  let finding = null;
  try {
    await new AsyncFunction('f', 'sdpa', textOf(lines))(field, sdpa);
  } catch (error) {
    finding =
      error instanceof Finding ? error.message : `the program itself failed: ${error?.stack ?? error}`;
  }
  const { calls, refused, judged } = field;
  return { calls, refused, judged, finding };
}

/** What two findings have in common if they are the same one. */
const kindOf = (finding) => finding?.split('\n')[0].replace(/\d+/g, '#').slice(0, 60);

/** A program as short as dropping parts makes it that still shows the finding. */
export async function shrink(lines, finding, sdpa, attempts = 400) {
  const kind = kindOf(finding);
  const shows = async (candidate) => attempts-- > 0 && kindOf((await run(candidate, sdpa)).finding) === kind;
  let best = lines;
  for (let isSmaller = true; isSmaller && attempts > 0; ) {
    isSmaller = false;
    for (const candidate of candidatesOf(best)) {
      if (!(await shows(candidate))) continue;
      best = candidate;
      isSmaller = true;
      break;
    }
  }
  return best;
}

function* candidatesOf(lines) {
  for (let n = lines.length - 1; n >= 0; n--) yield lines.filter((_, i) => i !== n);
  for (let n = 0; n < lines.length; n++) {
    for (const line of smaller(lines[n])) yield lines.map((other, i) => (i === n ? line : other));
  }
}

/** A program as a script to be run from the root of a checkout. */
export function scriptOf(lines) {
  return [
    "import * as sdpa from './dist/index.js';",
    "import { Field } from './scripts/fuzz/field.mjs';",
    'const f = new Field(sdpa);',
    textOf(lines),
  ].join('\n');
}
