// Peak memory beyond inputs and outputs of long contexts, one (24,4,256) layer. Each case is a process of its own.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { randomTensor } from '../dist/cli/random-tensor.js';
import { SHAPES } from '../dist/cli/workloads.js';
import { attention, KVCache, Tensor } from '../dist/index.js';
import { print } from './machine.mjs';
import { forgetPeak, residentMiB } from './resident.mjs';

const LIMIT_MIB = 64;
const { numHeads, numKvHeads, headDim } = SHAPES.qwen;

const CASES = {
  'decode, 131072 keys': () => {
    const { q, k, v, out } = makeInputs(1, 131072);
    return () => attention(q, k, v, { causal: true, out });
  },
  'decode through KVCache, 131072 keys': () => {
    const { q, k, v, out } = makeInputs(1, 4096);
    const cache = new KVCache({ numKvHeads, headDim });
    while (cache.length < 131072) cache.append(k, v);
    return () => cache.attend(q, { out });
  },
  'prefill, 32768 tokens': () => {
    const { q, k, v, out } = makeInputs(32768, 32768);
    return () => attention(q, k, v, { causal: true, out });
  },
};

function makeInputs(qLen, kvLen) {
  return {
    q: randomTensor([1, numHeads, qLen, headDim], 1),
    k: randomTensor([1, numKvHeads, kvLen, headDim], 2),
    v: randomTensor([1, numKvHeads, kvLen, headDim], 3),
    out: Tensor.full([1, numHeads, qLen, headDim], 1),
  };
}

function runCase(name) {
  const work = CASES[name]();
  globalThis.gc();
  const before = forgetPeak();
  const start = performance.now();
  work();
  const seconds = (performance.now() - start) / 1000;
  console.log(JSON.stringify({ before, growth: residentMiB('VmHWM') - before, seconds }));
}

export default async function run() {
  if (process.platform !== 'linux') return console.log('\nMemory: measured on Linux only');
  const rows = Object.keys(CASES).map((name) => {
    const child = spawnSync(process.execPath, ['--expose-gc', fileURLToPath(import.meta.url), name], {
      encoding: 'utf8',
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    if (child.status !== 0)
      throw new Error(`${name}: the process ended with ${child.status ?? child.signal}`);
    const { before, growth, seconds } = JSON.parse(child.stdout);
    const mark = `<= ${LIMIT_MIB} ${growth <= LIMIT_MIB ? 'ok' : 'HIGH'}`;
    return [name, before.toFixed(0), growth.toFixed(1), mark, seconds.toFixed(2)];
  });
  print('Peak memory, float32, one layer 24/4/256', ['case', 'before MiB', 'growth MiB', '', 's'], rows);
}

if (process.argv[1] === fileURLToPath(import.meta.url)) runCase(process.argv[2]);
