// Each ISA's library exports one symbol (its kernel table), nothing weak, and asks for nothing but plain C and the tables of
// ISAs that it extends: a weak symbol compiled for AVX-512 could become everybody's copy and fault on an older machine. An
// argument names another folder of isa_*.a than that of the build.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { resolve } from 'node:path';
import { isaTable } from './native-tree.mjs';

const folder = resolve(process.argv[2] ?? resolve(import.meta.dirname, '../build/Release'));
const allowedUndefined =
  /^(_GLOBAL_OFFSET_TABLE_|__stack_chk_fail|mem(cpy|move|set|cmp)|__mem(cpy|move|set)_chk|bcmp|(exp|exp2|log|log2|tanh|fma|ldexp|floor|ceil|nearbyint|rint|sqrt)f?)$/;

if (process.platform !== 'linux' || spawnSync('nm', ['--version']).error) {
  console.log('check-isa-symbols: skipped, needs Linux and nm (binutils)');
  process.exit(0);
}

/** The symbols of an archive as [type letter, name]. */
function symbols(archive) {
  const { status, stdout, stderr } = spawnSync('nm', ['-P', archive], { encoding: 'utf8' });
  if (status !== 0) throw new Error(`nm ${archive}: ${stderr}`);
  return stdout
    .split('\n')
    .map((line) => line.match(/^(\S+) ([A-Za-z]) ?/))
    .filter((match) => match)
    .map(([, name, type]) => [type, name.replace(/@.*/, '')]);
}

/** Whether this is the kernel table of an ISA whose instructions `isa` has too. */
function isExtendedTable(isa, name) {
  const other = isaTable.isas[name.match(/^_?sdpa_kernels_(\w+)$/)?.[1]];
  const instructions = (flags) => flags.filter((flag) => flag.startsWith('-m'));
  return (
    other !== undefined && instructions(other.gcc).every((flag) => isaTable.isas[isa].gcc.includes(flag))
  );
}

/** What is wrong with the library of this ISA, in words. */
function faults(isa, archive) {
  const all = symbols(archive);
  const exported = all.filter(([type]) => /[A-TX-Z]/.test(type)).map(([, name]) => name);
  const weak = all.filter(([type]) => /[WwVvu]/.test(type)).map(([, name]) => name);
  const foreign = all
    .filter(([type, name]) => type === 'U' && !allowedUndefined.test(name) && !isExtendedTable(isa, name))
    .map(([, name]) => name);
  const found = [];
  if (exported.length !== 1 || !exported[0].includes(isa))
    found.push(`must export one symbol named after ${isa}, exports ${exported.join(' ') || 'none'}`);
  if (weak.length > 0) found.push(`has weak symbols: ${weak.join(' ')}`);
  if (all.some(([, name]) => name.startsWith('_GLOBAL__sub_I_')))
    found.push(
      'runs code when it is loaded (a static initializer), before anybody asked what the processor has',
    );
  if (foreign.length > 0) found.push(`needs ${foreign.join(' ')}`);
  return found;
}

const archives = existsSync(folder) ? readdirSync(folder).filter((name) => /^isa_.*\.a$/.test(name)) : [];
const expected = Object.keys(isaTable.isas).filter((isa) => isaTable.isas[isa].arch.includes(process.arch));
let failed = false;
for (const isa of expected) {
  const archive = `isa_${isa}.a`;
  const found = archives.includes(archive)
    ? faults(isa, resolve(folder, archive))
    : ['is not built; run npm run build'];
  for (const fault of found) console.error(`check-isa-symbols: ${archive} ${fault}`);
  failed ||= found.length > 0;
}
console.log(`check-isa-symbols: ${failed ? 'failed' : `ok (${expected.join(', ')})`}`);
process.exitCode = failed ? 1 : 0;
