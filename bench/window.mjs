// A stream of a million tokens through a cache with a window: memory and the time of a step as it goes, in a process of its own.
import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { randomTensor } from '../dist/cli/random-tensor.js';
import { KVCache, Tensor } from '../dist/index.js';
import { print } from './machine.mjs';
import { residentMiB } from './resident.mjs';

const WINDOW = 4096;
const SINK_TOKENS = 4;
const MARKS = [0, 10_000, 100_000, 500_000, 1_000_000];
const [NUM_HEADS, NUM_KV_HEADS, HEAD_DIM] = [2, 1, 16];
/** Different tokens, over and over. */
const PERIOD = 1009;
/** RSS may grow by so much from the second mark to the last: heaps of JavaScript breathe. */
const LIMIT_MIB = 4;

function stream() {
  const cache = new KVCache({
    numKvHeads: NUM_KV_HEADS,
    headDim: HEAD_DIM,
    window: WINDOW,
    sinkTokens: SINK_TOKENS,
  });
  const [queries, keys, values] = [NUM_HEADS, NUM_KV_HEADS, NUM_KV_HEADS].map((heads, i) => {
    const all = randomTensor([1, heads, PERIOD, HEAD_DIM], i + 1);
    return Array.from({ length: PERIOD }, (_, t) => all.slice(2, t, t + 1));
  });
  const out = Tensor.empty(queries[0].shape);
  const rows = [];
  let from = performance.now();
  for (const [n, mark] of MARKS.entries()) {
    for (let t = cache.length; t < mark; t++) {
      const i = t % PERIOD;
      cache.step(queries[i], keys[i], values[i], { out });
    }
    const micro = (1e3 * (performance.now() - from)) / (mark - (MARKS[n - 1] ?? 0));
    globalThis.gc();
    rows.push({ mark, rss: residentMiB('VmRSS'), bytes: cache.byteLength, micro: n === 0 ? 0 : micro });
    from = performance.now();
  }
  console.log(JSON.stringify(rows));
}

export default function run() {
  if (process.platform !== 'linux') return console.log('\nWindow: measured on Linux only');
  const child = spawnSync(process.execPath, ['--expose-gc', fileURLToPath(import.meta.url)], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  if (child.status !== 0) throw new Error(`the process ended with ${child.status ?? child.signal}`);
  const marks = JSON.parse(child.stdout);
  const growth = marks.at(-1).rss - marks[1].rss;
  const rows = marks.map(({ mark, rss, bytes, micro }, n) => [
    String(mark),
    rss.toFixed(1),
    (bytes / 2 ** 20).toFixed(2),
    micro.toFixed(1),
    n < marks.length - 1
      ? ''
      : `+${growth.toFixed(1)} <= ${LIMIT_MIB} ${growth <= LIMIT_MIB ? 'ok' : 'HIGH'}`,
  ]);
  const head = ['tokens', 'RSS MiB', 'cache MiB', 'us a token', ''];
  print(
    `A stream through a window of ${WINDOW} + ${SINK_TOKENS}, ${NUM_HEADS}/${NUM_KV_HEADS}/${HEAD_DIM}, float32`,
    head,
    rows,
    1,
  );
}

if (process.argv[1] === fileURLToPath(import.meta.url)) stream();
