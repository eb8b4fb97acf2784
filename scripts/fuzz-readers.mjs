// Feeds the readers of files with bytes that lie: .npy, .safetensors, caches, config.json.
//
//   npm run fuzz:readers -- [--seconds 60 | --runs N] [--seed N] [--only npy,safetensors,cache,config]
//   node scripts/fuzz-readers.mjs --replay npy=FILE
//
// Guided by coverage: V8 tells which blocks of dist/ ran, and an input that reached a new one is kept and changed further. Each
// reader must give a value or throw an SdpaError, within a second and 64 MiB, and what it gave must read equal when written again
// (scripts/readers/targets.mjs). The first finding is written into .cache/fuzz and ends the run with exit code 1.
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { Session } from 'node:inspector/promises';
import { join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { makeRandom, mutate } from './readers/mutate.mjs';
import { TARGETS } from './readers/targets.mjs';

const MOST_MILLISECONDS = 1000;
const MOST_BYTES = 64 * 2 ** 20;
const BATCH = 64;

const { values: options } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    runs: { type: 'string' },
    seed: { type: 'string', default: String(Date.now() % 2 ** 31) },
    only: { type: 'string', default: Object.keys(TARGETS).join(',') },
    replay: { type: 'string' },
  },
});
const root = resolve(import.meta.dirname, '..');

const session = new Session();
session.connect();
await session.post('Profiler.enable');
await session.post('Profiler.startPreciseCoverage', { callCount: true, detailed: true });

/** Blocks of dist/ that ran since the last call. */
async function takeBlocks() {
  const { result } = await session.post('Profiler.takePreciseCoverage');
  const blocks = [];
  for (const { url, functions } of result) {
    if (!url.includes('/dist/')) continue;
    for (const { ranges } of functions)
      for (const { startOffset, endOffset, count } of ranges)
        if (count > 0) blocks.push(`${url.slice(url.lastIndexOf('/'))}:${startOffset}-${endOffset}`);
  }
  return blocks;
}

const bytesInUse = () => {
  const { heapUsed, arrayBuffers, external } = process.memoryUsage();
  return heapUsed + arrayBuffers + external;
};

/** @throws what is wrong with it */
async function runOne(target, bytes) {
  const before = bytesInUse();
  const begin = performance.now();
  await target.run(bytes);
  const milliseconds = performance.now() - begin;
  if (milliseconds > MOST_MILLISECONDS) {
    const again = performance.now(); // the machine may have been busy
    await target.run(bytes);
    if (performance.now() - again > MOST_MILLISECONDS)
      throw new Error(`it took ${Math.round(milliseconds)} ms`);
  }
  const taken = bytesInUse() - before;
  if (taken > MOST_BYTES) throw new Error(`it took ${taken} bytes`);
}

function report(name, bytes, error) {
  const folder = join(root, '.cache', 'fuzz');
  mkdirSync(folder, { recursive: true });
  const path = join(folder, `${name}-${Date.now()}`);
  writeFileSync(path, bytes);
  console.error(`fuzz-readers: ${name}: ${error.stack}`);
  console.error(`${Buffer.from(bytes).toString('base64').slice(0, 2000)}`);
  console.error(`again: node scripts/fuzz-readers.mjs --replay ${name}=${path}`);
  process.exit(1);
}

async function fuzz(name, target, seed, isOver) {
  const random = makeRandom(seed);
  const corpus = target.seeds().map((bytes) => Buffer.from(bytes));
  const known = new Set();
  const learn = async (inputs) => {
    for (const bytes of inputs) await runOne(target, bytes).catch((error) => report(name, bytes, error));
    const fresh = (await takeBlocks()).filter((block) => !known.has(block));
    return fresh;
  };
  for (const block of await learn(corpus)) known.add(block);
  const seeded = known.size;
  let runs = 0;
  while (!isOver(runs)) {
    const batch = Array.from({ length: BATCH }, () => {
      const changed = mutate(random.pick(corpus), random, { words: target.words, corpus });
      return random.below(8) === 0 ? changed : target.fix(changed);
    });
    runs += batch.length;
    if ((await learn(batch)).length === 0) continue;
    // Which of them it was: one after the other again.
    for (const bytes of batch) {
      const fresh = (await learn([bytes])).filter((block) => !known.has(block));
      if (fresh.length === 0) continue;
      for (const block of fresh) known.add(block);
      if (corpus.length < 2000) corpus.push(Buffer.from(bytes));
    }
  }
  console.log(
    `${name}: ${runs} inputs, ${corpus.length} kept, ${known.size} blocks reached (${seeded} by valid files)`,
  );
}

if (options.replay) {
  const [name, path] = options.replay.split('=');
  await runOne(TARGETS[name], readFileSync(path));
  console.log('fuzz-readers: nothing found');
} else {
  const names = options.only.split(',');
  for (const name of names) {
    const end = performance.now() + (Number(options.seconds) * 1000) / names.length;
    const isOver = (runs) => (options.runs ? runs >= Number(options.runs) : performance.now() > end);
    await fuzz(name, TARGETS[name], Number(options.seed), isOver);
  }
  console.log(`fuzz-readers: ok (seed ${options.seed})`);
}
