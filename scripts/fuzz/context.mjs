import { hostile, mischief } from './hostile.mjs';
import { Random } from './random.mjs';
import { object, print, wrap } from './source.mjs';

/** How many places of a program hold something that does not belong there: most often none or one. */
const CORRUPTIONS = { 0: 45, 1: 33, 2: 14, 4: 8 };

/** About how many places a program has. */
const PLACES = 24;

/** A program in the making: its lines, and whether all that it does is valid. */
export class Context {
  lines = [];
  /** Nothing hostile so far. */
  isValid = true;
  /** Only memory that cannot shrink, as an asynchronous call wants it. */
  isSteady = false;
  /** Names of the tensors, and of a cache where there is one: on which mischief falls. */
  tensors = [];
  cache = undefined;
  #names = new Map();
  #rate;

  constructor(seed) {
    this.random = new Random(seed);
    this.#rate = Number(this.random.weighted(CORRUPTIONS)) / PLACES;
  }

  /** A node after which the program may be refused. */
  strange(node) {
    this.isValid = false;
    return node;
  }

  /** `value`, or something hostile in its place. */
  place(value, ...likely) {
    if (!this.random.chance(this.#rate)) return value;
    return this.strange(hostile(this.random, ...likely));
  }

  /** A line that declares a name, which is returned. */
  declare(name, node) {
    const count = this.#names.get(name) ?? 0;
    this.#names.set(name, count + 1);
    const unique = count === 0 ? name : `${name}${count + 1}`;
    this.lines.push(wrap(`const ${unique} = `, node, ';'));
    return unique;
  }

  add(node) {
    this.lines.push(wrap('', node, ';'));
  }

  /** 'call', or 'valid' where everything that leads to it is. */
  get verb() {
    return this.isValid ? 'valid' : 'call';
  }

  /** An object of options; now and then a strange one. */
  options(entries) {
    const { random } = this;
    const kept = entries.filter(Boolean);
    if (!random.chance(this.#rate * 3)) return object(kept);
    this.isValid = false;
    const [key, value] = kept.length > 0 ? random.pick(kept) : ['scale', '1'];
    const others = kept.filter((entry) => entry[0] !== key);
    const strange = {
      frozen: () => wrap('Object.freeze(', object(kept), ')'),
      bare: () => wrap('Object.assign(Object.create(null), ', object(kept), ')'),
      inherited: () => wrap('Object.create(', object(kept), ')'),
      realm: () => wrap("Object.assign(f.foreign('({})'), ", object(kept), ')'),
      proxied: () => wrap('new Proxy(', object(kept), ', {})'),
      unknown: () =>
        object([
          ...kept,
          [
            random.pick([
              'scal',
              'Causal',
              'dropout',
              '__proto__x',
              "['x'.repeat(9999)]",
              '[Symbol()]',
              'toString',
              'ou',
            ]),
            '1',
          ],
        ]),
      symbol: () => object([...kept, ['[Symbol.toStringTag]', "'x'"]]),
      instance: () => wrap('Object.assign(new (class {})(), ', object(kept), ')'),
      mischief: () =>
        object([
          ...others,
          [
            `get ${key}() { return f.after(() => ${mischief(random, this.tensors, this.cache)}, ${print(value)}); }, x`,
            undefined,
          ],
        ]),
      fickle: () =>
        object([
          ...others,
          [
            `get ${key}() { return (this.t ??= f.turns(${print(value)}, ${hostile(random)}))(); }, x`,
            undefined,
          ],
        ]),
    };
    const made = strange[random.pick(Object.keys(strange))]();
    return made.parts ? { ...made, parts: made.parts.map(accessor) } : made;
  }
}

/** A part whose key is the text of an accessor. */
const accessor = (part) => (part.key?.startsWith('get ') ? { value: part.key.slice(0, -3) } : part);
