// The addon must load wherever the official Node binaries do: on Linux the symbol versions that it asks for stay at or below
// these, on Windows it imports from no library but those that every Windows has. Checks the build and all of prebuilds/, or the
// files given.
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';

const ceilings = { GLIBC: [2, 28], GLIBCXX: [3, 4, 22], CXXABI: [1, 3, 11] };
const ofWindows = /^(node\.exe|kernel32\.dll|msvcrt\.dll|ucrtbase\.dll|api-ms-win-crt-.+\.dll)$/i;
const root = resolve(import.meta.dirname, '..');

if (process.platform !== 'linux' || spawnSync('objdump', ['--version']).error) {
  console.log('check-abi: skipped, needs Linux and objdump (binutils)');
  process.exit(0);
}

function addons() {
  if (process.argv.length > 2) return process.argv.slice(2).map((path) => resolve(root, path));
  const folder = join(root, 'prebuilds');
  const shipped = existsSync(folder) ? readdirSync(folder, { recursive: true }) : [];
  return [
    join(root, 'build/Release/node_sdpa.node'),
    ...shipped.filter((path) => /(\.glibc|win32.*)\.node$/.test(path)).map((path) => join(folder, path)),
  ];
}

function objdump(option, addon) {
  const { status, stdout, stderr } = spawnSync('objdump', [option, addon], { encoding: 'utf8' });
  if (status === 0) return stdout;
  console.error(`check-abi: ${stderr.trim() || `objdump failed on ${addon}`}`);
  process.exit(1);
}

/** Negative, zero or positive as version a is below, at or above b. */
function compare(a, b) {
  const length = Math.max(a.length, b.length);
  for (let i = 0; i < length; i++) if ((a[i] ?? 0) !== (b[i] ?? 0)) return (a[i] ?? 0) - (b[i] ?? 0);
  return 0;
}

/** What an ELF file asks for, in words, and what of it is too new. */
function symbolVersions(addon) {
  const highest = {};
  const breaches = [];
  for (const [, library, version, symbol] of objdump('-T', addon).matchAll(
    /\(?(GLIBC|GLIBCXX|CXXABI)_([\d.]+)\)?\s+(\S+)$/gm,
  )) {
    const numbers = version.split('.').map(Number);
    if (compare(numbers, highest[library] ?? [0]) > 0) highest[library] = numbers;
    if (compare(numbers, ceilings[library]) > 0)
      breaches.push(`${symbol} needs ${library}_${version}, above ${library}_${ceilings[library].join('.')}`);
  }
  return { asks: Object.entries(highest).map(([name, version]) => `${name} ${version.join('.')}`), breaches };
}

/** The same of a Windows file: the libraries that it imports from. */
function importedLibraries(addon) {
  const asks = [...objdump('-p', addon).matchAll(/DLL Name: (\S+)/g)].map(([, name]) => name);
  return {
    asks,
    breaches: asks.filter((name) => !ofWindows.test(name)).map((name) => `imports from ${name}`),
  };
}

const told = [];
let failed = false;
for (const addon of addons()) {
  const { asks, breaches } = addon.includes('win32') ? importedLibraries(addon) : symbolVersions(addon);
  const name = relative(root, addon);
  for (const breach of breaches) console.error(`check-abi: ${name}: ${breach}`);
  failed ||= breaches.length > 0;
  told.push(`${name}: ${asks.join(', ')}`);
}
console.log(`check-abi: ${failed ? 'failed' : 'ok'} (${told.join('; ')})`);
process.exitCode = failed ? 1 : 0;
