// The C++ tests under valgrind's memcheck, which sees what AddressSanitizer cannot: values that nobody has written.
//   node scripts/test-valgrind.mjs             all that it can run
//   node scripts/test-valgrind.mjs kvTokens    those whose names contain it
// valgrind knows no AVX-512 and says so by CPUID: what runs is AVX2 and portable.
import { spawnSync } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';

process.chdir(resolve(import.meta.dirname, '..'));
const folder = 'build-cmake';
const tests = join(folder, 'sdpa_tests');

// What cannot be under valgrind, and why.
const EXCLUDED = [
  /^contention_|^threadPool_|^parkedWorkers_losesNoWakeup/, // it runs one thread at a time: nothing helps, everything waits
  /^cpuFeatures_agreeWithTheKernel/, // /proc/cpuinfo speaks of the processor, CPUID of valgrind's
  /^kvCache_limitedAddressSpace/, // a limit that would bind valgrind
  // They hand inaccessible memory to write(2), which tells by EFAULT that it is: to memcheck an error.
  /^virtualMemory_reservedIsAligned|^virtualMemory_decommittedIs|^guardPage_bufferTouches/,
  /^virtualMemory_commitsWhatItIsTold/, // reserves 64 GiB, for which valgrind keeps no place
];

const missing = ['valgrind', 'cmake', 'make', process.env.CXX ?? 'g++'].filter(
  (tool) => spawnSync(tool, ['--version'], { stdio: 'ignore' }).error,
);
if (missing.length > 0) {
  console.log(
    `test-valgrind: skipped, ${missing.join(', ')} not found (Debian: apt-get install valgrind cmake make g++)`,
  );
  process.exit(0);
}

function run(command, args) {
  const { status, signal } = spawnSync(command, args, { stdio: ['ignore', 'inherit', 'inherit'] });
  if (status === 0) return;
  console.error(`test-valgrind: ${command} failed (${signal ?? `exit code ${status}`})`);
  process.exit(1);
}

run('cmake', ['-S', 'native', '-B', folder, '-DSDPA_TESTS_ONLY=ON', '-DSDPA_STATIC=OFF', '-DSDPA_SANITIZE=']);
run('cmake', ['--build', folder, '--parallel', String(availableParallelism()), '--target', 'sdpa_tests']);
const wanted = process.argv.slice(2);
const names = spawnSync(tests, ['--list'], { encoding: 'utf8' })
  .stdout.split('\n')
  .filter((name) => name !== '' && !EXCLUDED.some((excluded) => excluded.test(name)))
  .filter((name) => wanted.length === 0 || wanted.some((part) => name.includes(part)));
// "Definitely lost" only: the pool's threads live as long as the process, and their stacks are "possibly lost".
run('valgrind', [
  '--quiet',
  '--error-exitcode=9',
  '--leak-check=full',
  '--show-leak-kinds=definite',
  '--errors-for-leak-kinds=definite',
  tests,
  ...names,
]);
console.log(`test-valgrind: ok, ${names.length} tests`);
