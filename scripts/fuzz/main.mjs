// Fuzzes the public API: `npm run fuzz -- --calls 1000000 --seed 1`. Exits 1, and prints a script for each finding, where a call
// crashed, hung, threw what is no error of ours, wrote where it must not, gave wrong numbers, or left memory behind.
//
//   --calls N      at least so many calls of the public API (100000)
//   --seed N       of the first program; the same seed makes the same programs (1)
//   --jobs N       processes at a time (one a core)
//   --batch N      programs of one process, of about two calls each: few enough that a crash costs little, enough that memory
//                  which does not come back shows (4000)
//   --most N       stops after so many different findings, when the processes that run are through (25)
//   --backend B    native or reference, for calls that name none
//   --program N    only the program of that seed, printed and run
import { fork } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: {
    calls: { type: 'string', default: '100000' },
    seed: { type: 'string', default: '1' },
    jobs: { type: 'string', default: `${availableParallelism()}` },
    batch: { type: 'string', default: '4000' },
    most: { type: 'string', default: '25' },
    backend: { type: 'string' },
    program: { type: 'string' },
  },
});

const BATCH = Number(values.batch);

/** Without a word for so long, a process hangs. */
const HANG_MS = 240_000;

/** Bytes by which a process may have grown from its half to its end. */
const GROWTH = 48 * 2 ** 20;

const folder = mkdtempSync(join(tmpdir(), 'node-sdpa-fuzz-'));
const totals = { programs: 0, calls: 0, refused: 0, judged: 0 };
const findings = new Map();
const started = Date.now();
let next = 0;

const kindOf = (finding) => finding.split('\n')[0].replace(/\d+/g, '#').slice(0, 80);

function note({ finding, seed, script, calls = 0 }) {
  const kind = kindOf(finding);
  if (findings.has(kind)) return;
  findings.set(kind, seed);
  process.stdout.write(
    `\n\nFOUND after ${totals.calls + calls} calls (program ${seed}): ${finding}\n\n${script ?? `npm run fuzz -- --program ${seed}`}\n\n`,
  );
}

function progress() {
  const seconds = (Date.now() - started) / 1000;
  const line = `${totals.calls} calls (${totals.refused} refused, ${totals.judged} checked by the oracle) in ${seconds.toFixed(0)} s, ${findings.size} findings`;
  process.stdout.write(process.stdout.isTTY ? `\r${line}` : `${line}\n`);
}

/** Runs a batch; resolves when its process has ended. */
function runBatch(job) {
  const placeFile = join(folder, `place-${job}`);
  const first = next;
  next += BATCH;
  const env = { ...process.env, ...(values.backend && { NODE_SDPA_BACKEND: values.backend }) };
  const args = [values.seed, `${first}`, `${BATCH}`, placeFile];
  const child = fork(join(import.meta.dirname, 'child.mjs'), args, {
    env,
    execArgv: ['--expose-gc'],
    silent: true,
  });
  const sizes = [];
  let said = '';
  let isDone = false;
  let isHung = false;
  const watch = () =>
    setTimeout(() => {
      isHung = true;
      child.kill('SIGKILL');
    }, HANG_MS);
  let timer = watch();
  child.stderr.on('data', (text) => {
    said = (said + text).slice(-4000);
  });
  child.stdout.resume();
  child.on('message', (message) => {
    clearTimeout(timer);
    timer = watch();
    if (message.finding) return note(message);
    for (const [name, more] of Object.entries(message.totals)) totals[name] += more;
    sizes.push(message.rss);
    if (message.caches === undefined) return;
    isDone = true;
    const where = `programs ${first} to ${first + BATCH - 1} of seed ${values.seed}`;
    if (message.caches > 0)
      note({ finding: `${message.caches} native caches left behind by ${where}`, seed: first });
    if (message.bytes > 0)
      note({ finding: `${message.bytes} bytes of caches left behind by ${where}`, seed: first });
    const grown = sizes.at(-1) - sizes[sizes.length >> 1];
    if (grown > GROWTH)
      note({ finding: `${Math.round(grown / 2 ** 20)} MiB grown in ${where}`, seed: first });
  });
  return new Promise((resolve) => {
    child.on('exit', (code, signal) => {
      clearTimeout(timer);
      if (!isDone) {
        const seed = readFileSync(placeFile).readDoubleLE();
        const end = isHung ? `nothing for ${HANG_MS / 1000} s` : `the process ended with ${signal ?? code}`;
        note({ finding: `${end}\n${said}`, seed });
      }
      resolve();
    });
  });
}

async function runOne(seed) {
  const sdpa = await import('../../dist/index.js');
  const { generate, run, scriptOf } = await import('./program.mjs');
  const lines = generate(seed);
  console.log(scriptOf(lines));
  console.log(await run(lines, sdpa));
}

async function runJob(job) {
  while (totals.calls < Number(values.calls) && findings.size < Number(values.most)) await runBatch(job);
}

if (values.program !== undefined) {
  await runOne(Number(values.program));
} else {
  const timer = setInterval(progress, process.stdout.isTTY ? 1000 : 30_000);
  await Promise.all(Array.from({ length: Number(values.jobs) }, (_, job) => runJob(job)));
  clearInterval(timer);
  rmSync(folder, { recursive: true });
  progress();
  process.exitCode = findings.size > 0 ? 1 : 0;
}
