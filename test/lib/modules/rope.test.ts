import { describe, expect, test } from 'vitest';
import { DTypeError, OptionError, ShapeError } from '../../../lib/errors.ts';
import { type RopeOptions, rope, ropeTables } from '../../../lib/modules/rope.ts';
import type { RopeScaling } from '../../../lib/modules/rope-scaling.ts';
import { Tensor } from '../../../lib/tensor.ts';

/** RoFormer's rotation of one head vector, channel by channel, in float64. */
function rotate(x: number[], position: number, dim: number, interleaved: boolean, theta = 10000): number[] {
  const out = x.slice();
  for (let i = 0; i < dim / 2; i++) {
    const [a, b] = interleaved ? [2 * i, 2 * i + 1] : [i, i + dim / 2];
    const angle = position * theta ** ((-2 * i) / dim);
    out[a] = x[a] * Math.cos(angle) - x[b] * Math.sin(angle);
    out[b] = x[b] * Math.cos(angle) + x[a] * Math.sin(angle);
  }
  return out;
}

/** Expects every row of y to be the rotation of the row of x by positionOf(b, l), rounded once to y's dtype. */
function expectRotated(
  y: Tensor,
  x: Tensor,
  positionOf: (b: number, l: number) => number,
  o: RopeOptions = {},
) {
  const [batch, heads, length, headDim] = x.shape;
  expect(y.shape).toEqual(x.shape);
  expect(y.dtype).toBe(x.dtype);
  expect(y.isContiguous).toBe(true);
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      for (let l = 0; l < length; l++) {
        const row = Array.from({ length: headDim }, (_, d) => x.at(b, h, l, d));
        const rotated = rotate(
          row,
          positionOf(b, l),
          o.dim ?? headDim,
          o.interleaved ?? false,
          o.theta ?? 10000,
        );
        const want = Tensor.from([rotated], { dtype: x.dtype });
        // One rounding of the same float64 value: libm calls are the same, so nothing may differ.
        expect(Array.from({ length: headDim }, (_, d) => y.at(b, h, l, d))).toEqual(
          Array.from({ length: headDim }, (_, d) => want.at(0, d)),
        );
      }
    }
  }
}

describe('rope', () => {
  const x = Tensor.randn([2, 3, 5, 16], { seed: 1 });

  test('rotates halves by the position of the token', () => {
    expectRotated(rope(x), x, (_, l) => l);
    expectRotated(rope(x, { offset: 1000 }), x, (_, l) => 1000 + l);
    expectRotated(rope(x, { offset: -7 }), x, (_, l) => l - 7);
  });

  test('rotates neighbours when interleaved', () => {
    const options = { interleaved: true, theta: 500000 };
    expectRotated(rope(x, options), x, (_, l) => l, options);
  });

  test('takes positions for L tokens and for B·L tokens, in any form', () => {
    const shared = [9, 2, -3, 2, 131071];
    expectRotated(rope(x, { positions: shared }), x, (_, l) => shared[l]);
    expectRotated(rope(x, { positions: Int32Array.from(shared) }), x, (_, l) => shared[l]);
    const row = new Tensor(Int32Array.from(shared), [1, 5]);
    expectRotated(rope(x, { positions: row }), x, (_, l) => shared[l]);
    const each = Int32Array.from({ length: 10 }, (_, i) => 7 * i - 20);
    expectRotated(rope(x, { positions: each }), x, (b, l) => each[b * 5 + l]);
    expectRotated(
      rope(x, { positions: { data: each, dims: [2, 5], type: 'int32' } }),
      x,
      (b, l) => each[b * 5 + l],
    );
    const columns = new Tensor(each, [5, 2]).transpose(0, 1);
    expectRotated(rope(x, { positions: columns }), x, (b, l) => each[l * 2 + b]);
  });

  test('copies the channels beyond dim bit for bit, NaN payloads included', () => {
    const bits = Uint32Array.from({ length: 16 }, (_, i) => 0x7f800001 + i);
    const payloads = new Tensor(new Float32Array(bits.buffer), [1, 1, 1, 16]);
    const y = rope(payloads, { dim: 4, offset: 3 });
    expect([...new Uint32Array(y.data.buffer).slice(4)]).toEqual([...bits.slice(4)]);
    expectRotated(rope(x, { dim: 4, offset: 3 }), x, (_, l) => 3 + l, { dim: 4 });
    expectRotated(rope(x, { dim: 6, interleaved: true }), x, (_, l) => l, { dim: 6, interleaved: true });
    expect(rope(x, { dim: 0 }).data).toEqual(x.data);
  });

  test.each(['float16', 'bfloat16'] as const)('rounds %s once', (dtype) => {
    const narrow = Tensor.randn([1, 2, 40, 32], { seed: 2, dtype });
    expectRotated(rope(narrow, { offset: 50 }), narrow, (_, l) => 50 + l);
  });

  test('reads any strides and writes no input', () => {
    const packed = Tensor.randn([2, 5, 3, 16], { seed: 3 });
    const before = packed.data.slice();
    expectRotated(rope(packed.transpose(1, 2), { offset: 4 }), packed.transpose(1, 2), (_, l) => 4 + l);
    const lastAxisStrided = Tensor.randn([2, 3, 16, 5], { seed: 4 }).transpose(2, 3);
    expectRotated(rope(lastAxisStrided), lastAxisStrided, (_, l) => l);
    expect(packed.data).toEqual(before);
  });

  test('rank 3 means B = 1; foreign tensors go in; empty axes are legal', () => {
    const flat = Tensor.randn([3, 5, 16], { seed: 5 });
    const y = rope(flat, { offset: 2 });
    expect(y.shape).toEqual([3, 5, 16]);
    expect(y.data).toEqual(rope(flat.unsqueeze(0), { offset: 2 }).data);
    const foreign = { data: flat.data, dims: [3, 5, 16], type: 'float32' };
    expect(rope(foreign, { offset: 2 }).data).toEqual(y.data);
    for (const shape of [
      [0, 3, 5, 16],
      [2, 0, 5, 16],
      [2, 3, 0, 16],
      [2, 3, 5, 0],
    ]) {
      expect(rope(Tensor.zeros(shape)).shape).toEqual(shape);
    }
  });

  test('a rotated q·k depends on the distance alone', () => {
    const q = Tensor.randn([1, 1, 1, 64], { seed: 6 });
    const k = Tensor.randn([1, 1, 1, 64], { seed: 7 });
    const dot = (i: number, j: number) => {
      const [a, b] = [rope(q, { offset: i }).toFloat32Array(), rope(k, { offset: j }).toFloat32Array()];
      return a.reduce((sum, value, c) => sum + value * b[c], 0);
    };
    const norms = (t: Tensor) => Math.hypot(...t.data);
    // Each of both vectors is rounded to float32 once, on both sides: 4 roundings of 2^-24 relative to the norms.
    expect(Math.abs(dot(10, 3) - dot(1010, 1003))).toBeLessThanOrEqual(4 * 2 ** -24 * norms(q) * norms(k));
  });

  test('explicit tables stand for theta and scaling, and fix dim', () => {
    const { cos, sin } = ropeTables({ dim: 8, maxPosition: 32, theta: 1000 });
    const y = rope(x, { cos, sin, offset: 20 });
    const computed = rope(x, { dim: 8, theta: 1000, offset: 20 });
    const largest = Math.max(...x.toFloat32Array().map(Math.abs));
    // The table's entries are off by 2^-25 each at most; two products and one rounding of the sum follow.
    const bound = 2 * largest * 2 ** -25 + 2 * largest * 2 ** -24;
    for (let i = 0; i < y.size; i++)
      expect(Math.abs(y.data[i] - computed.data[i])).toBeLessThanOrEqual(bound);
    expect(rope(x, { cos, sin, dim: 8, offset: 20 }).data).toEqual(y.data);
  });

  test('uses the entries of the tables as they are', () => {
    const one = new Tensor(Float32Array.of(1, 2, 3, 4), [1, 1, 1, 4]);
    const cos = new Tensor(Float32Array.of(9, 9, 2, 3), [2, 2]);
    const sin = new Tensor(Float32Array.of(9, 9, 10, 100), [2, 2]);
    expect([...rope(one, { cos, sin, positions: [1] }).data]).toEqual([2 - 30, 6 - 400, 6 + 10, 12 + 200]);
    const interleaved = rope(one, { cos, sin, positions: [1], interleaved: true });
    expect([...interleaved.data]).toEqual([2 - 20, 4 + 10, 9 - 400, 12 + 300]);
  });

  test('the sequence length of dynamic scaling is the largest position + 1', () => {
    const scaling = { type: 'dynamic', factor: 2, max_position_embeddings: 8 };
    const long = rope(x, { scaling, positions: [0, 1, 2, 3, 23] });
    expect(long.data).not.toEqual(rope(x, { positions: [0, 1, 2, 3, 23] }).data);
    const theta = 10000 * (2 * (24 / 8) - 1) ** (16 / 14);
    expect(long.data).toEqual(rope(x, { theta, positions: [0, 1, 2, 3, 23] }).data);
    expect(rope(x, { scaling }).data).toEqual(rope(x).data);
  });

  test('reads theta and the share of channels from new-style rope_parameters, unless they are given', () => {
    const scaling = { rope_type: 'default', rope_theta: 1e7, partial_rotary_factor: 0.25 };
    expect(rope(x, { scaling }).data).toEqual(rope(x, { theta: 1e7, dim: 4 }).data);
    expect(rope(x, { scaling, theta: 100, dim: 8 }).data).toEqual(rope(x, { theta: 100, dim: 8 }).data);
  });

  const cos = Tensor.zeros([4, 8]);
  test.each<[string, unknown, unknown, new (m: string) => Error, RegExp]>([
    ['rank', Tensor.zeros([5, 16]), {}, ShapeError, /x must be \[B, H, L, D\].*\[5, 16\]/],
    ['integers', Tensor.zeros([1, 1, 5, 16], { dtype: 'int32' }), {}, DTypeError, /x must be float.*int32/],
    ['no tensor', 5, {}, DTypeError, /rope: x/],
    ['odd dim', x, { dim: 5 }, OptionError, /dim must be an even number.*got 5/],
    ['large dim', x, { dim: 18 }, OptionError, /at most headDim 16; got 18/],
    ['odd headDim', Tensor.zeros([1, 1, 5, 15]), {}, OptionError, /even number.*15/],
    ['theta', x, { theta: 0 }, OptionError, /theta must be a positive number; got 0/],
    ['NaN theta', x, { theta: Number.NaN }, OptionError, /theta/],
    ['misspelt', x, { postions: [1] }, OptionError, /did you mean 'positions'/],
    ['both', x, { positions: [1], offset: 1 }, OptionError, /positions and offset exclude/],
    ['too few positions', x, { positions: [1, 2] }, ShapeError, /\[5\] or \[B, L\] = \[2, 5\].*\[2\]/],
    ['wrong rows', x, { positions: new Tensor(new Int32Array(10), [5, 2]) }, ShapeError, /got \[5, 2\]/],
    ['fractions', x, { positions: [0, 1, 2, 3, 0.5] }, OptionError, /element 4 is 0.5/],
    ['float positions', x, { positions: new Float32Array(5) }, OptionError, /Int32Array.*Float32Array/],
    ['offset', x, { offset: 0.5 }, OptionError, /offset must be an integer; got 0.5/],
    ['lone cos', x, { cos }, OptionError, /sin is missing/],
    ['theta and tables', x, { cos, sin: cos, theta: 5 }, OptionError, /replace theta and scaling/],
    [
      'scaling and tables',
      x,
      { cos, sin: cos, scaling: {} },
      OptionError,
      /leave out either them or scaling/,
    ],
    ['half tables', x, { cos: cos.to('float16'), sin: cos }, DTypeError, /cos must be float32; got float16/],
    ['unlike tables', x, { cos, sin: Tensor.zeros([5, 8]) }, ShapeError, /cos \[4, 8\], sin \[5, 8\]/],
    [
      'full-width tables',
      x,
      { cos: Tensor.zeros([9, 16]), sin: Tensor.zeros([9, 16]) },
      ShapeError,
      /headDim 16/,
    ],
    ['dim and tables', x, { cos, sin: cos, dim: 8 }, ShapeError, /dim 8; got cos \[4, 8\]/],
    ['short tables', x, { cos, sin: cos }, OptionError, /position 4 \(of token 4\).*\[4, 8\]/],
    ['negative rows', x, { cos, sin: cos, offset: -1 }, OptionError, /position -1/],
    ['flag', x, { interleaved: 1 }, OptionError, /interleaved must be true or false/],
    [
      'unknown scaling',
      x,
      { scaling: { type: 'yarm' } },
      OptionError,
      /'yarm' is unknown.*llama3.*mean 'yarn'/,
    ],
    ['text', x, { scaling: 'yarn' }, OptionError, /scaling must be the rope_scaling object/],
  ])('refuses: %s', (_, input, options, kind, message) => {
    expect(() => rope(input as Tensor, options as RopeOptions)).toThrow(kind);
    expect(() => rope(input as Tensor, options as RopeOptions)).toThrow(message);
  });
});

describe('ropeTables', () => {
  const shortFactor = Array.from({ length: 32 }, (_, i) => 1 + i * 0.01);
  const longFactor = Array.from({ length: 32 }, (_, i) => 1 + i * 0.1);
  const llama3 = { rope_type: 'llama3', factor: 8, low_freq_factor: 1, high_freq_factor: 4 };
  const longrope = { rope_type: 'longrope', short_factor: shortFactor, long_factor: longFactor };

  // Frequencies by pair and the attention factor, from a separate NumPy evaluation of the published formulas.
  test.each<[string, number, number, number, RopeScaling | null, Record<number, number>, number]>([
    ['no scaling', 128, 5e5, 40, null, { 16: 0.03760603093086393, 63: 2.455140791131609e-6 }, 1],
    ['linear', 128, 1e6, 40, { rope_type: 'linear', factor: 8 }, { 0: 0.125, 32: 0.000125 }, 1],
    [
      ...(['dynamic within the context', 64, 1e4, 100] as const),
      { type: 'dynamic', factor: 2, max_position_embeddings: 128 },
      { 8: 0.1, 31: 0.0001333521432163324 },
      1,
    ],
    [
      ...(['dynamic beyond', 64, 1e4, 300] as const),
      { type: 'dynamic', factor: 2, max_position_embeddings: 128 },
      { 8: 0.0714079512762858, 16: 0.005099095505476406, 31: 3.616329307561557e-5 },
      1,
    ],
    [
      ...(['llama3', 128, 5e5, 40] as const),
      { ...llama3, original_max_position_embeddings: 8192 },
      { 0: 1, 24: 0.007292664737217109, 32: 0.0005248461609929547, 63: 3.068925988914511e-7 },
      1,
    ],
    [
      ...(['yarn without truncation (gpt-oss)', 64, 150000, 40] as const),
      {
        rope_type: 'yarn',
        factor: 32,
        beta_fast: 32,
        beta_slow: 1,
        truncate: false,
        original_max_position_embeddings: 4096,
      },
      {
        8: 0.050813274815461475,
        10: 0.01933500112654036,
        12: 0.006794959489732219,
        16: 0.00045648391922324086,
      },
      1.3465735902799727,
    ],
    [
      ...(['yarn with its defaults', 64, 10000, 40] as const),
      { type: 'yarn', factor: 40, original_max_position_embeddings: 4096 },
      { 10: 0.056234132519034905, 12: 0.026879360111431223, 16: 0.0055, 31: 3.3338035804083097e-6 },
      1.3688879454113936,
    ],
    [
      ...(['longrope within the context', 64, 10000, 40] as const),
      { ...longrope, max_position_embeddings: 131072, original_max_position_embeddings: 4096 },
      { 8: 0.09259259259259259, 31: 0.00010179552917277282 },
      1.1902380714238083,
    ],
    [
      ...(['longrope beyond', 64, 10000, 40] as const),
      { ...longrope, max_position_embeddings: 64, original_max_position_embeddings: 32 },
      { 8: 0.05555555555555556, 31: 3.252491297959327e-5 },
      1.0954451150103321,
    ],
  ])('%s', (_, dim, theta, maxPosition, scaling, frequencies, attentionFactor) => {
    const { invFreq, cos, sin } = ropeTables({ dim, maxPosition, theta, scaling });
    expect(invFreq.shape).toEqual([dim / 2]);
    expect(cos.shape).toEqual([maxPosition, dim / 2]);
    expect(sin.shape).toEqual([maxPosition, dim / 2]);
    // One float32 rounding is 2^-24 relative; the float64 evaluations differ by a few 2^-53.
    const relative = 2 ** -24 + 2 ** -45;
    for (const [pair, frequency] of Object.entries(frequencies)) {
      expect(Math.abs(invFreq.at(Number(pair)) / frequency - 1)).toBeLessThanOrEqual(relative);
      for (const position of [0, 1, maxPosition - 1]) {
        const angle = position * frequency;
        const bound = attentionFactor * relative;
        expect(
          Math.abs(cos.at(position, Number(pair)) - Math.cos(angle) * attentionFactor),
        ).toBeLessThanOrEqual(bound);
        expect(
          Math.abs(sin.at(position, Number(pair)) - Math.sin(angle) * attentionFactor),
        ).toBeLessThanOrEqual(bound);
      }
    }
  });

  test("yarn's attention factor: given, by DeepSeek's mscale, by the ratio of contexts", () => {
    const yarn = { rope_type: 'yarn', factor: 40, original_max_position_embeddings: 4096 };
    const factorOf = (scaling: RopeScaling) => ropeTables({ dim: 64, maxPosition: 1, scaling }).cos.at(0, 0);
    expect(factorOf({ ...yarn, attention_factor: 1.5 })).toBe(1.5);
    expect(factorOf({ ...yarn, mscale: 1, mscale_all_dim: 1 })).toBe(1);
    const ratio = (0.1 * 0.8 * Math.log(40) + 1) / (0.1 * 0.5 * Math.log(40) + 1);
    expect(factorOf({ ...yarn, mscale: 0.8, mscale_all_dim: 0.5 })).toBe(Math.fround(ratio));
    const byRatio = {
      rope_type: 'yarn',
      original_max_position_embeddings: 4096,
      max_position_embeddings: 163840,
    };
    expect(factorOf(byRatio)).toBe(factorOf(yarn));
  });

  test('proportional (Gemma 4) turns the first share of all pairs, at the pace of the whole head', () => {
    const scaling = { rope_type: 'proportional', rope_theta: 1e6, partial_rotary_factor: 0.25 };
    const { invFreq } = ropeTables({ dim: 512, maxPosition: 2, scaling });
    expect(invFreq.at(63)).toBe(Math.fround(1e6 ** (-126 / 512)));
    expect([...invFreq.data.slice(64)].every((frequency) => frequency === 0)).toBe(true);
    const x = Tensor.randn([1, 1, 2, 512], { seed: 8 });
    const y = rope(x, { scaling, offset: 9 });
    for (const channel of [64, 255, 320, 511]) expect(y.at(0, 0, 1, channel)).toBe(x.at(0, 0, 1, channel));
    for (const channel of [0, 63, 256, 319]) expect(y.at(0, 0, 1, channel)).not.toBe(x.at(0, 0, 1, channel));
  });

  test('takes the older names of kinds', () => {
    const options = { dim: 64, maxPosition: 8 };
    const scaling = { ...longrope, max_position_embeddings: 64, original_max_position_embeddings: 32 };
    const renamed = { ...scaling, rope_type: undefined, type: 'su' };
    expect(ropeTables({ ...options, scaling: renamed }).cos.data).toEqual(
      ropeTables({ ...options, scaling }).cos.data,
    );
    const mrope = { type: 'mrope', mrope_section: [16, 8, 8] };
    expect(ropeTables({ ...options, scaling: mrope }).cos.data).toEqual(ropeTables(options).cos.data);
  });

  test.each<[unknown, RegExp]>([
    [undefined, /dim must be an even number/],
    [{ dim: 7, maxPosition: 4 }, /dim must be an even number of channels; got 7/],
    [{ dim: 8 }, /maxPosition must be a whole number, at least 0; got undefined/],
    [{ dim: 8, maxPosition: -1 }, /maxPosition.*-1/],
    [{ dim: 8, maxPosition: 4, base: 5 }, /unknown name 'base' in options/],
    [{ dim: 8, maxPosition: 4, scaling: { rope_type: 'linear' } }, /'linear' needs factor/],
    [{ dim: 8, maxPosition: 4, scaling: { factor: 2 } }, /rope_type is missing \(scaling.factor is given\)/],
    [
      { dim: 8, maxPosition: 4, scaling: { type: 'linear', factor: -2 } },
      /factor must be a positive number; got -2/,
    ],
    [
      { dim: 8, maxPosition: 4, scaling: { type: 'dynamic', factor: 2 } },
      /'dynamic' needs max_position_embeddings/,
    ],
    [
      { dim: 2, maxPosition: 4, scaling: { type: 'dynamic', factor: 2, max_position_embeddings: 4 } },
      /dim > 2/,
    ],
    [
      { dim: 8, maxPosition: 4, scaling: { type: 'yarn', factor: 2 } },
      /needs original_max_position_embeddings/,
    ],
    [
      { dim: 8, maxPosition: 4, scaling: { type: 'yarn', original_max_position_embeddings: 4 } },
      /needs factor/,
    ],
    [
      { dim: 8, maxPosition: 4, scaling: { type: 'llama3', factor: 2, high_freq_factor: 4 } },
      /needs low_freq_factor/,
    ],
    [
      { dim: 8, maxPosition: 4, scaling: { ...longrope, original_max_position_embeddings: 4 } },
      /dim \/ 2 = 4.*got 32/,
    ],
    [
      { dim: 8, maxPosition: 4, scaling: { type: 'longrope', original_max_position_embeddings: 4 } },
      /needs short_factor/,
    ],
    [
      { dim: 8, maxPosition: 4, scaling: { full_attention: { rope_type: 'default' } } },
      /scaling.full_attention/,
    ],
    [{ dim: 8, maxPosition: 4, scaling: { type: 'constructor' } }, /'constructor' is unknown/],
  ])('refuses %j', (options, message) => {
    expect(() => ropeTables(options as never)).toThrow(OptionError);
    expect(() => ropeTables(options as never)).toThrow(message);
  });
});
