import {
  bytesPerElement,
  checkDType,
  DTYPES,
  type DType,
  type TensorData,
  typedArrayBufferOf,
  typedArrayLengthOf,
  typedArrayName,
  typedArrayOffsetOf,
} from './dtype.ts';
import { CapacityError, DTypeError, OptionError, ShapeError } from './errors.ts';

/** A native Float16Array, where the runtime has it (Node 24). */
export interface Float16ArrayLike extends ArrayBufferView {
  readonly [Symbol.toStringTag]: 'Float16Array';
  readonly length: number;
}

/** NumPy's limit, which keeps a lying `length` of a foreign shape from costing time. */
export const maxRank = 64;

/** Arrays and elements of a nesting at most: 2 GiB of them, which the heap of a 64-bit process holds. */
export const MAX_NESTED = 2 ** 27;

/** How many arrays a nesting of that shape has. */
export function countArrays(shape: readonly number[]): number {
  let count = 0;
  let rows = 1;
  for (const length of shape) {
    count += rows;
    rows *= length;
  }
  return count;
}

/** What a Tensor is made of, already checked: the constructor takes it without looking again. */
export class TensorLayout {
  readonly data: TensorData;
  /** Frozen, like `strides`. */
  readonly shape: readonly number[];
  readonly strides: readonly number[];
  readonly offset: number;
  readonly dtype: DType;
  readonly size: number;

  constructor(
    data: TensorData,
    shape: readonly number[],
    strides: readonly number[],
    offset: number,
    dtype: DType,
    size: number,
  ) {
    this.data = data;
    this.shape = shape;
    this.strides = strides;
    this.offset = offset;
    this.dtype = dtype;
    this.size = size;
  }
}

/** `[1, 8, 128]`, as every message shows a shape. */
export function formatShape(shape: readonly number[]): string {
  return `[${shape.join(', ')}]`;
}

/** The most entries of a list that a message shows. */
const SHOWN_ENTRIES = 8;

/** Short words for any value, for a message; it runs no code of the value. */
export function formatValue(value: unknown): string {
  if (typeof value === 'string') return `'${value.slice(0, 40)}'`;
  if (typeof value === 'bigint') return formatBigInt(value);
  if (typeof value === 'function') return 'a function';
  if (typeof value === 'symbol') return String(value).slice(0, 40);
  if (typeof value !== 'object' || value === null) return String(value);
  return typedArrayName(value) ?? (Array.isArray(value) ? 'an array' : 'an object');
}

/** The digits of a large one cost time that grows with their square. */
const formatBigInt = (value: bigint): string =>
  BigInt.asIntN(64, value) === value ? `${value}n` : 'a large bigint';

/** `[1, 'a', an object, …]`: the first entries of a list from outside, for a message; it runs no code of them. */
export function formatList(list: ArrayLike<unknown>): string {
  const shown = Array.from({ length: Math.min(list.length, SHOWN_ENTRIES) }, (_, n) => formatValue(list[n]));
  return `[${shown.join(', ')}${list.length > SHOWN_ENTRIES ? ', …' : ''}]`;
}

/**
 * A copy of a list from outside, an array or a typed array, by its length and its indices alone: methods of the caller's
 * may have been replaced, and a hole is undefined. Null for what is no such list, or has more than `most` entries or an
 * impossible length.
 */
export function copyList(value: unknown, most: number): unknown[] | null {
  const isTypedArray = typedArrayName(value) !== undefined;
  if (!isTypedArray && !Array.isArray(value)) return null;
  const list = value as ArrayLike<unknown>;
  const length: unknown = isTypedArray ? typedArrayLengthOf(value as ArrayBufferView) : list.length;
  if (!Number.isSafeInteger(length) || (length as number) < 0 || !((length as number) <= most)) return null;
  const copy: unknown[] = [];
  for (let n = 0; n < (length as number); n++) copy.push(list[n]);
  return copy;
}

/**
 * A fresh, frozen copy of a list of safe integers; each element is read once. A plain number stands for a
 * list of one. `minimum` bounds the elements: 0 for a shape, -Infinity for strides.
 */
export function toIntegers(where: string, value: unknown, minimum: number): readonly number[] {
  if (typeof value !== 'number' && !Array.isArray(value) && typedArrayName(value) === undefined) {
    throw new ShapeError(`${where} must be a list of integers, e.g. [2, 3]; got ${formatValue(value)}`);
  }
  const list = typeof value === 'number' ? [value] : (value as ArrayLike<unknown>);
  const rank: unknown = list.length;
  if (typeof rank !== 'number' || !(rank <= maxRank))
    throw new ShapeError(`${where} may have at most ${maxRank} entries; got ${formatValue(rank)}`);
  const integers: number[] = [];
  for (let axis = 0; axis < rank; axis++) {
    const entry = list[axis];
    if (!Number.isSafeInteger(entry) || (entry as number) < minimum) {
      const wanted = minimum === 0 ? 'non-negative integers' : 'integers';
      throw new ShapeError(`${where} must hold ${wanted}; entry ${axis} is ${formatValue(entry)}`);
    }
    integers.push((entry as number) + 0); // -0 becomes 0
  }
  return Object.freeze(integers);
}

/**
 * The number of elements of `shape`. Lengths whose product is beyond 2^53 - 1 are a ShapeError, zero axes or
 * not.
 */
export function sizeOfShape(where: string, shape: readonly number[]): number {
  let size = 1;
  let isEmpty = false;
  for (const length of shape) {
    if (length === 0) isEmpty = true;
    else size *= length;
    if (size > Number.MAX_SAFE_INTEGER) {
      throw new ShapeError(`${where} ${formatShape(shape)} has more than 2^53 - 1 elements`);
    }
  }
  return isEmpty ? 0 : size;
}

/** Strides of `shape` in row-major order, in elements; frozen. */
export function contiguousStrides(shape: readonly number[]): readonly number[] {
  const strides = new Array<number>(shape.length);
  let stride = 1;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    strides[axis] = stride;
    stride *= shape[axis] || 1;
  }
  return Object.freeze(strides);
}

/**
 * Whether elements in row-major order stand one after another. Axes of length 1 do not count; size 0 always
 * does.
 */
export function isRowMajor(shape: readonly number[], strides: readonly number[]): boolean {
  let expected = 1;
  let matches = true;
  for (let axis = shape.length - 1; axis >= 0; axis--) {
    if (shape[axis] === 0) return true;
    if (shape[axis] === 1) continue;
    if (strides[axis] !== expected) matches = false;
    expected *= shape[axis];
  }
  return matches;
}

/** First and last reachable element index of a layout of at least one element. */
export function elementRange(
  shape: readonly number[],
  strides: readonly number[],
  offset: number,
): { first: number; last: number } {
  let first = offset;
  let last = offset;
  for (let axis = 0; axis < shape.length; axis++) {
    const reach = strides[axis] * (shape[axis] - 1);
    if (reach < 0) first += reach;
    else last += reach;
  }
  return { first, last };
}

/**
 * A ShapeError unless every reachable element is inside `data`; names a detached or shrunken buffer as such.
 */
export function checkExtent(where: string, layout: Omit<TensorLayout, 'dtype'>): void {
  const { data, shape, strides, offset, size } = layout;
  if (size === 0) return;
  const { first, last } = elementRange(shape, strides, offset);
  const length = typedArrayLengthOf(data);
  if (first >= 0 && last < length) return;
  if (length === 0) {
    throw new ShapeError(
      `${where} ${formatShape(shape)} needs ${size} elements, but data is empty: its buffer is detached ` +
        '(transferred to a worker?) or was never filled; pass a copy of it',
    );
  }
  if (isRowMajor(shape, strides)) {
    const from = offset > 0 ? ` from offset ${offset}` : '';
    throw new ShapeError(
      `${where} ${formatShape(shape)} needs ${size} elements${from}, but data holds ${length}; ` +
        'make the shape fit the data',
    );
  }
  throw new ShapeError(
    `${where} ${formatShape(shape)} with strides ${formatShape(strides)} and offset ${offset} reaches ` +
      `elements ${first} to ${last}, but data holds ${length}; strides count elements, not bytes`,
  );
}

/** The dtypes that can be stored in each typed array; the first is the default, but for Uint16Array. */
const dtypesOfArray: Readonly<Record<string, readonly DType[]>> = {
  Float32Array: ['float32'],
  Uint16Array: ['float16', 'bfloat16'],
  Float16Array: ['float16'],
  Int8Array: ['int8'],
  Uint8Array: ['uint8', 'bool'],
  Int32Array: ['int32'],
};

/** A view of the bits; empty where the buffer is detached, which the extent check then reports. */
function bitsOfFloat16Array(data: TensorData): Uint16Array {
  const length = typedArrayLengthOf(data);
  return length === 0
    ? new Uint16Array(0)
    : new Uint16Array(typedArrayBufferOf(data), typedArrayOffsetOf(data), length);
}

/** What of a typed array a property of its own may hide, and the library reads. */
const HIDEABLE = ['length', 'buffer', 'byteOffset', 'byteLength', 'constructor'] as const;

/**
 * `data` itself where it is a plain typed array; a plain view of the same memory where it is of a subclass (a Buffer), of
 * another realm, or has properties that hide its own: their methods need not do what those of a typed array do.
 */
function plainView(data: TensorData): TensorData {
  const { arrayType } = DTYPES[dtypesOfArray[typedArrayName(data)!][0]];
  const isPlain = Object.getPrototypeOf(data) === arrayType.prototype;
  if (isPlain && !HIDEABLE.some((name) => Object.hasOwn(data, name))) return data;
  const length = typedArrayLengthOf(data);
  const View = arrayType as unknown as new (
    buffer?: ArrayBufferLike,
    offset?: number,
    length?: number,
  ) => TensorData;
  return length === 0 ? new View() : new View(typedArrayBufferOf(data), typedArrayOffsetOf(data), length);
}

/**
 * The storage and dtype of a typed array. A Float16Array is seen as a Uint16Array over the same memory;
 * nothing is copied. A DTypeError, beginning with `where`, names the remedy for what cannot be stored.
 */
function resolveStorage(
  where: string,
  data: unknown,
  dtype: DType | undefined,
): { data: TensorData; dtype: DType } {
  const arrayName = typedArrayName(data);
  if (arrayName === undefined) {
    throw new DTypeError(
      `${where} must be a typed array; got ${formatValue(data)}; for plain or nested arrays use Tensor.from`,
    );
  }
  const possible = Object.hasOwn(dtypesOfArray, arrayName) ? dtypesOfArray[arrayName] : [];
  if (possible.length === 0) {
    const target = arrayName === 'Float64Array' ? 'float32' : 'float32 or int32';
    throw new DTypeError(
      `${where} is a ${arrayName}, which no dtype is stored in; convert it to ${target} first, e.g. with ` +
        `Tensor.from(values, { dtype: '${target.slice(0, 7)}' })`,
    );
  }
  if (dtype === undefined && arrayName === 'Uint16Array') {
    throw new DTypeError(
      `${where} is a Uint16Array: say which it holds, dtype 'float16' or dtype 'bfloat16'`,
    );
  }
  if (dtype !== undefined && !possible.includes(dtype)) {
    throw new DTypeError(
      `${where} is a ${arrayName}, but dtype '${dtype}' is stored in ${DTYPES[dtype].arrayName}; ` +
        `use .to('${dtype}') to convert values`,
    );
  }
  const view = data as TensorData;
  const storage = arrayName === 'Float16Array' ? bitsOfFloat16Array(view) : plainView(view);
  return { data: storage, dtype: dtype ?? possible[0] };
}

/**
 * Checks everything that a caller may say of a tensor's memory. `where` begins every message. With strides or an offset
 * it may be longer than the shape needs, as that of a view.
 */
export function describeLayout(
  where: string,
  given: { data: unknown; shape: unknown; dtype?: unknown; strides?: unknown; offset?: unknown },
): TensorLayout {
  const named = given.dtype === undefined ? undefined : checkDType(where, given.dtype);
  const { data, dtype } = resolveStorage(`${where}: data`, given.data, named);
  const shape = toIntegers(`${where}: shape`, given.shape, 0);
  const size = sizeOfShape(`${where}: shape`, shape);
  const strides =
    given.strides === undefined
      ? contiguousStrides(shape)
      : toIntegers(`${where}: strides`, given.strides, -Infinity);
  if (strides.length !== shape.length) {
    throw new ShapeError(
      `${where}: strides ${formatShape(strides)} must have one entry for each axis of ` +
        `shape ${formatShape(shape)}`,
    );
  }
  const offset = given.offset ?? 0;
  if (!Number.isSafeInteger(offset) || (offset as number) < 0) {
    throw new OptionError(`${where}: offset must be a non-negative integer; got ${formatValue(offset)}`);
  }
  const layout = new TensorLayout(data, shape, strides, offset as number, dtype, size);
  checkExtent(`${where}: shape`, layout);
  const length = typedArrayLengthOf(data);
  if (length > size && given.strides === undefined && given.offset === undefined) {
    throw new ShapeError(
      `${where}: shape ${formatShape(shape)} needs ${size} elements, but data holds ${length}; make the shape fit the ` +
        `data, or pass data.subarray(0, ${size})`,
    );
  }
  return layout;
}

/** Zeroed storage for `size` elements, of the shape if one is given; a CapacityError where the memory cannot be had. */
export function allocate(
  where: string,
  dtype: DType,
  size: number,
  shape: readonly number[] = [size],
): TensorData {
  try {
    return new DTYPES[dtype].arrayType(size);
  } catch (cause) {
    const bytes = size * bytesPerElement(dtype);
    throw new CapacityError(`${where}: cannot allocate ${bytes} bytes for [${shape.join(', ')}] ${dtype}`, {
      cause,
    });
  }
}
