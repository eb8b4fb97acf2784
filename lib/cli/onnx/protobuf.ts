// The wire format of protocol buffers, as much of it as a model file needs: varints, 32-bit floats, and whatever has a
// length. Source: https://protobuf.dev/programming-guides/encoding

const VARINT = 0;
const LENGTH = 2;
const FIXED32 = 5;

/** A number that is written as a 32-bit float; plain ones are integers. */
export class Float {
  readonly value: number;

  constructor(value: number) {
    this.value = value;
  }
}

/** Field numbers and their values. */
export type Message = readonly (readonly [field: number, value: number | string | Float | Message])[];

/**
 * Encodes a message given as a list of [field number, value]: a number becomes a varint, a Float four bytes, a string
 * UTF-8, and an array a message of its own.
 */
export function encodeMessage(fields: Message): Uint8Array {
  return concatenate(fields.map(([field, value]) => encodeField(field, value)));
}

function encodeField(field: number, value: Message[number][1]): Uint8Array {
  const key = (wireType: number): Uint8Array => encodeVarint(field * 8 + wireType);
  if (typeof value === 'number') return concatenate([key(VARINT), encodeVarint(value)]);
  if (value instanceof Float) return concatenate([key(FIXED32), encodeFloat(value.value)]);
  const bytes = typeof value === 'string' ? new TextEncoder().encode(value) : encodeMessage(value);
  return concatenate([key(LENGTH), encodeVarint(bytes.length), bytes]);
}

function encodeFloat(value: number): Uint8Array {
  const bytes = new Uint8Array(4);
  new DataView(bytes.buffer).setFloat32(0, value, true);
  return bytes;
}

/** Seven bits a byte, the lowest first; a negative number is its two's complement of 64 bits. */
function encodeVarint(value: number): Uint8Array {
  const bytes: number[] = [];
  let rest = BigInt.asUintN(64, BigInt(value));
  for (; rest > 0x7fn; rest >>= 7n) bytes.push(Number(rest & 0x7fn) | 0x80);
  return Uint8Array.from([...bytes, Number(rest)]);
}

function concatenate(parts: readonly Uint8Array[]): Uint8Array {
  const whole = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
  let begin = 0;
  for (const part of parts) {
    whole.set(part, begin);
    begin += part.length;
  }
  return whole;
}
