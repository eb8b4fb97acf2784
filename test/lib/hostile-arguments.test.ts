import { describe, expect, test } from 'vitest';
import { SdpaError } from '../../lib/errors.ts';
import * as sdpa from '../../lib/index.ts';
import { lyingList, odd } from '../odd-lists.ts';

const { KVCache, Tensor } = sdpa;

/** Arguments are whatever a caller without types may pass. */
const any = (value: unknown): never => value as never;

/** Over one element, by strides of 0. */
const claims = (shape: number[]): sdpa.Tensor =>
  new Tensor(new Float32Array(shape.at(-1)!), shape, { strides: [0, 0, 0, 1] });

const x = (): sdpa.Tensor => Tensor.randn([1, 2, 3, 4], { seed: 1 });
const cacheOf = (options: object = {}): sdpa.KVCache =>
  new KVCache({ numKvHeads: 2, headDim: 4, backend: 'reference', ...options });

const llama = sdpa.describeModel(sdpa.presetConfig('llama3-8b'));

/** What was once a crash, a hang, or an error that is none of ours. Found by scripts/fuzz, or by reading. */
const refused: readonly (readonly [call: string, what: string, use: () => unknown])[] = [
  [
    'attention',
    'a bigint in a list of integers',
    () => sdpa.attention(x(), x(), x(), { kvLengths: any([1n]) }),
  ],
  [
    'attention',
    'a symbol in a list of integers',
    () => sdpa.attention(x(), x(), x(), { queryOffset: any([Symbol('s')]) }),
  ],
  [
    'attention',
    'a list of 2^32 - 1 holes',
    () => sdpa.attention(x(), x(), x(), { kvLengths: new Array(2 ** 32 - 1) }),
  ],
  ['attention', 'holes among numbers', () => sdpa.attention(x(), x(), x(), { sinks: new Array(2) })],
  [
    'attention',
    'a list that says it is endless',
    () => sdpa.attention(x(), x(), x(), { alibiSlopes: any(lyingList(2 ** 53)) }),
  ],
  [
    'attention',
    'an object with the prototype of a Tensor',
    () => sdpa.attention(any(Object.create(Tensor.prototype)), x(), x()),
  ],
  [
    'attention',
    'a Tensor whose shape was overwritten',
    () => sdpa.attention(Object.assign(x(), { shape: [1, 2, 2 ** 40, 4] }), x(), x()),
  ],
  [
    'attention',
    'a Tensor whose size was overwritten',
    () => sdpa.attention(Object.assign(x(), { shape: [1, 2, 9, 4], size: 0 }), x(), x()),
  ],
  [
    'attention',
    '2^40 batch entries of no queries',
    () =>
      sdpa.attention(
        Tensor.zeros([2 ** 40, 1, 0, 4]),
        Tensor.zeros([2 ** 40, 1, 0, 4]),
        Tensor.zeros([2 ** 40, 1, 0, 4]),
      ),
  ],
  [
    'attention',
    '2^40 heads of one element',
    () => sdpa.attention(claims([1, 2 ** 40, 1, 1]), claims([1, 2 ** 40, 1, 1]), claims([1, 2 ** 40, 1, 1])),
  ],
  [
    'attention',
    '2^40 keys of one element',
    () => sdpa.attention(claims([1, 1, 1, 1]), claims([1, 1, 2 ** 40, 1]), claims([1, 1, 2 ** 40, 1])),
  ],
  [
    'attention',
    '2^31 queries without values',
    () => sdpa.attention(claims([1, 1, 2 ** 31, 1]), claims([1, 1, 1, 1]), Tensor.zeros([1, 1, 1, 0])),
  ],
  [
    'attention',
    'a result of 2^70 elements',
    () =>
      sdpa.attention(
        claims([1, 2 ** 20, 2 ** 10, 1]),
        claims([1, 1, 0, 1]),
        Tensor.zeros([1, 1, 0, 2 ** 40]),
      ),
  ],
  [
    'attention',
    'a result that no memory holds',
    () => sdpa.attention(claims([1, 1, 1, 1]), claims([1, 1, 0, 1]), Tensor.zeros([1, 1, 0, 2 ** 45])),
  ],
  [
    'attention',
    'an option with a name of a million letters',
    () => sdpa.attention(x(), x(), x(), any({ ['x'.repeat(1e6)]: 1 })),
  ],
  [
    'attentionWeights',
    '2^40 heads',
    () =>
      sdpa.attentionWeights(
        Tensor.zeros([1, 2 ** 40, 0, 4]),
        Tensor.zeros([1, 1, 0, 4]),
        Tensor.zeros([1, 1, 0, 4]),
      ),
  ],
  ['mergeAttention', 'a list of holes', () => sdpa.mergeAttention(new Array(3))],
  ['mergeAttention', 'a list that says it is endless', () => sdpa.mergeAttention(any(lyingList(2 ** 53)))],
  ['alibiSlopes', '2^31 heads', () => sdpa.alibiSlopes(2 ** 31)],
  ['ropeTables', 'a table of 2^40 rows of nothing', () => sdpa.ropeTables({ dim: 0, maxPosition: 2 ** 40 })],
  ['ropeTables', '2^40 channels', () => sdpa.ropeTables({ dim: 2 ** 40, maxPosition: 0 })],
  [
    'rope',
    'a rope_type of another type',
    () => sdpa.rope(x(), { scaling: { rope_type: any(Object.create(null)) } }),
  ],
  [
    'rope',
    'a factor without a prototype',
    () => sdpa.rope(x(), { scaling: { rope_type: 'linear', factor: any(Object.create(null)) } }),
  ],
  ['rope', '2^50 channels of nothing', () => sdpa.rope(Tensor.zeros([1, 1, 0, 2 ** 50]))],
  [
    'rope',
    'a list whose length is a symbol',
    () =>
      sdpa.rope(x(), {
        scaling: {
          rope_type: 'longrope',
          original_max_position_embeddings: 9,
          short_factor: any(lyingList(Symbol('s'))),
        },
      }),
  ],
  ['rope', '2^40 tokens of nothing', () => sdpa.rope(Tensor.zeros([1, 0, 2 ** 40, 4]))],
  ['presetConfig', 'a symbol', () => sdpa.presetConfig(any(Symbol('s')))],
  ['kvCacheBytes', 'nothing', () => sdpa.kvCacheBytes(any(null), 1, 'int8')],
  ['kvCacheBytes', 'a layer of nothing', () => sdpa.kvCacheBytes(any({ layers: [null] }), 1, 'int8')],
  [
    'kvCacheBytes',
    'a list of holes that says all is well',
    () =>
      sdpa.kvCacheBytes(
        any({ layers: Object.assign(new Array(2), { every: () => true }), absorbed: null }),
        1,
        'int8',
      ),
  ],
  ['kvCacheBytes', 'layers alone', () => sdpa.kvCacheBytes(any({ layers: [{}] }), 1, 'int8')],
  ['kvCacheBytes', 'a dtype that caches have not', () => sdpa.kvCacheBytes(llama, 1, any('float64'))],
  ['kvCacheBytes', 'a dtype of a tensor only', () => sdpa.kvCacheBytes(llama, 1, any('bool'))],
  [
    'kvCacheBytes',
    'a number of heads that is none',
    () =>
      sdpa.kvCacheBytes(any({ layers: [{ ...llama.layers[0], numKvHeads: 3n }], absorbed: null }), 1, 'int8'),
  ],
  ['setNumThreads', 'an object without a prototype', () => sdpa.setNumThreads(any(Object.create(null)))],
  [
    'describeModel',
    'a model_type of a million letters',
    () => sdpa.describeModel({ model_type: 'x'.repeat(1e6) }),
  ],
  [
    'describeModel',
    'a list whose map is none',
    () =>
      sdpa.describeModel({
        ...{ model_type: 'llama', num_hidden_layers: 2, num_attention_heads: 4, hidden_size: 32 },
        layer_types: Object.assign(['x', 'y'], { map: 3 }),
      }),
  ],
  ['KVCache', '2^40 batch entries', () => cacheOf({ batch: 2 ** 40 })],
  ['KVCache', '2^52 channels', () => cacheOf({ headDim: 2 ** 52 })],
  ['KVCache', 'a dtype of a million letters', () => cacheOf({ dtype: 'x'.repeat(1e6) })],
  ['KVCache.keep', 'nothing', () => cacheOf().keep(any(undefined))],
  ['KVCache.keep', 'a length of 2^53', () => cacheOf().keep({ length: 2 ** 53 })],
  [
    'KVCache.keep',
    'a symbol',
    () =>
      cacheOf()
        .append(x(), x())
        .keep(any([Symbol('s')])),
  ],
  ['KVCache.truncate', 'an object without a prototype', () => cacheOf().truncate(any(Object.create(null)))],
  ['KVCache.stepAll', 'a list of holes', () => KVCache.stepAll(new Array(2), x(), x(), x())],
  ['at', 'a symbol', () => x().at(any(Symbol('s')), 0, 0, 0)],
  ['at', 'a bigint', () => x().at(any(1n), 0, 0, 0)],
  ['transpose', 'an object without a prototype', () => x().transpose(any(Object.create(null)), 0)],
  ['slice', 'an object without a prototype', () => x().slice(0, any(Object.create(null)))],
  ['toArray', '2^40 empty rows', () => Tensor.zeros([2 ** 40, 0]).toArray()],
  [
    'toArray',
    '2^40 times one element',
    () => new Tensor(new Float32Array(1), [2 ** 40], { strides: [0] }).toArray(),
  ],
  ['Tensor.from', 'a list that says it is endless', () => Tensor.from(lyingList(2 ** 53 - 1))],
  ['Tensor.from', 'a length that is a symbol', () => Tensor.from(lyingList(Symbol('s')))],
  ['Tensor.zeros', 'a length that is a symbol', () => Tensor.zeros(any(lyingList(Symbol('s'))))],
  ['Tensor.zeros', '2^52 elements', () => Tensor.zeros([2 ** 52])],
  ['Tensor.zeros', 'a product beyond 2^53', () => Tensor.zeros([2 ** 30, 2 ** 30, 0])],
  ['Tensor', 'an offset of 2^53 - 1', () => new Tensor(new Float32Array(4), [4], { offset: 2 ** 53 - 1 })],
  [
    'Tensor',
    'strides that cancel one another out',
    () => new Tensor(new Float32Array(4), [3, 3], { strides: [2 ** 53 - 1, 1 - 2 ** 53] }),
  ],
];

/** A window whose getter writes to a tensor that was checked before. */
const tampering = (k: sdpa.Tensor): object => ({
  window: {
    get left() {
      Object.assign(k, { shape: [1, 2, 3000, 4], offset: 2 ** 40 });
      return 5;
    },
  },
});

/** A list of another library whose getter does that. */
const tamperingList = (k: sdpa.Tensor): object => ({
  get data() {
    Object.assign(k, { shape: [1, 2, 3000, 4], offset: 2 ** 40 });
    return new Int32Array([0]);
  },
  dims: [1],
  type: 'int32',
});

describe('refused, in the words of the call', () => {
  test.each(refused)('%s: %s', (call, _, use) => {
    let thrown: unknown;
    try {
      use();
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(SdpaError);
    const { message } = thrown as Error;
    expect(message.startsWith(`${call}: `), message.slice(0, 200)).toBe(true);
    expect(message.length).toBeLessThan(2000);
  });

  test.each(['saveTo', 'loadFrom'] as const)('%s: a file that answers nothing', async (method) => {
    const nothing = async (): Promise<never> => any(null);
    const file = { read: nothing, write: nothing };
    const use = method === 'saveTo' ? cacheOf().saveTo(file) : KVCache.loadFrom(file);
    await expect(use).rejects.toThrow(`KVCache.${method}: `);
    await expect(use).rejects.toThrow(SdpaError);
  });

  test.each(['attention', 'attentionWeights', 'attentionStats'] as const)(
    '%s: a tensor tampered with meanwhile',
    (call) => {
      const k = x();
      // biome-ignore lint/performance/noDynamicNamespaceImportAccess: each in turn
      const use: (...args: never[]) => unknown = sdpa[call];
      expect(() => use(any(x()), any(k), any(x()), any(tampering(k)))).toThrow(
        `${call}: a getter of an argument changed the fields of k`,
      );
    },
  );

  test('attention: a tensor that comes to claim 2^20 batch entries meanwhile, without a list of them', () => {
    const q = x();
    const options = {
      get scale() {
        Object.assign(q, { shape: [2 ** 20, 2, 3, 4] });
        return 1;
      },
    };
    const before = process.memoryUsage().heapUsed;
    expect(() => sdpa.attention(q, x(), x(), options)).toThrow(sdpa.ShapeError);
    expect(process.memoryUsage().heapUsed - before).toBeLessThan(40 * 2 ** 20);
  });

  test.each(['queries', 'heads'])('%s: a list that tampers with a tensor meanwhile', (name) => {
    for (const call of [sdpa.attentionWeights, sdpa.attentionStats] as ((...args: never[]) => unknown)[]) {
      const k = x();
      // The list is read first, so that what k claims is looked at afterwards.
      expect(() => call(any(x()), any(k), any(x()), any({ [name]: tamperingList(k) }))).toThrow(
        sdpa.ShapeError,
      );
    }
  });

  test('attentionWeights: options that answer twice, differently', () => {
    let asked = 0;
    const options = {
      get cuSeqlensQ() {
        return asked++ === 0 ? [0, 3] : null;
      },
      cuSeqlensK: [0, 3],
    };
    const packed = x().squeeze(0);
    expect(sdpa.attentionWeights(packed, packed, packed, options).shape).toEqual([1, 2, 3, 3]);
    expect(asked).toBe(1);
  });

  test('attentionAsync: a signal that cannot signal', async () => {
    const signal = any({ aborted: false, addEventListener: 5 });
    await expect(sdpa.attentionAsync(x(), x(), x(), { signal })).rejects.toThrow(sdpa.OptionError);
  });
});

describe('taken for what it is', () => {
  const want = sdpa.attention(x(), x(), x()).data;

  test('data of a subclass, of another realm, or with properties that hide its own', () => {
    class Strange extends Float32Array {
      static get [Symbol.species](): Float32ArrayConstructor {
        return any(Date);
      }
      override subarray(): never {
        return any(null);
      }
      override set(): void {}
    }
    const disguised = x().data.slice();
    for (const name of ['length', 'byteLength', 'byteOffset', 'buffer', 'constructor'])
      Object.defineProperty(disguised, name, { value: 1 });
    for (const data of [new Strange(x().data), disguised]) {
      const like = { data, dims: [1, 2, 3, 4], type: 'float32' };
      expect(sdpa.attention(like, like, like).data).toEqual(want);
      const tensor = new Tensor(any(data), [1, 2, 3, 4]);
      expect(tensor.slice(2, 1, 3).clone().toArray()).toEqual(x().slice(2, 1, 3).toArray());
      expect(cacheOf().append(tensor, tensor).keys().data).toEqual(x().data);
    }
  });

  test('lists whose methods were replaced', () => {
    const options = { kvLengths: any(odd([2])), sinks: any(odd([1, 2])) };
    const plain = { kvLengths: [2], sinks: [1, 2] };
    expect(sdpa.attention(x(), x(), x(), options).data).toEqual(sdpa.attention(x(), x(), x(), plain).data);
  });

  test('a Proxy of a Tensor is read once', () => {
    let asked = 0;
    const proxy = new Proxy(x(), {
      get: (target, name) => (name === 'shape' && asked++ > 0 ? [1, 2, 300, 4] : Reflect.get(target, name)),
    });
    expect(sdpa.attention(proxy, x(), x()).data).toEqual(want);
    expect(asked).toBe(1);
  });

  test('a batch of none, with a mask for its queries', () => {
    const none = Tensor.zeros([0, 2, 3, 4]);
    const mask = Tensor.full([2, 3, 3], true, { dtype: 'bool' });
    expect(sdpa.attention(none, none, none, { mask }).shape).toEqual([0, 2, 3, 4]);
    expect(sdpa.attentionWeights(none, none, none, { queries: [2] }).shape).toEqual([0, 2, 1, 3]);
  });

  test('values of no channels have no memory, and an lse all the same', () => {
    const q = Tensor.randn([3, 3, 3, 16], { seed: 1 });
    const k = Tensor.randn([3, 3, 111, 16], { seed: 2 });
    const v = Tensor.zeros([3, 3, 111, 0]);
    const { out, lse } = sdpa.attention(q, k, v, { returnLse: true }) as {
      out: sdpa.Tensor;
      lse: sdpa.Tensor;
    };
    expect(out.shape).toEqual([3, 3, 3, 0]);
    const { lse: want } = sdpa.attention(q, k, k, { returnLse: true }) as { lse: sdpa.Tensor };
    expect(lse.toArray()).toEqual(want.toArray());
  });

  test('200,000 batch entries of different lengths', () => {
    const batch = 200_000;
    const rows = Tensor.zeros([batch, 1, 1, 1]);
    using cache = new KVCache({ numKvHeads: 1, headDim: 1, batch, backend: 'reference' });
    expect(cache.append(rows, rows).length).toBe(1);
    expect(cache.lengths.length).toBe(batch);
  });

  test('the extremes of positions and windows', () => {
    const options = {
      queryOffset: 2 ** 31 - 1,
      window: { left: 2 ** 53 - 1, right: 2 ** 53 - 1, sinkTokens: 2 ** 53 - 1 },
    };
    for (const backend of ['native', 'reference', 'auto'] as const) {
      if (backend === 'native' && sdpa.backendInfo().backend !== 'native') continue;
      const got = sdpa.attention(x(), x(), x(), { ...options, backend, threads: 2 ** 53 - 1 });
      expect(sdpa.compareAttention(x(), x(), x(), {}, got).pass).toBe(true);
      const none = sdpa.attention(x(), x(), x(), { queryOffset: -(2 ** 31), causal: true, backend });
      expect(none.toFloat32Array().every((value) => value === 0)).toBe(true);
    }
  });
});
