// The native tree as the build and the checks see it: which sources a folder holds and with which flags they
// are compiled. binding.gyp asks on the command line:
//   node scripts/native-tree.mjs sources runtime      node scripts/native-tree.mjs flags avx2 gcc
//   node scripts/native-tree.mjs headers node-addon-api
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = new URL('../native/', import.meta.url);
const require = createRequire(import.meta.url);

/** native/isa.json: flags of every unit (`common`), of binding and runtime, then arch and flags of each ISA. */
export const isaTable = JSON.parse(readFileSync(new URL('isa.json', root), 'utf8'));

/** The .cc files of native/<folder>, relative to the repository. */
export function sources(folder) {
  return readdirSync(new URL(`${folder}/`, root))
    .filter((name) => name.endsWith('.cc'))
    .sort()
    .map((name) => `native/${folder}/${name}`);
}

/** Compiler flags of an ISA, of everything (`common`), of binding and runtime (`runtime`); compiler is 'gcc' (and clang) or 'msvc'. */
export function flags(name, compiler) {
  return (isaTable.isas[name] ?? isaTable[name])[compiler];
}

/**
 * Where the headers of a package are, relative to the working folder, whose own path may have spaces: beside the sources where
 * those were shipped, else in node_modules.
 */
export function headers(name) {
  const beside = fileURLToPath(new URL(`../headers/${name}/`, import.meta.url));
  const folder = existsSync(beside) ? beside : dirname(require.resolve(`${name}/package.json`));
  const path = relative('.', name === 'node-api-headers' ? join(folder, 'include') : folder);
  return [path.replaceAll('\\', '/')];
}

const queries = { sources, flags, headers };
const [query, ...args] = process.argv[1]?.endsWith('native-tree.mjs') ? process.argv.slice(2) : [];
if (query) console.log(queries[query](...args).join(' '));
