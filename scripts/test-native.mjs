// Builds and runs the C++ tests through CMake, without Node's headers:
//   node scripts/test-native.mjs                      plain
//   node scripts/test-native.mjs address,undefined    under sanitizers; or: thread
import { spawnSync } from 'node:child_process';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';

process.chdir(resolve(import.meta.dirname, '..'));
const sanitizers = process.argv[2] ?? '';
const folder = sanitizers ? `build-cmake-${sanitizers.replaceAll(',', '-')}` : 'build-cmake';

const missing = ['cmake', 'make', process.env.CXX ?? 'g++'].filter(
  (tool) => spawnSync(tool, ['--version'], { stdio: 'ignore' }).error,
);
if (missing.length > 0) {
  console.log(
    `test-native: skipped, ${missing.join(', ')} not found (Debian: apt-get install cmake make g++)`,
  );
  process.exit(0);
}

function run(command, ...args) {
  const { status, signal } = spawnSync(command, args, {
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { UBSAN_OPTIONS: 'print_stacktrace=1', TSAN_OPTIONS: 'halt_on_error=1', ...process.env },
  });
  if (status === 0) return;
  console.error(`test-native: ${command} ${args.join(' ')} failed (${signal ?? `exit code ${status}`})`);
  process.exit(1);
}

// SDPA_STATIC: scripts/check-emulated.sh links the same tree otherwise.
const options = ['-DSDPA_TESTS_ONLY=ON', '-DSDPA_STATIC=OFF', `-DSDPA_SANITIZE=${sanitizers}`];
run('cmake', '-S', 'native', '-B', folder, ...options);
run('cmake', '--build', folder, '--parallel', String(availableParallelism()), '--target', 'sdpa_tests');
run(join(folder, 'sdpa_tests'));
console.log(`test-native: ok${sanitizers ? ` under ${sanitizers}` : ''}`);
