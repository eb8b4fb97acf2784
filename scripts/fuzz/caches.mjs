// Programs around KVCaches: made, filled, asked, forked, saved, loaded, truncated and disposed of, in any order.
import { hostile } from './hostile.mjs';
import { integers, scoreEntries, tensor } from './problems.mjs';
import { call, list, wrap } from './source.mjs';

const maybe = (random, chance, make) => (random.chance(chance) ? make() : null);

/** What a cache is to be; the layout, and the source of its options. */
function layoutOf(context) {
  const { random } = context;
  const layout = {
    numKvHeads: random.int(1, 2),
    headDim: random.pick([1, 4, 8, 17]),
    valueDim: random.pick([1, 4, 8, 20]),
    batch: random.pick([1, 1, 2, 3]),
    dtype: random.pick(['float32', 'float32', 'float16', 'bfloat16', 'int8']),
    window: random.chance(0.3) ? random.int(1, 12) : 0,
  };
  layout.sinkTokens = layout.window > 0 && random.chance(0.5) ? random.int(0, 3) : 0;
  return layout;
}

function layoutOptions(context, layout) {
  const { random } = context;
  // Results of gigabytes are legal, and no case.
  const count = (value) => context.place(`${value}`, 'number').replace(/^2 \*\* 3\d/, '2 ** 45');
  return context.options([
    ['numKvHeads', count(layout.numKvHeads)],
    ['headDim', count(layout.headDim)],
    ['valueDim', count(layout.valueDim)],
    ['batch', count(layout.batch)],
    ['dtype', context.place(`'${layout.dtype}'`, 'primitive')],
    layout.window > 0 && ['window', context.place(`${layout.window}`, 'number')],
    layout.sinkTokens > 0 && ['sinkTokens', context.place(`${layout.sinkTokens}`, 'number')],
    maybe(random, 0.3, () => ['maxLength', context.place(random.pick(['4', '64', '1000']), 'number')]),
    maybe(random, 0.5, () => [
      'backend',
      context.place(random.pick(["'native'", "'reference'"]), 'primitive'),
    ]),
  ]);
}

const on = (cache, method, values) => call(`f.on`, [cache, `'${method}'`, ...values], 2);
const onLater = (cache, method, values) =>
  wrap('await ', call('f.onLater', [cache, `'${method}'`, ...values], 2), '');

/** Declares k and v of `count` tokens, and q of as many. */
function tokens(context, layout, count, batch = layout.batch) {
  const { random } = context;
  const dtype = random.chance(0.8) && layout.dtype !== 'int8' ? layout.dtype : 'float32';
  const groups = random.pick([1, 1, 2]);
  const make = (name, heads, dim) =>
    context.declare(name, tensor(context, dtype, [batch, heads, count, dim]));
  const names = {
    k: make('k', layout.numKvHeads, layout.headDim),
    v: make('v', layout.numKvHeads, layout.valueDim),
    q: make('q', layout.numKvHeads * groups, layout.headDim),
    numHeads: layout.numKvHeads * groups,
    dtype,
  };
  context.tensors = [names.q, names.k, names.v];
  return names;
}

function attendOptions(context, layout, { numHeads }, count, extra = []) {
  const sizes = { batch: layout.batch, numHeads, qLen: count, kvLen: count };
  const entries = context.random.chance(0.4)
    ? []
    : scoreEntries(context, sizes).filter((entry) => entry?.[0] !== 'mask' || context.random.chance(0.3));
  return context.options([...entries, ...extra]);
}

const lengthsEntry = (context, layout, count) => {
  if (!context.random.chance(0.25)) return null;
  const lengths = Array.from({ length: layout.batch }, () => context.random.int(0, count));
  return ['lengths', context.place(integers(context.random, lengths), 'list', 'array')];
};

const ACTS = {
  append(context, cache, layout) {
    const count = context.random.pick([0, 1, 1, 3, 9]);
    const { k, v } = tokens(context, layout, count);
    const options = maybe(context.random, 0.4, () => context.options([lengthsEntry(context, layout, count)]));
    context.add(on(cache, 'append', [k, v, ...(options === null ? [] : [options])]));
  },
  attend(context, cache, layout) {
    const count = context.random.pick([1, 1, 2, 4]);
    const names = tokens(context, layout, count);
    const values = [names.q, attendOptions(context, layout, names, count)];
    const isLater = context.random.chance(0.3);
    context.add(isLater ? onLater(cache, 'attendAsync', values) : on(cache, 'attend', values));
  },
  step(context, cache, layout) {
    const count = context.random.pick([1, 1, 1, 2, 4]);
    const names = tokens(context, layout, count);
    const options = attendOptions(context, layout, names, count, [lengthsEntry(context, layout, count)]);
    const values = [names.q, names.k, names.v, ...(context.random.chance(0.4) ? [] : [options])];
    const isLater = context.random.chance(0.25);
    context.add(isLater ? onLater(cache, 'stepAsync', values) : on(cache, 'step', values));
    // The same step once more goes the short way, without validation.
    if (context.random.chance(0.5)) context.add(on(cache, 'step', values));
  },
  truncate(context, cache, layout) {
    const { random } = context;
    const some = random.pick([
      () => `${random.int(0, 6)}`,
      () =>
        integers(
          random,
          Array.from({ length: layout.batch }, () => random.int(0, 3)),
        ),
    ]);
    context.add(on(cache, 'truncate', [context.place(some(), 'number', 'list')]));
  },
  keep(context, cache) {
    context.add(
      on(cache, 'keep', [
        context.place(
          context.random.pick(['[0]', '[]', '[1, 0]', '[2, 0]', 'new Int32Array([0])', 'new Set([0])']),
          'list',
          'array',
        ),
      ]),
    );
  },
  fork(context, cache, _, caches) {
    const fork = context.declare('fork', on(cache, 'fork', []));
    caches.push(fork);
  },
  save(context, cache, _, caches) {
    const bytes = context.declare('bytes', on(cache, 'save', []));
    const given = context.place(`${bytes} ?? new Uint8Array(0)`, 'array', 'object');
    const options = context.random.chance(0.3) ? [context.place("{ backend: 'reference' }", 'object')] : [];
    const loaded = context.declare(
      'loaded',
      wrap(`f.call('KVCache.load', () => `, call('sdpa.KVCache.load', [given, ...options], 1), ')'),
    );
    if (typeof given === 'string' && given.startsWith(bytes)) context.add(`f.copied(${loaded}, ${cache})`);
    caches.push(loaded);
  },
  saveTo(context, cache, _, caches) {
    const { random } = context;
    const file = context.declare(
      'file',
      context.place(
        random.pick([
          'f.file()',
          'f.file()',
          '{ ...f.file(), write: async () => null }',
          '{ ...f.file(), write: async () => ({ bytesWritten: -1 }) }',
          '{ ...f.file(), read: async () => ({}) }',
          '{ ...f.file(), read: async () => undefined }',
          '{ ...f.file(), write: () => 5 }',
          '{ ...f.file(), read: () => { throw f.planted; } }',
          '{ ...f.file(), write: () => ({ get bytesWritten() { throw f.planted; } }) }',
        ]),
        'object',
      ),
    );
    context.add(onLater(cache, 'saveTo', [file]));
    if (random.chance(0.3)) context.add(`f.spoil(${file}, ${random.int(0, 1e6)}, ${random.chance(0.5)})`);
    const loaded = context.declare(
      'loaded',
      wrap(`await f.later('KVCache.loadFrom', () => `, call('sdpa.KVCache.loadFrom', [file]), ')'),
    );
    caches.push(loaded);
  },
  alter(context, cache, _, caches) {
    const { random } = context;
    const bytes = context.declare(
      'bytes',
      wrap('(', on(cache, 'save', []), ' ?? new Uint8Array(200)).slice()'),
    );
    context.add(`${bytes}[${random.int(0, 199)} % ${bytes}.length] ^= ${random.int(1, 255)}`);
    caches.push(
      context.declare(
        'loaded',
        wrap(
          "f.call('KVCache.load', () => ",
          call('sdpa.KVCache.load', [
            `${bytes}.subarray(0, ${random.pick(['undefined', '100', '20', '0'])})`,
          ]),
          ')',
        ),
      ),
    );
  },
  read(context, cache) {
    const { random } = context;
    const property = random.pick(['length', 'lengths', 'capacity', 'byteLength', 'dtype']);
    context.add(`f.call('KVCache', () => ${cache}?.${property})`);
  },
  dispose(context, cache) {
    if (context.random.chance(0.4)) context.add(on(cache, 'dispose', []));
  },
};

function lifeOfACache(context) {
  const { random } = context;
  const layout = layoutOf(context);
  const options = layoutOptions(context, layout);
  const cache = context.declare(
    'cache',
    wrap('f.cache(() => (', context.place(options, 'object'), `), ${context.isValid})`),
  );
  context.cache = cache;
  const caches = [cache];
  const weights = {
    append: 4,
    attend: 3,
    step: 5,
    truncate: 2,
    keep: 1,
    fork: 1.5,
    save: 1,
    saveTo: 0.7,
    alter: 0.4,
    read: 0.7,
    dispose: 0.3,
  };
  for (let n = random.int(2, 9); n > 0; n--)
    ACTS[random.weighted(weights)](context, random.pick(caches), layout, caches);
  context.add(`f.end(${caches.join(', ')})`);
}

function stepTogether(context) {
  const { random } = context;
  const layout = { ...layoutOf(context), batch: 1 };
  const caches = [];
  for (let n = random.int(1, 4); n > 0; n--) {
    const options = layoutOptions(context, layout);
    caches.push(context.declare('cache', wrap('f.cache(() => (', options, '), false)')));
  }
  context.cache = caches[0];
  for (const cache of caches) ACTS.append(context, cache, layout);
  if (random.chance(0.5)) ACTS.fork(context, caches[0], layout, caches);
  for (let n = random.int(1, 3); n > 0; n--) {
    const count = random.pick([1, 1, 2, 0]);
    const names = tokens(context, layout, count, caches.length);
    const options = attendOptions(context, { ...layout, batch: caches.length }, names, count);
    const members = context.place(
      list(
        caches.map((cache) =>
          random.chance(0.02)
            ? context.strange('Object.create(sdpa.KVCache.prototype)')
            : context.place(cache, 'object'),
        ),
      ),
      'list',
    );
    const isPlain = typeof members !== 'string';
    const made = isPlain
      ? call('f.stepAll', [members, names.q, names.k, names.v, options], 4)
      : wrap(
          "f.call('KVCache.stepAll', () => ",
          call('sdpa.KVCache.stepAll', [members, names.q, names.k, names.v, options], 4),
          ')',
        );
    context.add(made);
  }
  context.add(`f.end(${caches.join(', ')})`);
}

function strangeCaches(context) {
  const given = hostile(context.random, 'object', 'primitive');
  context.add(`f.cache(() => ${given.startsWith('{') ? `(${given})` : given})`);
}

export const CACHES = {
  lifeOfACache: [lifeOfACache, 14],
  stepTogether: [stepTogether, 5],
  strangeCaches: [strangeCaches, 1],
};
