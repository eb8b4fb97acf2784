import { DTYPES, type DType, isDType, type TensorData, typedArrayName } from './dtype.ts';
import { CapacityError, DTypeError, ShapeError } from './errors.ts';
import { convert, encoderOf, gather } from './tensor-convert.ts';
import {
  allocate,
  contiguousStrides,
  describeLayout,
  formatShape,
  formatValue,
  MAX_NESTED,
  maxRank,
  sizeOfShape,
  TensorLayout,
} from './tensor-layout.ts';

/** What was read of a foreign tensor: each property once, since a getter may lie, throw, or be slow. */
export interface TensorFields {
  readonly data: unknown;
  readonly shape: unknown;
  readonly dtype: unknown;
  readonly strides: unknown;
  readonly offset: unknown;
}

/**
 * The fields of anything of the form `{data, dims | shape, type | dtype, strides?}`, or null for what has no
 * such form. `offset` is read beside strides, which have no meaning without it.
 */
export function readTensorFields(value: unknown): TensorFields | null {
  if (typeof value !== 'object' || value === null || Array.isArray(value) || ArrayBuffer.isView(value))
    return null;
  const foreign = value as Record<string, unknown>;
  const data = foreign.data;
  if (data === undefined) return null;
  const shape = foreign.dims ?? foreign.shape;
  if (shape === undefined) return null;
  const dtype = foreign.type ?? foreign.dtype;
  const strides = foreign.strides;
  const offset = strides === undefined ? undefined : foreign.offset;
  return { data, shape, dtype, strides, offset };
}

/** The dtypes of other libraries that Tensor.from converts, with the dtype that they become. */
const wideDTypes: Readonly<Record<string, DType>> = {
  float64: 'float32',
  int64: 'int32',
  uint64: 'int32',
  uint32: 'int32',
  int16: 'int32',
  uint16: 'int32',
};

/** Typed arrays that no dtype is stored in, with the dtype that Tensor.from converts them to. */
const wideArrays: Readonly<Record<string, DType>> = {
  Float64Array: 'float32',
  BigInt64Array: 'int32',
  BigUint64Array: 'int32',
  Uint32Array: 'int32',
  Int16Array: 'int32',
  Uint8ClampedArray: 'uint8',
};

const lookup = (table: Readonly<Record<string, DType>>, name: unknown): DType | undefined =>
  typeof name === 'string' && Object.hasOwn(table, name) ? table[name] : undefined;

/**
 * The checked layout of a foreign tensor, over the memory that it names.
 * @param wanted the dtype that the message proposes in place of wide integers, int32 by default
 */
export function layoutOfFields(where: string, fields: TensorFields, wanted?: DType): TensorLayout {
  if (isDType(fields.dtype)) return describeLayout(where, fields);
  const narrower = lookup(wideDTypes, fields.dtype);
  if (narrower !== undefined) {
    const target = narrower === 'int32' ? (wanted ?? narrower) : narrower;
    throw new DTypeError(
      `${where} is ${fields.dtype}, which no kernel reads; convert it to ${target}: ` +
        `Tensor.from(value, { dtype: '${target}' })`,
    );
  }
  if (fields.dtype === undefined) {
    throw new DTypeError(`${where} has data and a shape, but neither type nor dtype; say what data holds`);
  }
  throw new DTypeError(
    `${where} has the unknown dtype ${formatValue(fields.dtype)}; ` +
      `use one of ${Object.keys(DTYPES).join(', ')}`,
  );
}

/** Numbers of any typed array in one that a dtype is stored in. Values beyond an integer's range saturate. */
function narrow(where: string, data: ArrayLike<number | bigint>, dtype: DType): TensorData {
  const encode = encoderOf(dtype);
  const result = allocate(where, dtype, data.length);
  for (let i = 0; i < data.length; i++) result[i] = encode(Number(data[i]));
  return result;
}

/**
 * The layout with its elements converted, over fresh memory; the layout itself when there is nothing to
 * convert.
 */
function toDType(where: string, layout: TensorLayout, dtype: DType | undefined): TensorLayout {
  if (dtype === undefined || dtype === layout.dtype) return layout;
  const data = convert(where, gather(where, layout), layout.dtype, dtype);
  return new TensorLayout(data, layout.shape, contiguousStrides(layout.shape), 0, dtype, layout.size);
}

function layoutOfTypedArray(where: string, data: unknown, dtype: DType | undefined): TensorLayout {
  const array = data as ArrayLike<number>;
  const shape = [array.length];
  const name = typedArrayName(data);
  const wide = lookup(wideArrays, name);
  if (wide !== undefined) {
    const target = dtype ?? wide;
    return describeLayout(where, { data: narrow(where, array, target), shape, dtype: target });
  }
  // The elements of a Uint16Array are bits, whose dtype only the caller knows.
  const stored = name === 'Uint16Array' ? dtype : undefined;
  return toDType(where, describeLayout(where, { data, shape, dtype: stored }), dtype);
}

/**
 * The layout behind `Tensor.from`: of a tensor-like or typed array over the same memory where nothing has to
 * be converted, else over fresh memory; of numbers, booleans, bigints and rectangular nestings of them always
 * fresh.
 */
export function layoutOfValue(where: string, value: unknown, dtype: DType | undefined): TensorLayout {
  const fields = readTensorFields(value);
  if (fields !== null) {
    const wide = lookup(wideDTypes, fields.dtype) ?? lookup(wideArrays, typedArrayName(fields.data));
    if (wide === undefined || typedArrayName(fields.data) === undefined) {
      return toDType(where, layoutOfFields(`${where}: value`, fields), dtype);
    }
    const target = dtype ?? wide;
    const data = narrow(where, fields.data as ArrayLike<number | bigint>, target);
    return describeLayout(where, { ...fields, data, dtype: target });
  }
  if (typedArrayName(value) !== undefined) return layoutOfTypedArray(where, value, dtype);
  return layoutOfNested(where, value, dtype);
}

const isRow = (value: unknown): value is ArrayLike<unknown> =>
  Array.isArray(value) || typedArrayName(value) !== undefined;

/** The shape of a nesting by its first elements, outermost axis first; frozen. */
function shapeOfNested(where: string, value: unknown): readonly number[] {
  const shape: number[] = [];
  for (let row = value; isRow(row); row = row[0]) {
    const length: unknown = row.length; // of a Proxy it may be anything
    if (!Number.isSafeInteger(length) || (length as number) < 0)
      throw new ShapeError(`${where}: an array has the length ${formatValue(length)}`);
    shape.push(length as number);
    if (shape.length > maxRank)
      throw new ShapeError(`${where}: arrays are nested deeper than ${maxRank} levels`);
    if (length === 0) break;
  }
  return Object.freeze(shape);
}

function layoutOfNested(where: string, value: unknown, dtype: DType | undefined): TensorLayout {
  const shape = shapeOfNested(where, value);
  const size = sizeOfShape(`${where}: shape`, shape);
  if (size > MAX_NESTED) {
    throw new CapacityError(
      `${where}: shape ${formatShape(shape)} is too large for nested arrays; use typed arrays`,
    );
  }
  const values: number[] = [];
  let isBool = size > 0;
  const index: number[] = [];
  const raggedError = (found: string): ShapeError =>
    new ShapeError(
      `${where}: nested arrays must be rectangular; element ${formatShape(index)} ${found}, but by ` +
        `the first elements the shape is ${formatShape(shape)}`,
    );
  const visit = (entry: unknown): void => {
    const axis = index.length;
    if (axis < shape.length) {
      if (!isRow(entry)) throw raggedError(`is ${formatValue(entry)}`);
      if (entry.length !== shape[axis]) throw raggedError(`has length ${formatValue(entry.length)}`);
      for (let i = 0; i < shape[axis]; i++) {
        index.push(i);
        visit(entry[i]);
        index.pop();
      }
      return;
    }
    if (isRow(entry)) throw raggedError('is an array');
    if (typeof entry !== 'boolean') isBool = false;
    if (typeof entry !== 'number' && typeof entry !== 'boolean' && typeof entry !== 'bigint') {
      throw new DTypeError(
        `${where}: element ${formatShape(index)} must be a number or a boolean; got ${formatValue(entry)}`,
      );
    }
    values.push(Number(entry));
  };
  visit(value);
  const target = dtype ?? (isBool ? 'bool' : 'float32');
  return new TensorLayout(narrow(where, values, target), shape, contiguousStrides(shape), 0, target, size);
}
