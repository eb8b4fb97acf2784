// The field on which a generated program plays: it makes the values that the program names, and is the referee of each call.
import { beyondRounding } from './bound.mjs';
import { CODES, Finding, show } from './finding.mjs';
import { Ledger, layoutOf, placesOf } from './ledger.mjs';
import { CacheModel } from './model.mjs';
import { integersOf, Values } from './values.mjs';

const SLOW_MS = 1500; // of this process's time, for a call of a few elements

const bytesOf = (data) => Buffer.from(data.buffer, data.byteOffset, data.byteLength);

export class Field extends Values {
  #sdpa;
  #ledger = new Ledger();
  #caches = new Map();
  #last = null;
  #depth = 0;
  /** Whether memory that a call reads, or a cache, was changed in its middle. */
  #isDisturbed = false;
  #cpu = process.cpuUsage();
  calls = 0;
  refused = 0;
  judged = 0;

  constructor(sdpa) {
    super();
    this.#sdpa = sdpa;
  }

  // ---- values

  /** A tensor of random numbers between guards. style: layoutOf; kind: of buffer; form: of what is handed over. */
  tensor(dtype, shape, seed, { style = 'plain', kind = 'plain', form = 'tensor' } = {}) {
    const { Tensor } = this.#sdpa;
    const { strides, offset, length } = layoutOf(shape, style);
    const data = this.#ledger.allocate(dtype, length, kind);
    const values = randomElements(Tensor, dtype, shape, seed);
    placesOf(shape, strides, offset).forEach((place, n) => {
      data[place] = values[n];
    });
    this.#ledger.watch(data);
    return this.#inForm(form, { data, shape, strides, offset, dtype });
  }

  /** A tensor to write into. */
  out(dtype, shape, { style = 'plain', kind = 'plain' } = {}) {
    const { strides, offset, length } = layoutOf(shape, style);
    const data = this.#ledger.allocate(dtype, length, kind);
    this.#ledger.watch(data, placesOf(shape, strides, offset));
    return new this.#sdpa.Tensor(data, shape, { dtype, strides, offset });
  }

  #inForm(form, { data, shape, strides, offset, dtype }) {
    const { Tensor } = this.#sdpa;
    if (form === 'foreign') return { data, dims: shape, type: dtype, strides, offset };
    if (form === 'frozen')
      return Object.freeze({
        data,
        shape: Object.freeze(shape),
        dtype,
        strides: Object.freeze(strides),
        offset,
      });
    if (form === 'bare') return Object.assign(Object.create(null), { data, shape, dtype, strides, offset });
    if (form === 'proxied') return new Proxy({ data, dims: shape, type: dtype, strides, offset }, {});
    if (form === 'realm')
      return Object.assign(this.foreign('({})'), {
        data,
        dims: shape,
        type: dtype,
        strides,
        offset,
      });
    if (form === 'derived') return new (class extends Tensor {})(data, shape, { dtype, strides, offset });
    return new Tensor(data, shape, { dtype, strides, offset });
  }

  /** A view that claims more than its few elements, by strides of 0. */
  view(length, shape, strides) {
    return new this.#sdpa.Tensor(new Float32Array(length), shape, { strides });
  }

  // ---- mischief in the middle of a call
  /** The value, after the act was done. */
  after(act, value) {
    this.#isDisturbed = true;
    if (this.#depth > 2) return value;
    this.#depth += 1;
    try {
      act();
    } catch (error) {
      if (error === this.planted) throw error; // other refusals inside are no concern of the call outside
    } finally {
      this.#depth -= 1;
    }
    return value;
  }

  /** One value after the other, each time it is asked. */
  turns(...values) {
    this.#isDisturbed = true;
    let n = 0;
    return () => values[Math.min(n++, values.length - 1)];
  }

  /** What it says afterwards is not what the call was given. */
  twoFaced(tensor) {
    this.#isDisturbed = true;
    return super.twoFaced(tensor);
  }

  fail() {
    throw this.planted;
  }

  detach(x) {
    const { buffer } = dataOf(x);
    if (!(buffer instanceof ArrayBuffer)) return;
    this.#ledger.forget(buffer);
    structuredClone(buffer, { transfer: [buffer] });
  }

  shrink(x) {
    const { buffer } = dataOf(x);
    if (!buffer.resizable) return;
    this.#ledger.forget(buffer);
    buffer.resize(Math.floor(buffer.byteLength / 2));
  }

  tamper(x) {
    Reflect.set(x, 'offset', 2 ** 40);
    Reflect.set(x, 'shape', [2 ** 20, 2, 2, 2]);
  }

  scribble(x) {
    const data = dataOf(x);
    this.#ledger.forget(data.buffer);
    data.fill(3);
  }

  reenter() {
    const x = this.#sdpa.Tensor.randn([1, 1, 2, 4]);
    this.#sdpa.attention(x, x, x);
  }

  collect() {
    globalThis.gc?.();
  }

  disturb(cache) {
    const k = this.#sdpa.Tensor.zeros([1, 1, 1, 4]);
    cache.append(k, k);
  }

  disturbLater(cache) {
    cache.attendAsync(this.#sdpa.Tensor.zeros([1, 1, 1, 4])).catch(() => {});
  }

  // ---- calls

  /** A call that may be refused. */
  call(name, act) {
    return this.#check(name, act, false);
  }

  /** A call that must succeed. */
  valid(name, act) {
    return this.#check(name, act, true);
  }

  /** As call, of what returns a promise; a rejection is a refusal. */
  async later(name, act, isValid = false) {
    const started = performance.now();
    let outcome;
    let promise;
    try {
      promise = act();
    } catch (error) {
      // An asynchronous form rejects; it does not throw.
      throw new Finding(`${name} threw at once: ${show(error)}`);
    }
    try {
      outcome = { value: await promise };
    } catch (error) {
      outcome = { error };
    }
    return this.#rule(name, outcome, isValid, started);
  }

  #check(name, act, isValid) {
    const started = performance.now();
    let outcome;
    try {
      outcome = { value: act() };
    } catch (error) {
      outcome = { error };
    }
    return this.#rule(name, outcome, isValid, started);
  }

  #rule(name, outcome, isValid, started) {
    this.calls += 1;
    // On a busy machine the clock on the wall says little.
    if (performance.now() - started > SLOW_MS && milliseconds(process.cpuUsage(this.#cpu)) > SLOW_MS)
      throw new Finding(`${name} took more than ${SLOW_MS} ms`);
    const hasFailed = 'error' in outcome;
    if (hasFailed) {
      this.refused += 1;
      this.#judgeError(name, outcome.error);
      if (isValid && !this.#isDisturbed)
        throw new Finding(`${name} refused a valid call: ${show(outcome.error)}`);
    }
    const breach = this.#ledger.breach(!hasFailed);
    if (breach !== null) throw new Finding(`${name}: ${hasFailed ? 'refused, and ' : ''}${breach}`);
    this.#last = hasFailed ? null : outcome.value;
    return this.#last;
  }

  #judgeError(name, error) {
    const { SdpaError } = this.#sdpa;
    if (error === this.planted) return;
    // What a revoked proxy says when it is asked anything.
    if (error instanceof TypeError && /proxy that has been revoked|on proxy: /.test(error.message)) return;
    if (error?.name === 'AbortError' || error?.name === 'TimeoutError') return;
    if (!(error instanceof SdpaError)) throw new Finding(`${name} threw no SdpaError: ${show(error)}`);
    if (CODES[error.code] !== error.name || error.constructor.name !== error.name)
      throw new Finding(`${name} threw ${error.name} with the code ${error.code}`);
    // The memory of a cache refuses in the name of the class.
    const names = name.startsWith('KVCache.') ? [name, 'KVCache'] : [name];
    if (!names.some((known) => error.message.startsWith(`${known}: `)))
      throw new Finding(`${name}: the message does not begin with the name: ${error.message.slice(0, 200)}`);
    if (error.message.length > 3000)
      throw new Finding(`${name}: a message of ${error.message.length} characters`);
  }

  /** That the last result, if there is one, is that of attention(q, k, v, options). */
  agrees(q, k, v, given) {
    if (this.#last === null || this.#isDisturbed) return;
    const { out: _out, returnLse: _returnLse, signal: _signal, ...options } = given;
    this.#judge('attention', q, k, v, options, this.#last);
  }

  /** That `got` is what the oracle says. */
  #judge(name, q, k, v, options, got) {
    this.judged += 1;
    const report = this.#sdpa.compareAttention(q, k, v, options, got);
    if (report.pass) return;
    // Of a few numbers the largest error is luck, and so is that of the naive evaluation from which the tolerance is derived.
    const beyond = beyondRounding(q, k, v, options, got);
    if (beyond !== null) throw new Finding(`${name} is off: ${beyond}\n${report}`);
  }

  /**
   * That a cache attended to what it holds: its rows as tensors say the same, where they are of the type and rank of q, none has
   * left a window, and no mask or lengths have a meaning of their own.
   */
  #judgeCache(cache, model, method, q, given) {
    const { lengths, mask, ...options } = given ?? {};
    const isLikeRows = (q.dtype ?? q.type) === model.dtype && (q.shape ?? q.dims).length === 4;
    if (model.window > 0 || !isLikeRows || (lengths ?? mask ?? null) !== null) return;
    const kvLengths = cache.lengths;
    const all = { ...options, causal: options.causal ?? true, kvLengths };
    this.#judge(`KVCache.${method}`, q, cache.keys(), cache.values(), all, this.#last);
  }

  /** Whether two results of the last two calls hold the same bits. */
  same(a, b) {
    if (a === null || b === null || this.#isDisturbed) return;
    const [x, y] = [a, b].map((result) => result.out ?? result);
    if (!bytesOf(x.contiguous().data).equals(bytesOf(y.contiguous().data)))
      throw new Finding('sync and async differ');
  }

  // ---- caches

  cache(options, isValid = false) {
    const cache = this.#check('KVCache', () => new this.#sdpa.KVCache(options()), isValid);
    if (cache !== null && isValid) this.#caches.set(cache, new CacheModel(options()));
    return cache;
  }

  /** cache[method](...args), and what it did to the cache. */
  on(cache, method, ...args) {
    if (cache === null) return null;
    const before = this.#lengthOf(cache);
    const result = this.#check(`KVCache.${method}`, () => cache[method](...args), false);
    this.#follow(cache, method, args, before);
    return result;
  }

  async onLater(cache, method, ...args) {
    if (cache === null) return null;
    const before = this.#lengthOf(cache);
    const result = await this.later(`KVCache.${method}`, () => cache[method](...args));
    this.#follow(cache, method, args, before);
    return result;
  }

  stepAll(caches, q, k, v, options) {
    const before = caches.map((cache) => (this.#caches.has(cache) ? cache.length : 0));
    const result = this.#check(
      'KVCache.stepAll',
      () => this.#sdpa.KVCache.stepAll(caches, q, k, v, options),
      false,
    );
    caches.forEach((cache, n) => {
      const part = (x) => this.#tensorOf(x).slice(0, n, n + 1);
      if (this.#caches.has(cache))
        this.#follow(cache, 'step', result === null ? [] : [null, part(k), part(v)], before[n]);
    });
    return result;
  }

  #tensorOf({ data, shape, dims, dtype, type, strides, offset }) {
    return new this.#sdpa.Tensor(data, shape ?? dims, { dtype: dtype ?? type, strides, offset });
  }

  #lengthOf(cache) {
    return this.#caches.has(cache) ? cache.length : -1;
  }

  /** Does to the model what the call did, if it succeeded, and compares. */
  #follow(cache, method, args, before) {
    const model = this.#caches.get(cache);
    if (model === undefined) return;
    if (this.#isDisturbed) {
      this.#caches.delete(cache); // whatever it holds now, nothing may crash
      return;
    }
    if (this.#last !== null) {
      if (method === 'append') this.#grow(model, args[0], args[1], args[2]?.lengths);
      if (method === 'step' || method === 'stepAsync') this.#grow(model, args[1], args[2], args[3]?.lengths);
      if (method === 'truncate') model.truncate(typeof args[0] === 'number' ? args[0] : integersOf(args[0]));
      if (method === 'keep') model.keep(integersOf(args[0]));
      if (method === 'fork') this.#caches.set(this.#last, model.fork());
      if (method === 'dispose') return void this.#caches.delete(cache);
    } else if (cache.length !== before) {
      throw new Finding(
        `KVCache.${method} was refused, and changed the length from ${before} to ${cache.length}`,
      );
    }
    this.compare(cache, method);
    if (this.#last === null) return;
    if (method === 'attend' || method === 'attendAsync') this.#judgeCache(cache, model, method, ...args);
    if (method === 'step' || method === 'stepAsync') this.#judgeCache(cache, model, method, args[0], args[3]);
  }

  #grow(model, k, v, lengths) {
    const source = model.dtype === 'int8' ? 'float32' : model.dtype;
    const nested = (x) => {
      const tensor = this.#tensorOf(x);
      return (tensor.rank === 3 ? tensor.unsqueeze(0) : tensor).to(source).toArray();
    };
    model.append(
      nested(k),
      nested(v),
      lengths === undefined || lengths === null ? undefined : integersOf(lengths),
    );
  }

  /** That the cache holds what its model holds. */
  compare(cache, after = 'this') {
    const model = this.#caches.get(cache);
    if (model === undefined) return;
    if (cache.length !== model.length)
      throw new Finding(
        `after ${after} the cache has ${cache.length} tokens, and should have ${model.length}`,
      );
    if (!model.matches('k', cache.keys().toArray())) throw new Finding(`after ${after} keys() are wrong`);
    if (!model.matches('v', cache.values().toArray())) throw new Finding(`after ${after} values() are wrong`);
  }

  /** A cache that came of another: the same tokens. */
  copied(cache, from) {
    const model = this.#caches.get(from);
    if (cache === null || model === undefined) return;
    this.#caches.set(cache, model.fork());
    this.compare(cache, 'load');
  }

  /** Every cache that the program named is done with. */
  end(...caches) {
    for (const cache of caches) cache?.dispose();
  }
}

const milliseconds = ({ user, system }) => (user + system) / 1000;

const dataOf = (x) => x.data;

function randomElements(Tensor, dtype, shape, seed) {
  const isFloat = dtype.includes('float');
  const values = Tensor.randn(shape, { seed, dtype: isFloat ? dtype : 'float32' });
  return isFloat
    ? values.data
    : values.data.map((x) => (dtype === 'bool' ? Number(x > -0.5) : Math.round(4 * x)));
}
