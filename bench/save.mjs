// Saving and loading 1 GiB of cache: seconds beside those of a copy and of an append of as many bytes, and the memory that it
// takes beside the cache and the bytes. Files lie in memory (/dev/shm), so that no disk is measured. Each case is a process of
// its own, and measured the second time: at the first a virtual machine must find the memory.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { open, unlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { randomTensor } from '../dist/cli/random-tensor.js';
import { KVCache } from '../dist/index.js';
import { print } from './machine.mjs';
import { forgetPeak, residentMiB } from './resident.mjs';

const HEADS = { numKvHeads: 8, headDim: 128 };
const TOKENS = 131072;
const GIB = 2 ** 30;
const path = join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), `node-sdpa-bench-${process.pid}.kv`);

function makeCache() {
  const cache = new KVCache(HEADS);
  const rows = randomTensor([1, HEADS.numKvHeads, 8192, HEADS.headDim], 1);
  while (cache.length < TOKENS) cache.append(rows, rows);
  return cache;
}

async function withFile(flags, use) {
  const file = await open(path, flags);
  try {
    return await use(file);
  } finally {
    await file.close();
  }
}

/** Prepares a case; returns what is timed, and what its result holds beside the pieces that cross, in GiB. */
const CASES = {
  copy: async () => {
    const [from, to] = [Buffer.alloc(GIB, 1), Buffer.alloc(GIB, 2)];
    return { result: 0, run: () => from.copy(to) };
  },
  'new bytes': async () => ({ result: 1, run: () => Buffer.alloc(GIB, 1) }),
  append: async () => ({ result: 1, run: makeCache }),
  save: async () => {
    const cache = makeCache();
    return { result: 1, run: () => cache.save() };
  },
  load: async () => {
    const cache = makeCache();
    const bytes = cache.save();
    cache.dispose();
    return { result: 1, run: () => KVCache.load(bytes) };
  },
  saveTo: async () => {
    const cache = makeCache();
    return { result: 0, run: () => withFile('w', (file) => cache.saveTo(file)) };
  },
  loadFrom: async () => {
    const cache = makeCache();
    await withFile('w', (file) => cache.saveTo(file));
    cache.dispose();
    return { result: 1, run: () => withFile('r', (file) => KVCache.loadFrom(file)) };
  },
};

async function warmUp(run) {
  const result = await run();
  if (result instanceof KVCache) result.dispose();
}

async function runCase(name) {
  try {
    const { result, run } = await CASES[name]();
    await warmUp(run);
    await new Promise(setImmediate);
    globalThis.gc();
    const before = forgetPeak();
    const cpu = process.cpuUsage();
    const start = performance.now();
    await run();
    const seconds = (performance.now() - start) / 1000;
    const { user, system } = process.cpuUsage(cpu);
    const growth = before === null ? 0 : residentMiB('VmHWM') - before - result * 1024;
    console.log(JSON.stringify({ seconds, user: user / 1e6, system: system / 1e6, growth }));
  } finally {
    await unlink(path).catch(() => {});
  }
}

export default async function run() {
  const rows = Object.keys(CASES).map((name) => {
    const child = spawnSync(process.execPath, ['--expose-gc', fileURLToPath(import.meta.url), name], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    if (child.status !== 0)
      throw new Error(`${name}: the process ended with ${child.status ?? child.signal}`);
    const { seconds, user, system, growth } = JSON.parse(child.stdout);
    return [name, ...[seconds, user, system, 1 / seconds].map((x) => x.toFixed(2)), growth.toFixed(1)];
  });
  print('1 GiB of cache saved and loaded', ['case', 's', 'user s', 'system s', 'GiB/s', 'growth MiB'], rows);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await runCase(process.argv[2]);
