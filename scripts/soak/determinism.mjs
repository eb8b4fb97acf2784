// The same inputs give the same bits: any number of threads, sync or async, alone or beside other work, run after run, on
// each ISA. Compares every run with the first one, of one thread; the bits themselves are written down nowhere.
//   node scripts/soak/determinism.mjs --runs 1000
//   node scripts/soak/determinism.mjs --minutes 5      as many runs as fit
import { createHash } from 'node:crypto';
import { availableParallelism } from 'node:os';
import { parseArgs } from 'node:util';
import { Worker } from 'node:worker_threads';

const { values } = parseArgs({
  options: {
    runs: { type: 'string' },
    minutes: { type: 'string', default: '5' },
    isa: { type: 'string', multiple: true }, // one process each, since the environment pins it
    'load-every': { type: 'string', default: '40' }, // runs, a quarter of which has company
    json: { type: 'boolean', default: false },
  },
});

const sdpa = await import('../../dist/index.js');
const { KVCache, Tensor, attention, attentionAsync } = sdpa;
const { isas } = sdpa.backendInfo();

const make = (heads, length, seed, dtype = 'float32') =>
  Tensor.randn([1, heads, length, 32], { seed, dtype });
const of = (heads, kvHeads, qLen, kvLen, dtype) => [
  make(heads, qLen, 1, dtype),
  make(kvHeads, kvLen, 2, dtype),
  make(kvHeads, kvLen, 3, dtype),
];
const split = (x) => x.squeeze(0);
const dense = (inputs, options) => ({
  sync: (more) => attention(...inputs, { ...options, ...more, returnLse: true }),
  async: (more) => attentionAsync(...inputs, { ...options, ...more, returnLse: true }),
});
const cached = (dtype, length, qLen, options = {}) => {
  const [k, v] = [make(2, length, 2), make(2, length, 3)];
  const q = make(8, qLen, 1);
  const cache = new KVCache({ numKvHeads: 2, headDim: 32, dtype, ...options }).append(k, v);
  return {
    sync: (more) => cache.attend(q, { ...more, returnLse: true }),
    async: (more) => cache.attendAsync(q, { ...more, returnLse: true }),
  };
};
const stepped = (dtype) => {
  const [k, v, q] = [make(2, 41, 2), make(2, 41, 3), make(8, 41, 1)];
  const prompt = [make(2, 1500, 4), make(2, 1500, 5)];
  const tokens = (t) => [q, k, v].map((x) => x.slice(2, t, t + 1));
  const start = () => new KVCache({ numKvHeads: 2, headDim: 32, dtype }).append(...prompt);
  return {
    sync: (more) => {
      const cache = start();
      const outs = Array.from({ length: 8 }, (_, t) => cache.step(...tokens(t), more));
      cache.dispose();
      return outs;
    },
    async: async (more) => {
      const cache = start();
      const outs = [];
      for (let t = 0; t < 8; t++) outs.push(await cache.stepAsync(...tokens(t), more));
      cache.dispose();
      return outs;
    },
  };
};
const shared = (dtype) => {
  const root = new KVCache({ numKvHeads: 2, headDim: 32, dtype }).append(make(2, 900, 2), make(2, 900, 3));
  const [q, k, v] = [8, 2, 2].map((heads, n) => Tensor.randn([5, heads, 1, 32], { seed: 20 + n }));
  const sync = (more) => {
    const forks = Array.from({ length: 5 }, () => root.fork());
    try {
      return KVCache.stepAll(forks, q, k, v, { ...more, returnLse: true });
    } finally {
      for (const fork of forks) fork.dispose();
    }
  };
  return { sync, async: async (more) => sync(more) };
};
const ends = (...lengths) =>
  Int32Array.from([0, ...lengths.map((_, n) => lengths.slice(0, n + 1).reduce((a, b) => a + b))]);

const problems = {
  prefill: dense(of(4, 2, 257, 257), { causal: true }),
  'prefill with tails': dense(of(6, 2, 83, 301), { causal: true, softcap: 20 }),
  'prefill of bfloat16': dense(of(4, 2, 200, 300, 'bfloat16'), {}),
  'prefill of float16': dense(of(4, 1, 130, 200, 'float16'), {}),
  'precision high': dense(of(4, 2, 100, 200), { precision: 'high' }),
  'precision medium': dense(of(4, 2, 100, 200), { precision: 'medium' }),
  'decode, keys split': dense(of(8, 2, 1, 6001), {}),
  'decode of bfloat16, keys split': dense(of(8, 2, 1, 6001, 'bfloat16'), {}),
  'decode of several rows': dense(of(8, 2, 5, 3001), { causal: true }),
  'window with sinks': dense(of(4, 2, 90, 1000), {
    causal: true,
    window: { left: 100, sinkTokens: 4 },
    sinks: [1, 2, 3, 4],
  }),
  ragged: dense(of(4, 2, 306, 1000).map(split), {
    causal: true,
    cuSeqlensQ: ends(5, 200, 1, 100),
    cuSeqlensK: ends(50, 300, 500, 150),
  }),
  'int8 cache': cached('int8', 3000, 1),
  'int8 cache, many rows': cached('int8', 700, 90),
  'float16 cache': cached('float16', 3000, 2),
  'windowed cache': cached('bfloat16', 3000, 1, { window: 1024, sinkTokens: 4 }),
  steps: stepped('bfloat16'),
  'steps of int8': stepped('int8'),
  'forks, shared prefix': shared('float32'),
  'forks, shared prefix of int8': shared('int8'),
};

function hashOf(result) {
  const hash = createHash('sha256');
  const add = ({ data }) => hash.update(new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
  if (Array.isArray(result)) for (const out of result) add(out);
  else [result.out, result.lse].forEach(add);
  return hash.digest('hex');
}

/** Threads that compute something else, on every core. */
function startLoad() {
  const busy = 'for (let x = 1; ; ) x = Math.sin(x) + 1;';
  const workers = Array.from({ length: availableParallelism() }, () => new Worker(busy, { eval: true }));
  return () => Promise.all(workers.map((worker) => worker.terminate()));
}

async function watch() {
  const { threads } = sdpa.backendInfo();
  sdpa.setNumThreads(1);
  const want = Object.fromEntries(
    Object.entries(problems).map(([name, { sync }]) => [name, hashOf(sync({}))]),
  );
  sdpa.setNumThreads(Math.max(8, threads));
  const until = performance.now() + (Number(values.minutes) * 60_000) / Math.max(1, share);
  const period = Number(values['load-every']);
  const count = values.runs === undefined ? Infinity : Number(values.runs);
  const differ = new Map();
  const check = (name, result) => {
    if (hashOf(result) !== want[name]) differ.set(name, (differ.get(name) ?? 0) + 1);
  };
  let runs = 0;
  let stopLoad = null;
  for (; runs < count && (count < Infinity || performance.now() < until); runs++) {
    const more = { threads: 1 + (runs % 8) };
    if (runs % period === Math.floor((period * 3) / 4)) stopLoad = startLoad();
    for (const [name, problem] of Object.entries(problems)) {
      if (runs % 2 === 0) check(name, problem.sync(more));
      else check(name, await problem.async(more));
    }
    if (runs % 10 === 5) {
      const names = Object.keys(problems);
      const results = await Promise.all(names.map((name) => problems[name].async(more)));
      results.forEach((result, n) => {
        check(names[n], result);
      });
    }
    if (runs % period === period - 1) {
      await stopLoad?.();
      stopLoad = null;
    }
  }
  await stopLoad?.();
  return { runs, differ: Object.fromEntries(differ) };
}

const isaList = values.isa ?? isas;
const share = values.isa === undefined ? isaList.length : 1;
if (values.isa === undefined && process.env.NODE_SDPA_ISA === undefined) {
  // Each ISA in a process of its own.
  const { spawnSync } = await import('node:child_process');
  const failed = isaList.filter((isa) => {
    const length =
      values.runs === undefined
        ? ['--minutes', String(Number(values.minutes) / share)]
        : ['--runs', values.runs];
    const args = [import.meta.filename, '--isa', isa, ...length, ...(values.json ? ['--json'] : [])];
    const env = { ...process.env, NODE_SDPA_ISA: isa };
    return spawnSync(process.execPath, args, { stdio: ['ignore', 'inherit', 'inherit'], env }).status !== 0;
  });
  console.log(`determinism: ${failed.length === 0 ? 'ok' : `failed: ${failed.join(', ')}`}`);
  process.exitCode = failed.length === 0 ? 0 : 1;
} else {
  const { runs, differ } = await watch();
  const { isa } = sdpa.backendInfo();
  const names = Object.keys(problems);
  if (values.json) console.log(JSON.stringify({ isa, runs, problems: names.length, differ }));
  else
    console.log(
      `${isa}: ${runs} runs of ${names.length} problems, ${Object.keys(differ).length} differ`,
      differ,
    );
  process.exitCode = Object.keys(differ).length === 0 ? 0 : 1;
}
