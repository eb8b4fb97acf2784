// Which lines of native/ run, by gcov: the addon and the C++ tests are built with counters (build-cmake-coverage/), the C++
// tests run, then those of the suite that reach the addon, in a copy of this tree that holds the counting addon.
//   node scripts/coverage-native.mjs            90% of the lines, or it fails
//   node scripts/coverage-native.mjs --report   of the counts that are there
import { spawnSync } from 'node:child_process';
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, relative, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '..');
process.chdir(root);
const build = resolve('build-cmake-coverage');
const copy = join(build, 'package');
const least = 0.9;
const suite = [
  'test/hostile-numbers.test.ts',
  ...[
    'async',
    'cache-limits',
    'determinism',
    'hostile',
    'isa',
    'probes',
    'repeated-step',
    'threads',
    'workers',
  ].map((name) => `test/native/${name}.test.ts`),
  ...['attention-stats', 'draft-tree', 'step-all'].map((name) => `test/lib/${name}.test.ts`),
  'test/lib/kv-cache',
];

function run(command, args, options = {}) {
  const { status, signal } = spawnSync(command, args, {
    stdio: ['ignore', 'inherit', 'inherit'],
    ...options,
  });
  if (status !== 0) console.error(`coverage-native: ${command} failed (${signal ?? status})`);
  return status === 0;
}

function filesUnder(folder, ending) {
  return readdirSync(folder, { recursive: true })
    .filter((name) => name.endsWith(ending) && !name.startsWith('package'))
    .map((name) => join(folder, name));
}

/** Builds with counters and runs the tests; false where one of them failed. */
function countLines() {
  const includes = ['node-api-headers/include', 'node-addon-api'].map((name) =>
    resolve('node_modules', name),
  );
  const configured = run('cmake', [
    ...['-S', 'native', '-B', build, '-DSDPA_COVERAGE=ON', '-DSDPA_TESTS_ONLY=OFF', '-DCMAKE_JS_VERSION=8'],
    ...[`-DCMAKE_JS_INC=${includes.join(';')}`, '-DCMAKE_JS_SRC=', '-DCMAKE_JS_LIB='],
  ]);
  const jobs = String(availableParallelism());
  if (
    !configured ||
    !run('cmake', ['--build', build, '--parallel', jobs, '--target', 'sdpa_tests', 'node_sdpa'])
  )
    return false;

  for (const file of filesUnder(build, '.gcda')) rmSync(file);
  rmSync(copy, { recursive: true, force: true });
  mkdirSync(join(copy, 'build/Release'), { recursive: true });
  for (const name of ['lib', 'test', 'scripts', 'dist', 'package.json', 'vitest.config.ts', 'tsconfig.json'])
    cpSync(name, join(copy, name), { recursive: true });
  cpSync(join(build, 'node_sdpa.node'), join(copy, 'build/Release/node_sdpa.node'));
  symlinkSync(resolve('node_modules'), join(copy, 'node_modules'));
  return (
    run(join(build, 'sdpa_tests'), []) &&
    // Threads, since the counters are written when a process ends by itself.
    run(
      process.execPath,
      [resolve('node_modules/vitest/vitest.mjs'), 'run', '--pool=threads', '--maxWorkers=1', ...suite],
      {
        cwd: copy,
        env: { ...process.env, FAST_CHECK_RUNS: '5', NODE_OPTIONS: '' },
      },
    )
  );
}

const missing = ['cmake', 'make', 'g++', 'gcov'].filter(
  (tool) => spawnSync(tool, ['--version'], { stdio: 'ignore' }).error,
);
if (missing.length > 0) {
  console.log(
    `coverage-native: skipped, ${missing.join(', ')} not found (Debian: apt-get install cmake make g++)`,
  );
  process.exit(0);
}
const passed = process.argv[2] === '--report' || countLines();

/** file -> line -> times, over all units that compile the file. */
const lines = new Map();
for (const notes of filesUnder(build, '.gcno')) {
  const { stdout } = spawnSync('gcov', ['--json-format', '--stdout', '--object-file', notes, notes], {
    encoding: 'utf8',
    maxBuffer: 2 ** 30,
    cwd: build,
  });
  for (const report of stdout
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line))) {
    for (const { file, lines: counted } of report.files) {
      const name = relative(root, resolve(report.current_working_directory, file));
      if (!/^native\/(?!test|bench|fuzz)/.test(name)) continue;
      const times = lines.get(name) ?? new Map();
      for (const { line_number, count } of counted)
        times.set(line_number, (times.get(line_number) ?? 0) + count);
      lines.set(name, times);
    }
  }
}

/** What this machine cannot run. */
const flags = readFileSync('/proc/cpuinfo', 'utf8');
const lacks = (name) =>
  (/amx/.test(name) && !/amx_bf16/.test(flags)) ||
  (/avx512/.test(name) && !/avx512bw/.test(flags)) ||
  /neon/.test(name);
let [total, hit] = [0, 0];
const apart = [];
const missed = [];
for (const [name, times] of [...lines].sort()) {
  const covered = [...times.values()].filter((count) => count > 0).length;
  if (lacks(name)) {
    apart.push(`${name} (${covered} of ${times.size})`);
    continue;
  }
  total += times.size;
  hit += covered;
  const never = [...times].filter(([, count]) => count === 0).map(([line]) => line);
  if (never.length > 0)
    missed.push(
      `${name}: ${((100 * covered) / times.size).toFixed(1)}%, not ${never.sort((a, b) => a - b).join(' ')}`,
    );
}
console.log(missed.join('\n'));
console.log(`apart, since this machine cannot run it: ${apart.join(', ') || 'nothing'}`);
console.log(`coverage-native: ${hit} of ${total} lines, ${((100 * hit) / total).toFixed(2)}%`);
process.exitCode = passed && hit >= least * total ? 0 : 1;
