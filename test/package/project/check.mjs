// What a user's first program does, in an empty project into which the package was installed. The runtime must be told to end
// with code 7, and to have printed one line; an argument names a file to write that line to as well.
import { writeFileSync } from 'node:fs';
import { Worker } from 'node:worker_threads';
import * as sdpa from 'node-sdpa';

const { attention, attentionAsync, backendInfo, KVCache, referenceAttention, Tensor } = sdpa;
const failures = [];

function check(what, isRight) {
  if (!isRight) failures.push(what);
}

async function attempt(what, body) {
  try {
    check(what, await body());
  } catch (error) {
    failures.push(`${what}: ${error?.stack ?? error}`);
  }
}

const q = Tensor.randn([1, 4, 33, 64], { seed: 1 });
const k = Tensor.randn([1, 2, 70, 64], { seed: 2 });
const v = Tensor.randn([1, 2, 70, 64], { seed: 3 });
const expected = referenceAttention(q, k, v, { causal: true }).data;
// float32: headDim + kvLen = 134 rounded operations on values below 8.
const isExpected = ({ data }) =>
  data.length === expected.length && data.every((x, i) => Math.abs(x - expected[i]) < 134 * 8 * 2 ** -24);

const info = backendInfo();
check(`the backend is native, not ${info.backend}: ${info.reason}`, info.backend === 'native');
await attempt('attention gives what the oracle gives', () =>
  isExpected(attention(q, k, v, { causal: true })),
);
await attempt('so do asynchronous calls, many at a time', async () => {
  const calls = Array.from({ length: 20 }, () => attentionAsync(q, k, v, { causal: true }));
  return (await Promise.all(calls)).every(isExpected);
});
await attempt('an aborted call rejects', async () => {
  const controller = new AbortController();
  const call = attentionAsync(q, k, v, { signal: controller.signal });
  controller.abort();
  return call.then(
    () => true, // it was faster
    (error) => error.name === 'AbortError',
  );
});
await attempt('a cache gives step by step what attention gives at once', () => {
  const cache = new KVCache({ numKvHeads: 2, headDim: 64, maxLength: 70 });
  cache.step(Tensor.randn([1, 4, 69, 64], { seed: 4 }), k.slice(2, 0, 69), v.slice(2, 0, 69));
  const out = cache.step(
    q.slice(2, 32, 33).contiguous(),
    k.slice(2, 69, 70).contiguous(),
    v.slice(2, 69, 70).contiguous(),
  );
  cache.dispose();
  return out.data.every((x, i) => {
    const [head, d] = [Math.floor(i / 64), i % 64];
    return Math.abs(x - expected[(head * 33 + 32) * 64 + d]) < 134 * 8 * 2 ** -24;
  });
});
await attempt('a worker loads it, beside this thread', async () => {
  const worker = new Worker(new URL('./worker.mjs', import.meta.url));
  const answer = await new Promise((done, failed) => {
    worker.once('message', done);
    worker.once('error', failed);
  });
  await worker.terminate();
  return answer.backend === info.backend && Math.abs(answer.first - expected[0]) < 134 * 8 * 2 ** -24;
});
await attempt('a worker may end while it computes', async () => {
  const worker = new Worker(new URL('./worker.mjs', import.meta.url), { workerData: 'endless' });
  await new Promise((done, failed) => {
    worker.once('message', done);
    worker.once('error', failed);
  });
  await worker.terminate();
  return isExpected(await attentionAsync(q, k, v, { causal: true }));
});

const line = JSON.stringify({ ok: failures.length === 0, isa: info.isa, isas: info.isas, failures });
console.log(line);
if (process.argv[2]) writeFileSync(process.argv[2], line);
process.exitCode = failures.length === 0 ? 7 : 1;
