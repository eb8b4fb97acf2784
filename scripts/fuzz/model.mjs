// What a KVCache ought to hold, in plain arrays.

/** One batch entry: a list of tokens, each { k, v } of all heads, and how many came with the last append. */
class Entry {
  tokens = [];
  newest = 0;
}

export class CacheModel {
  constructor({
    batch = 1,
    numKvHeads,
    headDim,
    valueDim = headDim,
    dtype = 'float32',
    window = 0,
    sinkTokens = 0,
  }) {
    Object.assign(this, { batch, numKvHeads, headDim, valueDim, dtype, window, sinkTokens });
    this.entries = Array.from({ length: batch }, () => new Entry());
  }

  get length() {
    return Math.max(...this.entries.map(({ tokens }) => tokens.length));
  }

  /** @param k nested [batch, numKvHeads, T, headDim]; v likewise; lengths: tokens that each entry takes */
  append(k, v, lengths) {
    this.entries.forEach((entry, b) => {
      const count = lengths?.[b] ?? k[b][0].length;
      for (let t = 0; t < count; t++)
        entry.tokens.push({ k: k[b].map((head) => head[t]), v: v[b].map((head) => head[t]) });
      entry.newest = count;
    });
  }

  /** @param lengths one number, or one an entry */
  truncate(lengths) {
    this.entries.forEach((entry, b) => {
      const length = Math.min(entry.tokens.length, typeof lengths === 'number' ? lengths : lengths[b]);
      entry.newest = Math.max(0, entry.newest - (entry.tokens.length - length));
      entry.tokens.length = length;
    });
  }

  keep(indices) {
    for (const entry of this.entries) {
      const begin = entry.tokens.length - entry.newest;
      const kept = indices.map((index) => entry.tokens[begin + index]);
      entry.tokens.length = begin;
      entry.tokens.push(...kept);
      entry.newest = indices.length;
    }
  }

  fork() {
    const fork = new CacheModel(this);
    fork.entries.forEach((entry, b) => {
      entry.tokens = this.entries[b].tokens.slice();
      entry.newest = this.entries[b].newest;
    });
    return fork;
  }

  /** What keys() or values() returns, nested; shorter entries end with zeros. */
  rows(side) {
    const dim = side === 'k' ? this.headDim : this.valueDim;
    const visible = this.entries.map(({ tokens }) => {
      const begin = this.window === 0 ? 0 : Math.max(0, tokens.length - this.window);
      return [...tokens.slice(0, Math.min(this.sinkTokens, begin)), ...tokens.slice(begin)];
    });
    const longest = Math.max(...visible.map((tokens) => tokens.length));
    const zeros = new Array(dim).fill(0);
    return visible.map((tokens) =>
      Array.from({ length: this.numKvHeads }, (_, h) =>
        Array.from({ length: longest }, (_, t) => (t < tokens.length ? tokens[t][side][h] : zeros)),
      ),
    );
  }

  /** Whether `rows`, nested, are those of keys() or values(): to the bit, or within what int8 rounds away. */
  matches(side, rows) {
    const want = this.rows(side);
    return want.every((heads, b) =>
      heads.every(
        (tokens, h) =>
          tokens.length === rows[b][h].length &&
          tokens.every((row, t) => isSameRow(row, rows[b][h][t], this.dtype)),
      ),
    );
  }
}

function isSameRow(want, got, dtype) {
  const largest = want.reduce((most, x) => Math.max(most, Math.abs(x)), 0);
  const slack = dtype === 'int8' ? (largest / 254) * 1.001 : 0;
  return want.every((x, i) => Object.is(x, got[i]) || Math.abs(x - got[i]) <= slack);
}
