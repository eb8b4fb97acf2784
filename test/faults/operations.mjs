// Does one of each operation of the public API while the preloaded allocations.c refuses what the addon asks for, and judges
// what came of it. Prints one line of JSON.
//   node operations.mjs LIBRARY cold MODE N    the Nth request since the addon's loading, which is part of it; one round
//   node operations.mjs LIBRARY warm MODE N    the 1st, (1 + N)th, (1 + 2N)th request ... of one round after the other,
//                                              until a round asks for fewer
// MODE: once, or after (that request and all that follow).
import { mkdtempSync, rmSync } from 'node:fs';
import { open } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const [library, temperature, mode, number] = process.argv.slice(2);
const sdpa = await import(library);
const { attention, CapacityError, KVCache, memoryInfo, NativeLoadError, Tensor } = sdpa;

const SHAPE = { numKvHeads: 2, headDim: 16, backend: 'native' };
const LAYOUTS = {
  plain: {},
  window: { window: 512, sinkTokens: 4 },
  int8: { dtype: 'int8' },
  bound: { maxLength: 2000, dtype: 'bfloat16' },
};
const random = (length, seed) => Tensor.randn([1, 2, length, 16], { seed });
const [q, k, v] = [random(40, 1), random(700, 2), random(700, 3)];
const token = [random(1, 4), random(1, 5), random(1, 6)];
const draft = [random(4, 7), random(4, 8)];
const pair = [1, 2, 3].map((seed) => Tensor.randn([2, 2, 1, 16], { seed }));
const folder = mkdtempSync(join(tmpdir(), 'sdpa-faults-'));

const wrong = [];
let refused = 0;
let native = true;

async function attempt(name, operation) {
  try {
    return await operation();
  } catch (error) {
    refused++;
    if (error instanceof NativeLoadError) native = false;
    else if (!(error instanceof CapacityError)) wrong.push(`${name}: ${error?.stack ?? error}`);
    return undefined;
  }
}

const bytesOf = ({ data }) => Buffer.from(data.buffer, data.byteOffset, data.byteLength);

function expectSame(name, got, expected) {
  if (!bytesOf(got).equals(bytesOf(expected))) wrong.push(`${name}: other bits`);
}

/** A cache, and what has been done to it: to do the same again gives the cache that it must be. */
class Subject {
  constructor(name, cache, done = []) {
    this.name = name;
    this.cache = cache;
    this.done = done;
  }

  async do(what, operation) {
    const result = await attempt(`${this.name}.${what}`, () => operation(this.cache));
    if (result === undefined) return;
    this.done.push(operation);
    if (result.data) this.results.push([what, this.done.length - 1, result]);
  }

  results = [];

  async verify(options) {
    const twin = new KVCache({ ...SHAPE, ...options });
    for (const [i, operation] of this.done.entries()) {
      const expected = await operation(twin);
      for (const [what, at, got] of this.results)
        if (at === i) expectSame(`${this.name}.${what}`, got, expected);
    }
    const pairs = (name, of) => expectSame(`${this.name}: ${name}`, of(this.cache), of(twin));
    if (this.cache.length !== twin.length)
      wrong.push(`${this.name}: ${this.cache.length} tokens, not ${twin.length}`);
    else {
      pairs('keys', (cache) => cache.keys());
      pairs('values', (cache) => cache.values());
      pairs('attend', (cache) => cache.attend(token[0]));
      pairs('step', (cache) => cache.step(...token));
      pairs('step again', (cache) => cache.step(...token));
      pairs('keys then', (cache) => cache.keys());
    }
    this.cache.dispose();
    twin.dispose();
  }
}

const subjects = new Map();

async function make(name) {
  const cache = await attempt(`new ${name}`, () => new KVCache({ ...SHAPE, ...LAYOUTS[name] }));
  if (cache) subjects.set(name, new Subject(name, cache));
}

async function work() {
  // One after the other, so that a request has the same number each time.
  const results = [
    await attempt('attention', () => attention(q, k, v, { backend: 'native' })),
    await attempt('attentionAsync', () => sdpa.attentionAsync(q, k, v, { backend: 'native' })),
    await attempt('attentionStats', () => sdpa.attentionStats(q, k, v, { backend: 'native' })),
    await attempt('a decode', () => attention(token[0], k, v, { backend: 'native' })),
  ];
  for (const name of Object.keys(LAYOUTS)) {
    if (!subjects.has(name)) await make(name);
    const subject = subjects.get(name);
    if (subject) await exercise(subject);
  }
  const caches = ['plain', 'plain, forked'].map((name) => subjects.get(name)).filter(Boolean);
  if (caches.length === 2) {
    const before = caches.map(({ cache }) => cache.length);
    const out = await attempt('stepAll', () =>
      KVCache.stepAll(
        caches.map(({ cache }) => cache),
        ...pair,
      ),
    );
    if (out === undefined && caches.some(({ cache }, i) => cache.length !== before[i]))
      wrong.push('stepAll: a cache grew');
    for (const [i, { done }] of caches.entries()) {
      const [, ...rows] = pair.map((x) => x.slice(0, i, i + 1));
      if (out) done.push((cache) => cache.append(...rows));
    }
  }
  return results;
}

async function exercise(subject) {
  const { name } = subject;
  await subject.do('append', (cache) => cache.append(k, v));
  await subject.do('attend', (cache) => cache.attend(q));
  await subject.do('attendAsync', (cache) => cache.attendAsync(q));
  for (const what of ['step', 'step again', 'step once more'])
    await subject.do(what, (cache) => cache.step(...token));
  await subject.do('stepAsync', (cache) => cache.stepAsync(...token));
  await subject.do('append, keep', (cache) => cache.append(...draft));
  if (subject.done.at(-1)?.length === 1 && subject.cache.length >= 4)
    await subject.do('truncate', (cache) => cache.truncate(cache.length - 1));
  await attempt(`${name}.keys`, () => subject.cache.keys());
  const fork = await attempt(`${name}.fork`, () => subject.cache.fork());
  if (fork) {
    const forked = new Subject(`${name}, forked`, fork, [...subject.done]);
    subjects.set(forked.name, forked);
    await forked.do('append', (cache) => cache.append(...draft));
    if (forked.cache.length > 0 && forked.done.length > subject.done.length)
      await forked.do('keep', (cache) => cache.keep([1, 3]));
    await forked.do('step', (cache) => cache.step(...token));
  }
  await subject.do('append behind a fork', (cache) => cache.append(...draft));
  const saved = await attempt(`${name}.save`, () => subject.cache.save());
  const loaded = saved && (await attempt(`${name} load`, () => KVCache.load(saved, { backend: 'native' })));
  if (loaded) subjects.set(`${name}, loaded`, new Subject(`${name}, loaded`, loaded, [() => undefined]));
  if (loaded) subjects.get(`${name}, loaded`).done = [...subject.done];
  const file = await open(join(folder, name), 'w+');
  const isWritten = await attempt(`${name}.saveTo`, async () => [await subject.cache.saveTo(file)]);
  if (isWritten) {
    const read = await open(join(folder, name), 'r');
    const other = await attempt(`${name} loadFrom`, () => KVCache.loadFrom(read, { backend: 'native' }));
    if (other) subjects.set(`${name}, read`, new Subject(`${name}, read`, other, [...subject.done]));
    await read.close();
  }
  await file.close();
}

/** One round with request `at` refused; how many requests there were. */
async function round(at) {
  if (temperature === 'warm') {
    subjects.clear();
    for (const name of Object.keys(LAYOUTS)) await make(name);
    for (const subject of subjects.values()) await subject.do('filled', (cache) => cache.append(k, v));
  }
  process.env.SDPA_FAULT = `${at} ${mode}`;
  const results = await work();
  const seen = Number(process.env.SDPA_FAULT_SEEN);
  process.env.SDPA_FAULT = '0';
  if (native) {
    for (const [name, subject] of subjects) await subject.verify(LAYOUTS[name.split(',')[0]]);
    const [whole, later, , decode] = results;
    if (whole) expectSame('attention', whole, attention(q, k, v, { backend: 'native' }));
    if (later) expectSame('attentionAsync', later, attention(q, k, v, { backend: 'native' }));
    if (decode) expectSame('a decode', decode, attention(token[0], k, v, { backend: 'native' }));
    const { caches, bytes } = memoryInfo();
    if (caches !== 0 || bytes !== 0) wrong.push(`${caches} caches of ${bytes} bytes are left`);
  }
  subjects.clear();
  if (wrong.length > 0) {
    console.log(JSON.stringify({ at, seen, refused, wrong: wrong.slice(0, 5) }));
    process.exit(1);
  }
  return seen;
}

let [injected, seen] = [0, 0];
if (temperature === 'cold') {
  seen = await round(Number(number));
  injected = seen >= Number(number) ? 1 : 0;
} else {
  await round(0);
  for (let at = 1; ; at += Number(number), injected++) {
    seen = await round(at);
    if (seen < at) break;
  }
}
rmSync(folder, { recursive: true });
console.log(JSON.stringify({ seen, injected, refused }));
