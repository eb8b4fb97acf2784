// Asynchronous calls where it hurts: the event loop beside two seconds of attention, aborts of every kind of call, many
// calls at once, and memory afterwards. Prints a table; exits 1 where a bound is broken.
//   node scripts/soak/async.mjs [--minutes 1]
// The bounds hold on an otherwise quiet machine: what a busy one adds is seen in the idle row.
import { setMaxListeners } from 'node:events';
import { stat } from 'node:fs/promises';
import { parseArgs } from 'node:util';
import { attention, attentionAsync, KVCache, memoryInfo, Tensor } from '../../dist/index.js';

const { values } = parseArgs({ options: { minutes: { type: 'string', default: '1' } } });
const seconds = 60 * Number(values.minutes);
const rows = [];
let failed = false;
function report(what, got, bound, isGood) {
  failed ||= !isGood;
  rows.push({ what, got, bound, ok: isGood ? 'yes' : 'NO' });
}
const make = (heads, length, seed, dim = 64) => Tensor.randn([1, heads, length, dim], { seed });
const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const at = (sorted, part) => sorted[Math.floor(part * (sorted.length - 1))] ?? 0;

/** How late a timer of 1 ms comes while `work` runs: in ms, sorted. */
async function delays(work) {
  const late = [];
  let running = true;
  let last = performance.now();
  const tick = () => {
    const now = performance.now();
    late.push(now - last - 1);
    last = now;
    if (running) setTimeout(tick, 1);
  };
  setTimeout(tick, 1);
  await work();
  running = false;
  return late.sort((a, b) => a - b);
}

// The event loop beside attention on all threads, and idle, in turns.
const long = [make(16, 8000, 1), make(16, 8000, 2), make(16, 8000, 3)];
const idle = [];
const busy = [];
for (let n = 0; n < 3; n++) {
  idle.push(...(await delays(() => sleep(2000))));
  busy.push(...(await delays(() => attentionAsync(...long))));
}
for (const list of [idle, busy]) list.sort((a, b) => a - b);
const percentiles = (list) =>
  `p50 ${at(list, 0.5).toFixed(2)}, p99 ${at(list, 0.99).toFixed(2)}, max ${at(list, 1).toFixed(1)}`;
report('1 ms timer, idle: late by ms', percentiles(idle), '', true);
const bound = Math.max(5, 2 * at(idle, 0.99));
report('1 ms timer beside attention', percentiles(busy), `p99 < ${bound.toFixed(1)}`, at(busy, 0.99) < bound);

// Aborts: from abort() until the promise is rejected.
const filled = (length, options) => {
  const cache = new KVCache({ numKvHeads: 1, headDim: 64, ...options });
  const part = make(1, 65536, 9);
  for (let done = 0; done < length; done += 65536) cache.append(part, part);
  return cache;
};
const huge = filled(2 ** 20, {});
const small = filled(2 ** 20, { dtype: 'int8' });
const [q32k, kv32k] = [make(8, 4096, 4), make(8, 32768, 5)];
const one = make(1, 16384, 6, 512);
const decode = make(64, 16, 7);
const calls = {
  'prefill, 32k keys': (o) => attentionAsync(q32k, kv32k, kv32k, o),
  'one head of 512 channels': (o) => attentionAsync(one, one, one, o),
  'decode, 1M keys': (o) => huge.attendAsync(decode, { causal: false, ...o }),
  'decode, 1M keys of int8': (o) => small.attendAsync(decode, { causal: false, ...o }),
  'reference, 4k rows': (o) =>
    attentionAsync(q32k.slice(1, 0, 1), kv32k.slice(1, 0, 1), kv32k.slice(1, 0, 1), {
      ...o,
      backend: 'reference',
    }),
  'reference, a row of 32k keys': (o) =>
    attentionAsync(q32k.slice(1, 0, 1).slice(2, 0, 1), kv32k.slice(1, 0, 1), kv32k.slice(1, 0, 1), {
      ...o,
      backend: 'reference',
    }),
};
for (const [what, call] of Object.entries(calls)) {
  const took = [];
  let early = 0;
  for (let n = 0; n < 20; n++) {
    const controller = new AbortController();
    const pending = call({ signal: controller.signal }).then(
      () => early++,
      (reason) => {
        if (reason !== 'enough') throw reason;
      },
    );
    await sleep(2 + (n % 5) * 3);
    const begin = performance.now();
    controller.abort('enough');
    await pending;
    took.push(performance.now() - begin);
  }
  took.sort((a, b) => a - b);
  const got = `median ${at(took, 0.5).toFixed(1)} ms, max ${at(took, 1).toFixed(1)} ms${early ? `, ${early} had ended` : ''}`;
  report(`abort: ${what}`, got, `< ${(20 + at(idle, 1)).toFixed(0)} ms`, at(took, 1) < 20 + at(idle, 1));
}
huge.dispose();
small.dispose();

// A short call and the file system behind forty long ones.
{
  const controller = new AbortController();
  setMaxListeners(0, controller.signal);
  const queued = Array.from({ length: 40 }, () =>
    attentionAsync(...long, { signal: controller.signal }).catch(() => {}),
  );
  const x = make(2, 20, 1);
  const took = [];
  for (let n = 0; n < 50; n++) {
    const begin = performance.now();
    await Promise.all([attentionAsync(x, x, x), stat(import.meta.filename)]);
    took.push(performance.now() - begin);
  }
  took.sort((a, b) => a - b);
  const begin = performance.now();
  controller.abort();
  await Promise.all(queued);
  const ended = performance.now() - begin;
  const got = `median ${at(took, 0.5).toFixed(2)} ms, max ${at(took, 1).toFixed(1)} ms`;
  report('short call and stat behind 40 long calls', got, '< 100 ms', at(took, 1) < 100);
  report('abort of all 40', `${ended.toFixed(1)} ms`, '< 50 ms + idle', ended < 50 + at(idle, 1));
}

// Many at once, right and without a leak: completed, aborted, refused.
const problems = Array.from({ length: 200 }, (_, n) => [
  make(4, 1 + ((n * 37) % 90), n),
  make(2, 1 + ((n * 53) % 300), n),
]);
const want = problems.map(([q, k]) => Buffer.from(attention(q, k, k).data.buffer));
let [done, wrong, rejected] = [0, 0, 0];
let settledRss = 0;
const end = performance.now() + seconds * 1000;
for (let round = 0; performance.now() < end; round++) {
  await Promise.all(
    problems.map(async ([q, k], n) => {
      const signal = n % 4 === 0 ? AbortSignal.timeout(n % 16) : undefined;
      try {
        const out = await attentionAsync(q, n % 50 === 7 ? q.slice(3, 0, 8) : k, k, { signal });
        done++;
        if (!Buffer.from(out.data.buffer).equals(want[n])) wrong++;
      } catch {
        rejected++;
      }
    }),
  );
  globalThis.gc?.();
  if (round === 20) settledRss = process.memoryUsage.rss();
}
report('200 calls at once', `${done} done, ${wrong} wrong, ${rejected} rejected`, '0 wrong', wrong === 0);
const growth = settledRss === 0 ? 0 : process.memoryUsage.rss() / settledRss - 1;
report('memory after it', `${(growth * 100).toFixed(1)}% more than after 20 rounds`, '< 10%', growth < 0.1);
report('caches left', String(memoryInfo().caches), '0', memoryInfo().caches === 0);

const width = (key) => Math.max(...rows.map((row) => row[key].length));
const [a, b, c] = ['what', 'got', 'bound'].map(width);
for (const row of rows)
  console.log(`${row.what.padEnd(a)}  ${row.got.padEnd(b)}  ${row.bound.padEnd(c)}  ${row.ok}`);
process.exitCode = failed ? 1 : 0;
