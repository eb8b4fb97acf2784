// The vitest suite over an addon under AddressSanitizer and UndefinedBehaviorSanitizer. Arguments go to vitest:
//   node scripts/test-sanitized.mjs                        all of it
//   node scripts/test-sanitized.mjs test/native            a part
//   node scripts/test-sanitized.mjs --short                the part that matters most
// The addon comes from the tree of scripts/test-native.mjs; a copy of the checkout in .cache/sanitized finds it where the
// library looks for its own.
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '..');
process.chdir(root);
const build = 'build-cmake-address-undefined';
const copy = resolve('.cache/sanitized');
const LEFT_OUT = /^(\.git|\.cache|node_modules|build.*|prebuilds|coverage)$/;

// What cannot be under a sanitizer.
const EXCLUDED = [
  'test/native/cache-limits.test.ts', // limits address space, of which AddressSanitizer reserves 16 TiB
  'test/native/memory-limits.test.ts', // the same
  'test/native/faults.test.ts', // has an allocator of its own
  'test/native/cache-memory.test.ts', // the size of the process, to which a sanitizer adds what was freed
  'test/native/leaks.test.ts', // the same
  'test/package/**', // of the package and its documents, not of the addon
];

// Where the addon's memory is handled: borders, caches, threads. The C++ tests have the kernels.
const SHORT = ['async', 'repeated-step', 'workers', 'hostile', 'step-all'].map((name) => `/${name}.test.ts`);
SHORT.push('/kv-cache-async.test.ts', '/kv-cache.test.ts');

function skip(reason) {
  console.log(`test-sanitized: skipped, ${reason}`);
  process.exit(0);
}

function run(command, args, env) {
  const { status, signal } = spawnSync(command, args, {
    stdio: ['ignore', 'inherit', 'inherit'],
    cwd: env ? copy : root,
    env: { ...process.env, ...env },
  });
  if (status === 0) return;
  console.error(
    `test-sanitized: ${command} ${args.slice(0, 3).join(' ')} failed (${signal ?? `exit code ${status}`})`,
  );
  process.exit(1);
}

/** The runtime of a sanitizer, which must be there before everything else. */
function runtime(name) {
  const { stdout } = spawnSync('g++', [`-print-file-name=${name}`], { encoding: 'utf8' });
  return stdout?.includes('/') ? stdout.trim() : undefined;
}

function buildAddon() {
  const headers = ['node_modules/node-addon-api', 'node_modules/node-api-headers/include'].map((path) =>
    resolve(path),
  );
  run('cmake', [
    ...['-S', 'native', '-B', build, '-DSDPA_TESTS_ONLY=ON', '-DSDPA_SANITIZE=address,undefined'],
    `-DSDPA_NODE_HEADERS=${headers.join(';')}`,
  ]);
  run('cmake', ['--build', build, '--parallel', String(availableParallelism()), '--target', 'node_sdpa']);
}

function copyCheckout() {
  rmSync(copy, { recursive: true, force: true });
  mkdirSync(join(copy, 'build/Release'), { recursive: true });
  for (const name of readdirSync('.').filter((name) => !LEFT_OUT.test(name))) {
    cpSync(name, join(copy, name), { recursive: true });
  }
  symlinkSync(resolve('node_modules'), join(copy, 'node_modules'));
  cpSync(join(build, 'node_sdpa.node'), join(copy, 'build/Release/node_sdpa.node'));
}

if (process.platform !== 'linux') skip('it needs Linux');
const missing = ['cmake', 'make', 'g++'].filter((tool) => spawnSync(tool, ['--version']).error);
if (missing.length > 0) skip(`${missing.join(', ')} not found (Debian: apt-get install cmake make g++)`);
const preloaded = ['libasan.so', 'libubsan.so'].map(runtime);
if (preloaded.includes(undefined)) skip('g++ has no libasan and libubsan');
if (!existsSync('dist/index.js')) skip('dist/ is missing: npm run build');

buildAddon();
copyCheckout();
const given = process.argv.slice(2);
const isShort = given.includes('--short');
const files = isShort ? SHORT : given;
run(
  process.execPath,
  [
    'node_modules/vitest/vitest.mjs',
    ...['run', ...files, '--testTimeout=600000', '--hookTimeout=600000'],
    ...EXCLUDED.map((path) => `--exclude=${path}`),
  ],
  {
    LD_PRELOAD: preloaded.join(' '),
    // Leaks: V8 leaves its heap to the end of the process. The addon's are found by the C++ tests, and by
    // memoryInfo() at the end of a soak.
    ASAN_OPTIONS: 'detect_leaks=0:strict_string_checks=1',
    UBSAN_OPTIONS: 'print_stacktrace=1',
    SDPA_SANITIZED: '1',
    ...(isShort && { FAST_CHECK_RUNS: '5' }),
  },
);
console.log('test-sanitized: ok');
