// Changes to a file: bytes, numbers, words of its format, parts of other files.

/** Reproducible numbers: mulberry32. */
export function makeRandom(seed) {
  let state = seed >>> 0;
  const next = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = Math.imul(state ^ (state >>> 15), state | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return (t ^ (t >>> 14)) >>> 0;
  };
  return { below: (n) => (n > 0 ? next() % n : 0), pick: (list) => list[next() % list.length] };
}

const NUMBERS = [0n, 1n, 2n, 3n, 7n, 8n, 64n, 127n, 128n, 255n, 256n, 65535n, 65536n]
  .concat(
    [31n, 32n, 40n, 52n, 53n, 62n, 63n].flatMap((bits) => [2n ** bits - 1n, 2n ** bits, 2n ** bits + 1n]),
  )
  .concat([2n ** 64n - 1n]);

const replace = (bytes, at, removed, inserted) =>
  Buffer.concat([bytes.subarray(0, at), inserted, bytes.subarray(at + removed)]);

const MUTATIONS = [
  (bytes, random) => {
    const copy = Buffer.from(bytes);
    if (copy.length > 0) copy[random.below(copy.length)] ^= 1 << random.below(8);
    return copy;
  },
  (bytes, random) => {
    const copy = Buffer.from(bytes);
    if (copy.length > 0)
      copy[random.below(copy.length)] = random.pick([0, 1, 0x7f, 0x80, 0xff, random.below(256)]);
    return copy;
  },
  (bytes, random) => {
    const copy = Buffer.from(bytes);
    const size = random.pick([2, 4, 8, 8]);
    const places = Math.floor(copy.length / size);
    if (places === 0) return copy;
    const number = BigInt.asUintN(8 * size, random.pick(NUMBERS));
    const at = random.below(2) ? random.below(copy.length - size + 1) : size * random.below(places);
    for (let i = 0; i < size; i++) copy[at + i] = Number((number >> BigInt(8 * i)) & 255n);
    return copy;
  },
  (bytes, random) =>
    replace(
      bytes,
      random.below(bytes.length + 1),
      random.pick([1, 1, 4, 8, random.below(64)]),
      Buffer.alloc(0),
    ),
  (bytes, random, { words }) =>
    replace(bytes, random.below(bytes.length + 1), 0, Buffer.from(random.pick(words))),
  (bytes, random, { words }) => {
    const word = Buffer.from(random.pick(words));
    return replace(bytes, random.below(bytes.length + 1), word.length, word);
  },
  // a number in a text becomes another
  (bytes, random) => {
    const text = bytes.toString('latin1');
    const found = [...text.matchAll(/[0-9]+/g)];
    if (found.length === 0) return bytes;
    const { index, 0: digits } = random.pick(found);
    return replace(bytes, index, digits.length, Buffer.from(String(random.pick(NUMBERS))));
  },
  // a part of it stands twice
  (bytes, random) => {
    const at = random.below(bytes.length + 1);
    const part = bytes.subarray(at, at + 1 + random.below(40));
    return replace(bytes, random.below(bytes.length + 1), 0, part);
  },
  // a part of another
  (bytes, random, { corpus }) => {
    const other = random.pick(corpus);
    const at = random.below(other.length + 1);
    return replace(
      bytes,
      random.below(bytes.length + 1),
      random.below(30),
      other.subarray(at, at + random.below(60)),
    );
  },
];

/** Some changes one after the other; what comes out is at most 64 KiB. */
export function mutate(bytes, random, context) {
  let changed = Buffer.from(bytes);
  for (let times = 1 + random.below(4); times > 0; times--)
    changed = random.pick(MUTATIONS)(changed, random, context);
  return changed.subarray(0, 65536);
}
