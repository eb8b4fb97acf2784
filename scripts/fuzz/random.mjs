// Chance from a seed: the same seed makes the same program, on every machine.

/** A source of choices. */
export class Random {
  #state;

  constructor(seed) {
    this.#state = seed >>> 0;
    for (let n = 0; n < 4; n++) this.#next();
  }

  // mulberry32 (Ettinger 2017): enough for choices, and one number of state.
  #next() {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let z = this.#state;
    z = Math.imul(z ^ (z >>> 15), z | 1);
    z ^= z + Math.imul(z ^ (z >>> 7), z | 61);
    return (z ^ (z >>> 14)) >>> 0;
  }

  /** In [0, 1). */
  unit() {
    return this.#next() / 2 ** 32;
  }

  /** A whole number from `least` to `most`. */
  int(least, most) {
    return least + Math.floor(this.unit() * (most - least + 1));
  }

  chance(probability) {
    return this.unit() < probability;
  }

  pick(list) {
    return list[this.int(0, list.length - 1)];
  }

  /** One of the keys of { key: weight }. */
  weighted(weights) {
    let left = this.unit() * Object.values(weights).reduce((sum, weight) => sum + weight, 0);
    for (const [key, weight] of Object.entries(weights)) {
      left -= weight;
      if (left < 0) return key;
    }
    return Object.keys(weights)[0];
  }

  /** A whole number that says where a value comes from. */
  seed() {
    return this.int(1, 1e6);
  }
}
