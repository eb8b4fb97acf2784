// An ONNX model in memory: nodes, inputs and outputs, no weights. The numbers are those of the fields in onnx.proto
// (https://github.com/onnx/onnx/blob/main/onnx/onnx.proto).
import { encodeMessage, Float } from './protobuf.mjs';

/** Of the file format; newer readers take it. */
const IR_VERSION = 10;
const ELEMENT_TYPES = { float32: 1, int32: 6, int64: 7, float16: 10 };
const ATTRIBUTE_TYPES = { float: 1, integer: 2, integers: 7 };

/** The domain of ONNX Runtime's own operators. */
export const MICROSOFT = 'com.microsoft';

/**
 * One operator of a graph.
 *
 * @param inputs, outputs names; '' leaves an optional one out
 * @param attributes by name: an integer, a list of integers, or a Float
 */
export function makeNode(operator, inputs, outputs, attributes = {}, domain = '') {
  return [
    ...inputs.map((name) => [1, name]),
    ...outputs.map((name) => [2, name]),
    [4, operator],
    ...Object.entries(attributes).map(([name, value]) => [5, makeAttribute(name, value)]),
    [7, domain],
  ];
}

function makeAttribute(name, value) {
  const fields = [[1, name]];
  if (value instanceof Float) fields.push([2, value], [20, ATTRIBUTE_TYPES.float]);
  else if (Array.isArray(value)) fields.push(...value.map((x) => [8, x]), [20, ATTRIBUTE_TYPES.integers]);
  else fields.push([3, value], [20, ATTRIBUTE_TYPES.integer]);
  return fields;
}

/**
 * The bytes of a model.
 *
 * @param opset version of the standard operators
 * @param inputs, outputs [dtype, dims] by name; a dim that is a string is free
 */
export function encodeModel({ opset, nodes, inputs, outputs }) {
  const graph = [
    ...nodes.map((node) => [1, node]),
    [2, 'attention'],
    ...Object.entries(inputs).map(([name, type]) => [11, makeValue(name, type)]),
    ...Object.entries(outputs).map(([name, type]) => [12, makeValue(name, type)]),
  ];
  return encodeMessage([
    [1, IR_VERSION],
    [2, 'node-sdpa'],
    [7, graph],
    [8, makeOperatorSet('', opset)],
    [8, makeOperatorSet(MICROSOFT, 1)],
  ]);
}

function makeOperatorSet(domain, version) {
  return [
    [1, domain],
    [2, version],
  ];
}

function makeValue(name, [dtype, dims]) {
  const shape = dims.map((dim) => [1, [[typeof dim === 'string' ? 2 : 1, dim]]]);
  const tensorType = [
    [1, ELEMENT_TYPES[dtype]],
    [2, shape],
  ];
  return [
    [1, name],
    [2, [[1, tensorType]]],
  ];
}
