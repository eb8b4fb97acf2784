// An ONNX model in memory: nodes, inputs and outputs, no weights. The numbers are those of the fields in onnx.proto
// (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
import { encodeMessage, Float, type Message } from './protobuf.ts';

/** Of the file format; newer readers take it. */
const IR_VERSION = 10;
const ELEMENT_TYPES: Readonly<Record<string, number>> = { float32: 1, int32: 6, int64: 7, float16: 10 };
const ATTRIBUTE_TYPES = { float: 1, integer: 2, integers: 7 };

/** An element type by its name in ONNX, and dims, of which those that are names are free. */
export type ValueType = readonly [dtype: string, dims: readonly (number | string)[]];

/** A model without weights. */
export interface Graph {
  /** Version of the standard operators. */
  readonly opset: number;
  readonly nodes: readonly Message[];
  readonly inputs: Readonly<Record<string, ValueType>>;
  readonly outputs: Readonly<Record<string, ValueType>>;
}

export type Attributes = Readonly<Record<string, number | readonly number[] | Float>>;

/** The domain of ONNX Runtime's own operators. */
export const MICROSOFT = 'com.microsoft';

/**
 * One operator of a graph.
 *
 * @param inputs, outputs names; '' leaves an optional one out
 * @param attributes by name: an integer, a list of integers, or a Float
 */
export function makeNode(
  operator: string,
  inputs: readonly string[],
  outputs: readonly string[],
  attributes: Attributes = {},
  domain = '',
): Message {
  return [
    ...inputs.map((name) => [1, name] as const),
    ...outputs.map((name) => [2, name] as const),
    [4, operator],
    ...Object.entries(attributes).map(([name, value]) => [5, makeAttribute(name, value)] as const),
    [7, domain],
  ];
}

function makeAttribute(name: string, value: Attributes[string]): Message {
  if (value instanceof Float) {
    return [
      [1, name],
      [2, value],
      [20, ATTRIBUTE_TYPES.float],
    ];
  }
  if (typeof value === 'number') {
    return [
      [1, name],
      [3, value],
      [20, ATTRIBUTE_TYPES.integer],
    ];
  }
  return [[1, name], ...value.map((x) => [8, x] as const), [20, ATTRIBUTE_TYPES.integers]];
}

/** The bytes of a model. */
export function encodeModel({ opset, nodes, inputs, outputs }: Graph): Uint8Array {
  const graph: Message = [
    ...nodes.map((node) => [1, node] as const),
    [2, 'attention'],
    ...Object.entries(inputs).map(([name, type]) => [11, makeValue(name, type)] as const),
    ...Object.entries(outputs).map(([name, type]) => [12, makeValue(name, type)] as const),
  ];
  return encodeMessage([
    [1, IR_VERSION],
    [2, 'node-sdpa'],
    [7, graph],
    [8, makeOperatorSet('', opset)],
    [8, makeOperatorSet(MICROSOFT, 1)],
  ]);
}

function makeOperatorSet(domain: string, version: number): Message {
  return [
    [1, domain],
    [2, version],
  ];
}

function makeValue(name: string, [dtype, dims]: ValueType): Message {
  const shape: Message = dims.map((dim) => [1, [[typeof dim === 'string' ? 2 : 1, dim]]] as const);
  const tensorType: Message = [
    [1, ELEMENT_TYPES[dtype]],
    [2, shape],
  ];
  return [
    [1, name],
    [2, [[1, tensorType]]],
  ];
}
