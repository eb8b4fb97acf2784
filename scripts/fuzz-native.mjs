// Builds the fuzzers of native/fuzz/ with clang, AddressSanitizer and UBSan, and runs them:
//
//   npm run fuzz:native -- [--seconds 60] [--only problem,cache]
//
// Corpora grow in .cache/fuzz/<name>, from nothing. A finding ends the run with exit code 1, its input beside the corpus.
// Skipped, with the reason, where clang or CMake is missing.
import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';

process.chdir(resolve(import.meta.dirname, '..'));
const { values: options } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    only: { type: 'string', default: 'problem,cache' },
  },
});
const names = options.only.split(',');
const folder = 'build-fuzz';

const compiler = process.env.CXX ?? 'clang++';
const missing = ['cmake', 'make', compiler].filter(
  (tool) => spawnSync(tool, ['--version'], { stdio: 'ignore' }).error,
);
if (missing.length > 0) {
  console.log(
    `fuzz-native: skipped, ${missing.join(', ')} not found (Debian: apt-get install cmake make clang)`,
  );
  process.exit(0);
}

function run(command, args, env = {}) {
  const { status, signal } = spawnSync(command, args, {
    stdio: ['ignore', 'inherit', 'inherit'],
    env: { ...process.env, ...env },
  });
  if (status === 0) return;
  console.error(`fuzz-native: ${command} failed (${signal ?? `exit code ${status}`})`);
  process.exit(1);
}

const sanitizers = 'fuzzer-no-link,address,undefined,float-cast-overflow';
run('cmake', ['-S', 'native', '-B', folder, '-DSDPA_TESTS_ONLY=ON', `-DSDPA_SANITIZE=${sanitizers}`], {
  CXX: compiler,
});
const targets = names.map((name) => `sdpa_fuzz_${name}`);
run('cmake', ['--build', folder, '--parallel', String(availableParallelism()), '--target', ...targets]);

for (const name of names) {
  const corpus = join('.cache', 'fuzz', name);
  mkdirSync(corpus, { recursive: true });
  const limits = [
    '-max_len=800',
    '-len_control=0',
    '-timeout=20',
    '-rss_limit_mb=4096',
    '-print_final_stats=1',
  ];
  console.log(`fuzz-native: ${name}, ${options.seconds} s`);
  run(
    join(folder, `sdpa_fuzz_${name}`),
    [`-max_total_time=${options.seconds}`, `-artifact_prefix=${corpus}-`, ...limits, corpus],
    { UBSAN_OPTIONS: 'print_stacktrace=1' },
  );
}
console.log('fuzz-native: ok');
