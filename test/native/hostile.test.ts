import { beforeAll, describe, expect, test } from 'vitest';
import { attention, attentionAsync } from '../../lib/attention.ts';
import { OptionError, SdpaError } from '../../lib/errors.ts';
import { KVCache } from '../../lib/kv-cache.ts';
import type { Addon } from '../../lib/native/addon.ts';
import { loadAddon } from '../../lib/native/loader.ts';
import type { AttentionOptions } from '../../lib/options.ts';
import { Tensor } from '../../lib/tensor.ts';
import { backendsUnderTest } from '../backends.ts';
import { runChildOk } from '../child.ts';

const make = (heads: number, length: number, seed: number): Tensor =>
  Tensor.randn([1, heads, length, 16], { seed });

/** x in a resizable buffer. (TypeScript's ArrayBuffer of this target knows none.) */
function resizable(x: Tensor): { tensor: Tensor; resize: (bytes: number) => void } {
  const Resizable = ArrayBuffer as unknown as new (bytes: number, options: object) => ArrayBuffer;
  const buffer = new Resizable(x.byteLength, { maxByteLength: 2 * x.byteLength });
  const data = new Float32Array(buffer);
  data.set(x.data);
  const resize = (bytes: number): void =>
    (buffer as unknown as { resize(bytes: number): void }).resize(bytes);
  return { tensor: new Tensor(data, x.shape), resize };
}

/** Gives the memory of x away, as postMessage with a transfer list does. */
function transfer(x: Tensor): Tensor {
  const buffer = x.data.buffer as ArrayBuffer;
  structuredClone(buffer, { transfer: [buffer] });
  return x;
}

// A call that sees nothing wrong reads or writes beyond the memory, so each must be a typed error, on every backend.
describe.each(backendsUnderTest())('$name', ({ backend, select }) => {
  beforeAll(select);
  const [q, k, v] = [make(4, 3, 1), make(2, 5, 2), make(2, 5, 3)];
  const given = { backend } as const;
  /** Of ten cached tokens the last five. */
  const lastFive = new Tensor(Uint8Array.of(0, 0, 0, 0, 0, 1, 1, 1, 1, 1), [10], { dtype: 'bool' });

  const expectRefused = async (use: () => unknown): Promise<void> => {
    let thrown: unknown;
    try {
      await use();
    } catch (error) {
      thrown = error;
    }
    expect(thrown).toBeInstanceOf(SdpaError);
    expect((thrown as Error).message).toMatch(/^(attention|KVCache)\S*: \w+/);
  };

  /** Each way to hand over three tensors. */
  const uses = (...args: [Tensor, Tensor, Tensor]): (() => unknown)[] => {
    const cache = (): KVCache => new KVCache({ numKvHeads: 2, headDim: 16, backend });
    return [
      () => attention(...args, given),
      () => attentionAsync(...args, given),
      () => cache().append(args[1], args[2]).attend(args[0]),
      () => cache().append(args[1], args[2]).attendAsync(args[0]),
      () => cache().step(...args),
      () => cache().stepAsync(...args),
    ];
  };

  test.each([0, 1, 2])('a buffer that was transferred before: argument %i', async (n) => {
    const args = [q, k, v].map((x, i) => (i === n ? transfer(x.clone()) : x)) as [Tensor, Tensor, Tensor];
    for (const use of uses(...args)) await expectRefused(use);
  });

  test.each([0, 1, 2])('a buffer that has shrunk since: argument %i', async (n) => {
    const shrunk = (x: Tensor): Tensor => {
      const { tensor, resize } = resizable(x);
      resize(x.byteLength / 2);
      return tensor;
    };
    const args = [q, k, v].map((x, i) => (i === n ? shrunk(x) : x)) as [Tensor, Tensor, Tensor];
    for (const use of uses(...args)) await expectRefused(use);
  });

  test('a tensor-like that lies about its size, or changes its mind', async () => {
    const { data } = k;
    const lies: object[] = [
      { data, dims: [1, 2, 6, 16], type: 'float32' },
      { data, dims: [1, 2, 5, 16], type: 'float32', strides: [160, 81, 16, 1] },
      { data, dims: [1, 2, 5, 16], type: 'float32', strides: [160, 80, -16, 1] },
      { data, dims: [1, 2, 5, 16], type: 'float32', strides: [0, 2 ** 53, 16, 1] },
      { data, dims: [1, 2, -5, 16], type: 'float32' },
      { data, dims: [1, 2, 5, 16], type: 'float16' },
      { data, dims: [1, 2, 2 ** 32 + 5, 16], type: 'float32' },
      { data: { length: 160, buffer: data.buffer }, dims: [1, 2, 5, 16], type: 'float32' },
      { data: Object.assign(data.slice(0, 8), { foo: 1 }), dims: [1, 2, 5, 16], type: 'float32' },
    ];
    for (const lie of lies) for (const use of uses(q, lie as Tensor, v)) await expectRefused(use);
    let asked = 0;
    const fickle = {
      data,
      type: 'float32',
      get dims() {
        return asked++ === 0 ? [1, 2, 5, 16] : [1, 2, 5000, 16];
      },
    };
    expect(attention(q, fickle, v, given).data).toEqual(attention(q, k, v, given).data);
    expect(asked).toBe(1);
  });

  /** Options that give the memory of x away while they are read, after x itself was. */
  const sly = (x: Tensor): object => ({
    window: {
      get left() {
        transfer(x);
        return 40;
      },
    },
    backend,
  });

  test('a getter that gives the memory away in the middle of the call', async () => {
    for (const call of [attention, attentionAsync]) {
      const [a, b, c] = [q.clone(), k.clone(), v.clone()];
      if (backend === 'native') await expectRefused(() => call(a, b, c, sly(b)));
      else await call(a, b, c, sly(b)); // Numbers that mean nothing, in memory that is our own.
    }
  });

  test('a tensor read last that gives the memory of one read before away', async () => {
    const operands: Readonly<Record<string, () => Tensor>> = {
      q: () => q.clone(),
      k: () => k.clone(),
      v: () => v.clone(),
      mask: () => Tensor.full([3, 5], 1, { dtype: 'bool' }),
      bias: () => Tensor.zeros([3, 5]),
      alibiSlopes: () => Tensor.zeros([4]),
      sinks: () => Tensor.zeros([4]),
    };
    for (const [name, operand] of Object.entries(operands)) {
      for (const call of [attention, attentionAsync]) {
        const x = operand();
        const given = { q, k, v, backend, [name]: x };
        const out = {
          get data() {
            transfer(x);
            return new Float32Array(q.size);
          },
          dims: q.shape,
          type: 'float32',
        } as unknown as Tensor;
        const { q: a, k: b, v: c, ...options } = given;
        const use = (): unknown => call(a, b, c, { ...options, out });
        if (backend === 'native') await expectRefused(use);
        else await (async () => use())().catch(() => {});
        expect(x.data).toHaveLength(0);
      }
    }
  });

  test.runIf(backend === 'native')('and in the middle of a step: the cache keeps what it held', async () => {
    for (const form of ['step', 'stepAsync'] as const) {
      for (const n of [0, 1, 2]) {
        const cache = new KVCache({ numKvHeads: 2, headDim: 16, backend }).append(k, v);
        const args = [q, k.slice(2, 1, 4), v.slice(2, 1, 4)].map((x) => x.clone()) as [
          Tensor,
          Tensor,
          Tensor,
        ];
        const step = cache[form].bind(cache) as KVCache['step'];
        await expectRefused(() => step(...args, sly(args[n])));
        expect(cache.length).toBe(5);
        cache.append(k, v);
        expect(cache.keys().slice(2, 5).toArray()).toEqual(k.toArray());
        const twin = new KVCache({ numKvHeads: 2, headDim: 16, backend }).append(k, v).append(k, v);
        expect(cache.attend(q, { mask: lastFive }).data).toEqual(twin.attend(q, { mask: lastFive }).data);
        cache.dispose();
      }
    }
  });
});

describe.runIf(!(loadAddon() instanceof Error))('memory that goes while another thread uses it', () => {
  // A crash would take the process along, and memory is only given back by a collection: hence a child.
  // Where the engine cannot keep memory in place, calls work on copies: the second mode, forced here.
  test.each([true, false])('transferred, and its new owner collected; pinned: %s', (pinned) => {
    const got = runChildOk<unknown>(
      `
      const { loadAddon } = await import(new URL('native/loader.js', url));
      const isPinned = loadAddon().pinsMemory(${pinned});
      const make = (seed) => sdpa.Tensor.randn([1, 8, 1500, 64], { seed });
      const give = (x) => void structuredClone(x.data.buffer, { transfer: [x.data.buffer] });
      const bytes = (t) => Buffer.from(t.data.buffer, t.data.byteOffset, t.data.byteLength);
      const want = bytes(sdpa.attention(make(1), make(2), make(3)));
      const same = [];
      for (let n = 0; n < 3; n++) {
        const tensors = [make(1), make(2), make(3)];
        const call = sdpa.attentionAsync(...tensors);
        tensors.forEach(give);
        gc(); await new Promise((resolve) => setTimeout(resolve, 2)); gc();
        same.push(tensors.every((t) => t.data.length === 0) && bytes(await call).equals(want));
      }
      const q = make(1);
      const out = sdpa.Tensor.zeros([1, 8, 1500, 64]);
      const cache = new sdpa.KVCache({ numKvHeads: 8, headDim: 64 }).append(make(2), make(3));
      const call = cache.attendAsync(q, { causal: false, out }).catch((error) => error);
      give(q); give(out);
      gc(); await new Promise((resolve) => setTimeout(resolve, 2)); gc();
      const refused = await call;
      same.push(bytes(cache.attend(make(1), { causal: false })).equals(want));
      const step = [make(1), make(2), make(3)];
      const stepping = cache.stepAsync(...step, { out: sdpa.Tensor.zeros([1, 8, 1500, 64]) });
      step.forEach(give);
      gc(); await new Promise((resolve) => setTimeout(resolve, 2)); gc();
      same.push(bytes(await stepping).equals(bytes(cache.attend(make(1)))));
      console.log(JSON.stringify({ isPinned, same, refused: [refused.code, refused.message] }));`,
      { flags: ['--expose-gc'] },
    );
    expect(got).toEqual({
      isPinned: pinned,
      same: [true, true, true, true, true],
      refused: ['ERR_SHAPE', expect.stringContaining('the memory of out was transferred while the call ran')],
    });
  });

  test('on copies: the bits of the call in place, for each operand, dtype and layout', async () => {
    const addon = loadAddon() as Addon;
    const batch = [1, 2, 3].map((seed) => Tensor.randn([2, 4, 40, 16], { seed }));
    const [q, k, v] = [batch[0], batch[1].slice(1, 0, 2), batch[2].slice(1, 2, 4)];
    const mask = new Tensor(
      Uint8Array.from({ length: 1600 }, (_, n) => (n % 7 === 3 ? 0 : 1)),
      [40, 40],
      { dtype: 'bool' },
    );
    const options: AttentionOptions[] = [
      { window: { left: 9, right: 3 }, softcap: 3 },
      { mask, bias: Tensor.randn([4, 40, 40], { seed: 4 }), sinks: [1, 2, 3, 4] },
      { alibiSlopes: [0.5, 0.25, 0.125, 0.0625], precision: 'medium' },
    ];
    for (const dtype of ['float32', 'float16', 'bfloat16'] as const) {
      const [a, b, c] = [q, k, v].map((x) => x.to(dtype));
      // Every second row of a larger tensor, what lies between is somebody else's.
      const home = (): Tensor => Tensor.full([2, 4, 80, 16], 7, { dtype });
      for (const each of options) {
        const results: unknown[] = [];
        for (const pinned of [true, false]) {
          const whole = home();
          const out = new Tensor(whole.data, [2, 4, 40, 16], {
            dtype,
            strides: [5120, 1280, 32, 1],
            offset: 16,
          });
          addon.pinsMemory(pinned);
          const call = attentionAsync(a, b, c, { ...each, out, returnLse: true, backend: 'native' });
          addon.pinsMemory(true);
          const { lse } = await call;
          results.push([whole.data, lse.data]);
        }
        expect(results[1]).toEqual(results[0]);
        expect(results[0]).not.toEqual([home().data, expect.anything()]);
      }
    }
  });

  test('resizable: refused, since it may shrink', async () => {
    const [q, k, v] = [make(2, 3, 1), make(2, 5, 2), make(2, 5, 3)];
    const want = attention(q, k, v, { backend: 'native' });
    expect(attention(q, resizable(k).tensor, v, { backend: 'native' }).data).toEqual(want.data);
    const call = attentionAsync(q, resizable(k).tensor, v, { backend: 'native' });
    await expect(call).rejects.toThrow(OptionError);
    await expect(call).rejects.toThrow('k lies in a resizable ArrayBuffer, which may shrink');
    const out = resizable(Tensor.zeros([1, 2, 3, 16])).tensor;
    await expect(attentionAsync(q, k, v, { backend: 'native', out })).rejects.toThrow(
      'out lies in a resizable',
    );
    const cache = new KVCache({ numKvHeads: 2, headDim: 16, backend: 'native' }).append(
      resizable(k).tensor,
      v,
    );
    await expect(cache.attendAsync(resizable(q).tensor)).rejects.toThrow('q lies in a resizable');
    await expect(cache.stepAsync(resizable(q).tensor, k.slice(2, 0, 3), v.slice(2, 0, 3))).rejects.toThrow(
      'q lies in',
    );
    expect(cache.length).toBe(5);
  });

  test('resizable, whatever it says of itself: refused', () => {
    const refusals = runChildOk<string[]>(`
      const lies = [
        (data) => Object.defineProperty(data.buffer, 'resizable', { value: false }),
        (data) => Object.setPrototypeOf(data.buffer, null),
        (data) => Object.defineProperty(data, 'buffer', { value: new ArrayBuffer(8) }),
      ];
      const [q, k, v] = [1, 2, 3].map((seed) => sdpa.Tensor.randn([1, 8, 1500, 64], { seed }));
      const cache = new sdpa.KVCache({ numKvHeads: 8, headDim: 64 }).append(k, v);
      const refusals = [];
      for (const lie of lies) {
        for (const call of [(x) => sdpa.attentionAsync(q, x, v), (x) => cache.attendAsync(x)]) {
          const buffer = new ArrayBuffer(k.byteLength, { maxByteLength: k.byteLength });
          const tensor = new sdpa.Tensor(new Float32Array(buffer), k.shape);
          lie(tensor.data);
          const calling = call(tensor);
          ArrayBuffer.prototype.resize.call(buffer, 0);
          refusals.push(await calling.then(() => 'none', (error) => error.code));
        }
      }
      console.log(JSON.stringify(refusals));`);
    expect(refusals).toEqual(Array(6).fill('ERR_OPTION'));
  });

  test('shared: read in place', async () => {
    const shared = (x: Tensor): Tensor => {
      const data = new Float32Array(new SharedArrayBuffer(x.byteLength));
      data.set(x.data);
      return new Tensor(data, x.shape);
    };
    const [q, k, v] = [make(2, 3, 1), make(2, 5, 2), make(2, 5, 3)];
    const got = await attentionAsync(shared(q), shared(k), shared(v), { backend: 'native' });
    expect(got.data).toEqual(attention(q, k, v, { backend: 'native' }).data);
  });
});
