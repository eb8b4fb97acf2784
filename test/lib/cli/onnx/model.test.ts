import { describe, expect, test } from 'vitest';
import { encodeModel, MICROSOFT, makeNode } from '../../../../lib/cli/onnx/model.ts';
import { encodeMessage, type Message as Fields, Float } from '../../../../lib/cli/onnx/protobuf.ts';

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex');

// The examples of https://protobuf.dev/programming-guides/encoding.
describe('encodeMessage', () => {
  test.each<[string, Fields, string]>([
    ['a varint', [[1, 150]], '089601'],
    ['a string', [[2, 'testing']], '120774657374696e67'],
    ['a message in a message', [[3, [[1, 150]]]], '1a03089601'],
    ['a negative number', [[1, -2]], '08feffffffffffffffff01'],
    ['zero', [[1, 0]], '0800'],
    ['a number beyond 32 bits', [[1, 2 ** 40]], '08808080808020'],
    ['a field above 15', [[20, 1]], 'a00101'],
    ['an empty string', [[7, '']], '3a00'],
    ['a 32-bit float', [[2, new Float(1.5)]], '150000c03f'],
  ])('%s', (_, fields, bytes) => expect(hex(encodeMessage(fields))).toBe(bytes));
});

type Message = Map<number, (number | Uint8Array)[]>;

/** Undoes encodeMessage one level deep: the values of each field, in order. */
function decode(bytes: Uint8Array): Message {
  const fields: Message = new Map();
  let at = 0;
  const readVarint = (): number => {
    let value = 0n;
    for (let shift = 0n; ; shift += 7n) {
      const byte = bytes[at++];
      value |= BigInt(byte & 0x7f) << shift;
      if (byte < 0x80) return Number(BigInt.asIntN(64, value));
    }
  };
  while (at < bytes.length) {
    const key = readVarint();
    const values = fields.get(key >> 3) ?? [];
    fields.set(key >> 3, values);
    if ((key & 7) === 0) values.push(readVarint());
    else {
      const length = (key & 7) === 2 ? readVarint() : 4;
      values.push(bytes.subarray(at, at + length));
      at += length;
    }
  }
  expect(at).toBe(bytes.length);
  return fields;
}

const texts = (message: Message, field: number): string[] =>
  (message.get(field) ?? []).map((bytes) => Buffer.from(bytes as Uint8Array).toString());
const messages = (message: Message, field: number): Message[] =>
  (message.get(field) ?? []).map((bytes) => decode(bytes as Uint8Array));

describe('encodeModel', () => {
  const model = decode(
    encodeModel({
      opset: 24,
      nodes: [
        makeNode(
          'GroupQueryAttention',
          ['q', '', 'v'],
          ['out'],
          { num_heads: 8, scale: new Float(0.25), axes: [1, 2] },
          MICROSOFT,
        ),
      ],
      inputs: { q: ['float16', [1, 'length', 64]], n: ['int64', []] },
      outputs: { out: ['float32', [2]] },
    }),
  );
  const [graph] = messages(model, 7);
  const [node] = messages(graph, 1);

  test('operator sets', () => {
    expect(messages(model, 8).map((set) => [texts(set, 1)[0], set.get(2)?.[0]])).toEqual([
      ['', 24],
      ['com.microsoft', 1],
    ]);
  });

  test('a node keeps the places of inputs that are left out', () => {
    expect(texts(node, 1)).toEqual(['q', '', 'v']);
    expect(texts(node, 2)).toEqual(['out']);
    expect(texts(node, 4)).toEqual(['GroupQueryAttention']);
    expect(texts(node, 7)).toEqual(['com.microsoft']);
  });

  test('attributes carry their type', () => {
    const [integer, float, integers] = messages(node, 5);
    expect([texts(integer, 1)[0], integer.get(3), integer.get(20)]).toEqual(['num_heads', [8], [2]]);
    expect([texts(float, 1)[0], hex(float.get(2)?.[0] as Uint8Array), float.get(20)]).toEqual([
      'scale',
      '0000803e',
      [1],
    ]);
    expect([texts(integers, 1)[0], integers.get(8), integers.get(20)]).toEqual(['axes', [1, 2], [7]]);
  });

  test('values have an element type and dims, free ones by name, none for a scalar', () => {
    const describeValue = (value: Message) => {
      const [tensor] = messages(messages(value, 2)[0], 1);
      const dims = messages(messages(tensor, 2)[0], 1).map((dim) => dim.get(1)?.[0] ?? texts(dim, 2)[0]);
      return [texts(value, 1)[0], tensor.get(1)?.[0], dims];
    };
    expect(messages(graph, 11).map(describeValue)).toEqual([
      ['q', 10, [1, 'length', 64]],
      ['n', 7, []],
    ]);
    expect(messages(graph, 12).map(describeValue)).toEqual([['out', 1, [2]]]);
  });
});
