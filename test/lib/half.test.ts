import { describe, expect, it } from 'vitest';
import {
  bfloat16ToFloat32,
  bfloat16ToNumber,
  float16ToFloat32,
  float16ToNumber,
  float32ToBfloat16,
  float32ToFloat16,
  numberToBfloat16,
  numberToFloat16,
} from '../../lib/half.ts';

interface Format {
  name: string;
  fractionBits: number;
  bias: number;
  infinity: number;
  toNumber: (bits: number) => number;
  fromNumber: (x: number) => number;
  toFloat32: (source: Uint16Array, target: Float32Array) => void;
  fromFloat32: (source: Float32Array, target: Uint16Array) => void;
}

const formats: Format[] = [
  {
    name: 'float16',
    fractionBits: 10,
    bias: 15,
    infinity: 0x7c00,
    toNumber: float16ToNumber,
    fromNumber: numberToFloat16,
    toFloat32: float16ToFloat32,
    fromFloat32: float32ToFloat16,
  },
  {
    name: 'bfloat16',
    fractionBits: 7,
    bias: 127,
    infinity: 0x7f80,
    toNumber: bfloat16ToNumber,
    fromNumber: numberToBfloat16,
    toFloat32: bfloat16ToFloat32,
    fromFloat32: float32ToBfloat16,
  },
];

/** The value by IEEE 754's definition, §3.4. */
function valueByDefinition(bits: number, { fractionBits, bias, infinity }: Format): number {
  const sign = bits & 0x8000 ? -1 : 1;
  const magnitude = bits & 0x7fff;
  const fraction = magnitude & (2 ** fractionBits - 1);
  const exponent = magnitude >> fractionBits;
  if (magnitude > infinity) return NaN;
  if (magnitude === infinity) return sign * Infinity;
  if (exponent === 0) return sign * fraction * 2 ** (1 - bias - fractionBits);
  return sign * (1 + fraction * 2 ** -fractionBits) * 2 ** (exponent - bias);
}

/** All cases in one list, so that one comparison fails with the first difference. */
function differences<T>(items: Iterable<T>, check: (item: T) => string | null): string[] {
  const found: string[] = [];
  for (const item of items) {
    const difference = check(item);
    if (difference !== null && found.length < 5) found.push(difference);
  }
  return found;
}

const allBits = Uint16Array.from({ length: 65536 }, (_, bits) => bits);
const up = (x: number): number => x * (1 + 2 ** -52);
const down = (x: number): number => x * (1 - 2 ** -53);

describe.each(formats)('$name', (format) => {
  const { infinity, toNumber, fromNumber } = format;

  it('has the value that IEEE 754 gives each of its 65536 patterns', () => {
    const wrong = differences(allBits, (bits) =>
      Object.is(toNumber(bits), valueByDefinition(bits, format)) ? null : `${bits}: ${toNumber(bits)}`,
    );
    expect(wrong).toEqual([]);
  });

  it('brings every pattern back unchanged, and every NaN quiet', () => {
    const quietBit = 1 << (format.fractionBits - 1);
    const wrong = differences(allBits, (bits) => {
      const back = fromNumber(toNumber(bits));
      const wasNaN = (bits & 0x7fff) > infinity;
      const ok = wasNaN ? (back & 0x7fff) > infinity && (back & quietBit) !== 0 : back === bits;
      return ok ? null : `${bits} -> ${back}`;
    });
    expect(wrong).toEqual([]);
  });

  it('rounds every halfway point to even, and what is next to it to the nearer side', () => {
    // The neighbours are float64 numbers: rounding through float32 first would make ties of them.
    const wrong = differences(allBits.subarray(0, infinity), (bits) => {
      const next = bits + 1 === infinity ? 2 * toNumber(bits) - toNumber(bits - 1) : toNumber(bits + 1);
      const halfway = (toNumber(bits) + next) / 2;
      const even = bits % 2 === 0 ? bits : bits + 1;
      const got = [down(halfway), halfway, up(halfway)].map(fromNumber);
      const negative = [down(halfway), halfway, up(halfway)].map((x) => fromNumber(-x) - 0x8000);
      const expected = [bits, even, bits + 1].join();
      return got.join() === expected && negative.join() === expected ? null : `${bits}: ${got}; ${negative}`;
    });
    expect(wrong).toEqual([]);
  });

  it('keeps signed zeros, infinities and what is too small or too large', () => {
    expect([0, -0, Infinity, -Infinity, 1e300, -1e300, 5e-324, -5e-324].map(fromNumber)).toEqual([
      0,
      0x8000,
      infinity,
      infinity | 0x8000,
      infinity,
      infinity | 0x8000,
      0,
      0x8000,
    ]);
    expect(fromNumber(NaN) & 0x7fff).toBeGreaterThan(infinity);
  });

  it('converts in bulk exactly as one by one', () => {
    const values = new Float32Array(65536);
    format.toFloat32(allBits, values);
    expect(
      differences(allBits, (bits) => (Object.is(values[bits], toNumber(bits)) ? null : `${bits}`)),
    ).toEqual([]);

    // Every float32 exponent and sign, with fractions around each rounding boundary of both formats.
    const fractions = [
      0, 1, 0xfff, 0x1000, 0x1001, 0x2fff, 0x3000, 0x7fff, 0x8000, 0x8001, 0x18000, 0x7fffff,
    ];
    const floats = new Float32Array(512 * fractions.length);
    const bits = new Uint32Array(floats.buffer);
    for (let i = 0; i < 512; i++) {
      fractions.forEach((fraction, j) => {
        bits[i * fractions.length + j] = i * 2 ** 23 + fraction;
      });
    }
    const halves = new Uint16Array(floats.length);
    format.fromFloat32(floats, halves);
    const wrong = differences(floats.keys(), (i) => {
      const single = fromNumber(floats[i]);
      // A NaN's payload may change on its way through a JavaScript number.
      if (Number.isNaN(floats[i])) return (halves[i] & 0x7fff) > infinity ? null : `${bits[i]} lost its NaN`;
      return halves[i] === single ? null : `${bits[i].toString(16)}: ${halves[i]}, ${single}`;
    });
    expect(wrong).toEqual([]);
  });

  it('keeps sign and upper payload of a NaN in bulk', () => {
    const bits = new Uint32Array([0x7f800001, 0xff812000, 0x7fffffff]);
    const halves = new Uint16Array(3);
    format.fromFloat32(new Float32Array(bits.buffer), halves);
    const expected = format.name === 'float16' ? [0x7e00, 0xfe09, 0x7fff] : [0x7fc0, 0xffc1, 0x7fff];
    expect([...halves]).toEqual(expected);
  });
});
