// Refuses what the addon asks for (memory, address space, threads), one request after the other, under a script of public
// operations (test/faults/operations.mjs), and says how many requests were refused:
//   node scripts/test-faults.mjs            each request, and each with all that follow
//   node scripts/test-faults.mjs --short    some of them
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync } from 'node:fs';
import { resolve } from 'node:path';
import { pathToFileURL } from 'node:url';

const root = resolve(import.meta.dirname, '..');
const shim = resolve(root, '.cache/allocations.so');
const library = pathToFileURL(resolve(root, 'dist/index.js')).href;
// Of a process of its own (cold), and of rounds in one process (warm), every so many requests.
const every = process.argv.includes('--short') ? { cold: 61, warm: 23 } : { cold: 1, warm: 1 };
const AT_ONCE = 2;
const LIMIT = 10_000; // requests; a round has a few hundred

function skip(reason) {
  console.log(`test-faults: skipped, ${reason}`);
  process.exit(0);
}

function fail(what, output) {
  console.error(`test-faults: ${what}\n${output}`);
  process.exit(1);
}

function compileShim() {
  const compiler = process.env.CC ?? 'cc';
  if (process.platform !== 'linux' || !process.report.getReport().header.glibcVersionRuntime)
    skip('only glibc can be preloaded as it needs');
  if (process.env.LD_PRELOAD) skip('something is preloaded already: a sanitizer has its own allocator');
  if (spawnSync(compiler, ['--version']).error) skip(`${compiler} not found (Debian: apt-get install gcc)`);
  if (!existsSync(resolve(root, 'build/Release/node_sdpa.node')))
    skip('the addon is not built: npm run build');
  mkdirSync(resolve(root, '.cache'), { recursive: true });
  const source = resolve(root, 'test/faults/allocations.c');
  const { status, stderr } = spawnSync(
    compiler,
    ['-shared', '-fPIC', '-O1', '-Wall', '-o', shim, source, '-ldl', '-pthread'],
    { encoding: 'utf8' },
  );
  if (status !== 0) fail('allocations.c does not compile', stderr);
}

/** What operations.mjs told; the end of everything where it found something, or did not end well. */
function operate(temperature, mode, number) {
  const script = resolve(root, 'test/faults/operations.mjs');
  const child = spawn(process.execPath, [script, library, temperature, mode, String(number)], {
    env: { ...process.env, LD_PRELOAD: shim, NODE_SDPA_NUM_THREADS: '2' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => (output += data));
  return new Promise((done) => {
    child.on('close', (code, signal) => {
      if (code !== 0) fail(`${temperature} ${mode} ${number}: ended with ${signal ?? code}`, output);
      done(JSON.parse(output));
    });
  });
}

/** A process for each request, until one asks for fewer. */
async function sweepCold(mode) {
  let [at, injected, refused, isOver] = [1, 0, 0, false];
  const lane = async () => {
    while (!isOver && at < LIMIT) {
      const own = at;
      at += every.cold;
      const told = await operate('cold', mode, own);
      injected += told.injected;
      refused += told.refused;
      isOver ||= told.injected === 0;
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, lane));
  return { injected, refused };
}

compileShim();
let total = 0;
for (const mode of ['once', 'after']) {
  for (const [name, sweep] of [
    ['in one process', () => operate('warm', mode, every.warm)],
    ['in a process each', () => sweepCold(mode)],
  ]) {
    const { injected, refused } = await sweep();
    total += injected;
    const what = mode === 'once' ? 'one request refused' : 'that and all later requests refused';
    console.log(`test-faults: ${what}, ${name}: ${injected} rounds, ${refused} operations refused`);
  }
}
console.log(`test-faults: ok, ${total} rounds`);
