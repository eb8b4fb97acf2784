// The addon must load wherever the official Node binaries do: the symbol versions it asks for stay at or below these.
import { spawnSync } from 'node:child_process';
import { resolve } from 'node:path';

const ceilings = { GLIBC: [2, 28], GLIBCXX: [3, 4, 22], CXXABI: [1, 3, 11] };
const addon = resolve(import.meta.dirname, '..', process.argv[2] ?? 'build/Release/node_sdpa.node');

if (process.platform !== 'linux' || spawnSync('objdump', ['--version']).error) {
  console.log('check-abi: skipped, needs Linux and objdump (binutils)');
  process.exit(0);
}

const { status, stdout, stderr } = spawnSync('objdump', ['-T', addon], { encoding: 'utf8' });
if (status !== 0) {
  console.error(`check-abi: ${stderr.trim() || `objdump failed on ${addon}`}`);
  process.exit(1);
}

/** Negative, zero or positive as version a is below, at or above b. */
function compare(a, b) {
  const length = Math.max(a.length, b.length);
  for (let i = 0; i < length; i++) if ((a[i] ?? 0) !== (b[i] ?? 0)) return (a[i] ?? 0) - (b[i] ?? 0);
  return 0;
}

const highest = {};
const breaches = [];
for (const [, library, version, symbol] of stdout.matchAll(
  /\(?(GLIBC|GLIBCXX|CXXABI)_([\d.]+)\)?\s+(\S+)$/gm,
)) {
  const numbers = version.split('.').map(Number);
  if (compare(numbers, highest[library] ?? [0]) > 0) highest[library] = numbers;
  if (compare(numbers, ceilings[library]) > 0)
    breaches.push(`${symbol} needs ${library}_${version}, above ${library}_${ceilings[library].join('.')}`);
}
for (const breach of breaches) console.error(`check-abi: ${breach}`);
const summary = Object.entries(highest).map(([library, version]) => `${library} ${version.join('.')}`);
console.log(`check-abi: ${breaches.length === 0 ? 'ok' : 'failed'} (${summary.join(', ')})`);
process.exitCode = breaches.length === 0 ? 0 : 1;
