import { checkDType, DTYPES, type DType, type TensorData } from './dtype.ts';
import { CapacityError, DTypeError, OptionError, ShapeError } from './errors.ts';
import { nearestName } from './nearest-name.ts';
import { createNormal } from './random.ts';
import { convert, decodeAll, decodeElement, encoderOf, gather } from './tensor-convert.ts';
import { layoutOfValue } from './tensor-from.ts';
import {
  allocate,
  checkExtent,
  contiguousStrides,
  countArrays,
  describeLayout,
  type Float16ArrayLike,
  formatList,
  formatShape,
  formatValue,
  isRowMajor,
  MAX_NESTED,
  sizeOfShape,
  TensorLayout,
  toIntegers,
} from './tensor-layout.ts';
import { formatTensor } from './tensor-print.ts';
import { permuted, reshaped, sliced, squeezed, transposed, unsqueezed } from './tensor-views.ts';

/** How `new Tensor` reads its data. */
export interface TensorOptions {
  /** Default: from the typed array. A Uint16Array needs it: 'float16' or 'bfloat16'. */
  dtype?: DType;
  /** In elements, one for each axis; 0 and negative ones are legal. Default: row-major. */
  strides?: readonly number[];
  /** Index of element [0, 0, …] in data. Default 0. */
  offset?: number;
}

/** Numbers (booleans for bool) nested as deep as the rank; for rank 0 the number itself. */
export type NestedArray = number | boolean | NestedArray[];

function checkOptions(where: string, options: unknown, names: readonly string[]): void {
  if (typeof options !== 'object' || options === null) {
    throw new OptionError(
      `${where}: options must be an object, e.g. { ${names[0]}: … }; got ${formatValue(options)}`,
    );
  }
  for (const name in options) {
    if (names.includes(name)) continue;
    const nearest = nearestName(name, names);
    const hint = nearest === undefined ? `; known are ${names.join(', ')}` : `; did you mean '${nearest}'?`;
    throw new OptionError(`${where}: unknown option ${formatValue(name)}${hint}`);
  }
}

/** The elements of x in row-major order, in another (or the same) dtype; always fresh. */
function copyOf(where: string, x: Tensor, dtype: DType): TensorData {
  const data = gather(where, x);
  return dtype === x.dtype ? data : convert(where, data, x.dtype, dtype);
}

/** A fresh zeroed layout of the shape. */
function freshLayout(where: string, given: unknown, dtype: unknown): TensorLayout {
  const shape = toIntegers(`${where}: shape`, given, 0);
  const size = sizeOfShape(`${where}: shape`, shape);
  const checked = checkDType(where, dtype ?? 'float32');
  const data = allocate(where, checked, size, shape);
  return new TensorLayout(data, shape, contiguousStrides(shape), 0, checked, size);
}

/**
 * A typed array with a shape. It owns nothing but a reference to `data` and is collected with it; views share
 * memory with their source.
 *
 * @example
 * const x = new Tensor(new Float32Array(6), [2, 3]);
 * x.transpose(0, 1).shape; // [3, 2]
 * x.transpose(0, 1).data === x.data; // true
 */
export class Tensor {
  /**
   * The storage: exactly `size` long for a fresh result, longer for a view. float16 and bfloat16 are bits in
   * a Uint16Array.
   */
  readonly data: TensorData;
  /** Length of each axis; frozen. */
  readonly shape: readonly number[];
  /** Distance in elements between neighbours on each axis; frozen. */
  readonly strides: readonly number[];
  /** Index in `data` of element [0, 0, …]. */
  readonly offset: number;
  readonly dtype: DType;
  /** Number of elements: the product of `shape`. */
  readonly size: number;
  /** What was checked: see {@link Tensor.isIntact}. */
  readonly #layout: TensorLayout;

  /**
   * Puts a shape on `data` without a copy.
   *
   * @param data Float32Array, Int8Array, Uint8Array, Int32Array, Uint16Array (with dtype) or Float16Array
   * @param shape axis lengths; a number stands for one axis
   * @throws ShapeError where shape or strides reach outside `data`, or where without strides and offset a part
   * of it would be left over; DTypeError for a dtype that `data` does not hold
   */
  constructor(
    data: TensorData | Float16ArrayLike,
    shape: readonly number[] | number,
    options?: TensorOptions | TensorLayout,
  ) {
    let layout: TensorLayout;
    if (options instanceof TensorLayout) {
      layout = options; // from inside: already checked
    } else {
      if (options !== undefined) checkOptions('Tensor', options, ['dtype', 'strides', 'offset']);
      const { dtype, strides, offset } = options ?? {};
      layout = describeLayout('Tensor', { data, shape, dtype, strides, offset });
    }
    this.data = layout.data;
    this.shape = layout.shape;
    this.strides = layout.strides;
    this.offset = layout.offset;
    this.dtype = layout.dtype;
    this.size = layout.size;
    this.#layout = layout;
  }

  /** Whether `value` says what was checked: no Proxy, not only of this prototype, no field overwritten. @internal */
  static isIntact(value: unknown): value is Tensor {
    if (typeof value !== 'object' || value === null || !(#layout in value)) return false;
    const { data, shape, strides, offset, dtype, size } = value.#layout;
    return (
      value.data === data &&
      value.shape === shape &&
      value.strides === strides &&
      value.offset === offset &&
      value.dtype === dtype &&
      value.size === size
    );
  }

  /** The tensor of a layout that has been checked. @internal */
  static ofLayout(layout: TensorLayout): Tensor {
    return new Tensor(layout.data, layout.shape, layout);
  }

  /**
   * A row-major tensor over `data`, which is exactly as long as `shape` says, without any check: for results
   * on the decode path. `shape` is frozen. @internal
   */
  static wrap(data: TensorData, shape: readonly number[], dtype: DType): Tensor {
    const layout = new TensorLayout(
      data,
      Object.freeze(shape),
      contiguousStrides(shape),
      0,
      dtype,
      data.length,
    );
    return new Tensor(data, shape, layout);
  }

  /**
   * All elements 0 (false).
   * @example Tensor.zeros([2, 3]).size; // 6
   */
  static zeros(shape: readonly number[] | number, options: { dtype?: DType } = {}): Tensor {
    checkOptions('Tensor.zeros', options, ['dtype']);
    return Tensor.ofLayout(freshLayout('Tensor.zeros', shape, options.dtype));
  }

  /**
   * Elements of no particular value, to be written; today they are 0, since JavaScript has no other memory.
   */
  static empty(shape: readonly number[] | number, options: { dtype?: DType } = {}): Tensor {
    checkOptions('Tensor.empty', options, ['dtype']);
    return Tensor.ofLayout(freshLayout('Tensor.empty', shape, options.dtype));
  }

  /**
   * All elements `value`, converted as {@link Tensor.to} does; of a boolean, bool where no dtype is given.
   * @example Tensor.full([2], 0.5, { dtype: 'bfloat16' }).toArray(); // [0.5, 0.5]
   */
  static full(
    shape: readonly number[] | number,
    value: number | boolean,
    options: { dtype?: DType } = {},
  ): Tensor {
    checkOptions('Tensor.full', options, ['dtype']);
    if (typeof value !== 'number' && typeof value !== 'boolean') {
      throw new OptionError(`Tensor.full: value must be a number or a boolean; got ${typeof value}`);
    }
    const natural = typeof value === 'boolean' ? 'bool' : 'float32';
    const layout = freshLayout('Tensor.full', shape, options.dtype ?? natural);
    layout.data.fill(encoderOf(layout.dtype)(Number(value)));
    return Tensor.ofLayout(layout);
  }

  /**
   * 0, 1, 2, … laid out in `shape`; a plain number n gives the n numbers 0 to n - 1.
   * @example Tensor.arange([2, 3]).toArray(); // [[0, 1, 2], [3, 4, 5]]
   */
  static arange(shape: readonly number[] | number, options: { dtype?: DType } = {}): Tensor {
    checkOptions('Tensor.arange', options, ['dtype']);
    const layout = freshLayout('Tensor.arange', shape, options.dtype);
    const encode = encoderOf(layout.dtype);
    for (let i = 0; i < layout.size; i++) layout.data[i] = encode(i);
    return Tensor.ofLayout(layout);
  }

  /**
   * Standard normal numbers of a float dtype. The same `seed` (a safe integer) gives the same numbers;
   * without one they differ from call to call.
   * @example Tensor.randn([2], { seed: 1 }).at(0) === Tensor.randn([2], { seed: 1 }).at(0); // true
   */
  static randn(shape: readonly number[] | number, options: { dtype?: DType; seed?: number } = {}): Tensor {
    checkOptions('Tensor.randn', options, ['dtype', 'seed']);
    const next = createNormal('Tensor.randn', options.seed);
    const layout = freshLayout('Tensor.randn', shape, options.dtype);
    if (!DTYPES[layout.dtype].isFloat) {
      throw new DTypeError(`Tensor.randn: dtype must be float32, float16 or bfloat16; got ${layout.dtype}`);
    }
    const encode = encoderOf(layout.dtype);
    for (let i = 0; i < layout.size; i++) layout.data[i] = encode(next());
    return Tensor.ofLayout(layout);
  }

  /**
   * A tensor of nested arrays of numbers (float32) or booleans (bool), of a typed array (rank 1), or of a
   * tensor of another library, strided or not. float64 becomes float32 and wider integers int32, the nearest
   * value each; `dtype` asks for another. Memory is shared where nothing is converted: `.clone()` gives a
   * copy.
   *
   * @throws ShapeError for ragged nesting; DTypeError for elements that are no numbers
   * @example const mask = Tensor.from([[true, false], [true, true]]); // [2, 2]
   */
  static from(value: unknown, options: { dtype?: DType } = {}): Tensor {
    checkOptions('Tensor.from', options, ['dtype']);
    const dtype = options.dtype === undefined ? undefined : checkDType('Tensor.from', options.dtype);
    return Tensor.ofLayout(layoutOfValue('Tensor.from', value, dtype));
  }

  /** Number of axes. */
  get rank(): number {
    return this.shape.length;
  }

  /** Bytes of `size` elements, whatever else `data` holds. */
  get byteLength(): number {
    return this.size * DTYPES[this.dtype].bytes;
  }

  /**
   * Whether the elements stand in row-major order, one after another, from `offset`. Axes of length 1 do not
   * count.
   */
  get isContiguous(): boolean {
    return isRowMajor(this.shape, this.strides);
  }

  /**
   * One element as a number (0 or 1 for bool), by one index for each axis; negative ones count from the end.
   * @example Tensor.arange([2, 3]).at(1, -1); // 5
   */
  at(...index: number[]): number {
    const { shape, strides } = this;
    if (index.length !== shape.length) {
      throw new ShapeError(
        `at: got ${index.length} indices ${formatList(index)} for shape ${formatShape(shape)}`,
      );
    }
    let position = this.offset;
    for (let axis = 0; axis < index.length; axis++) {
      const given = Number.isInteger(index[axis]) ? index[axis] : Number.NaN;
      const i = given < 0 ? given + shape[axis] : given;
      if (!(i >= 0 && i < shape[axis])) {
        throw new ShapeError(
          `at: index ${formatValue(index[axis])} is not on axis ${axis} of length ${shape[axis]}; ` +
            `shape ${formatShape(shape)}`,
        );
      }
      position += i * strides[axis];
    }
    checkExtent('at: shape', this);
    return decodeElement(this.dtype, this.data[position]);
  }

  /**
   * The elements nested as deep as the rank: numbers, and booleans for bool. For rank 0 the element itself.
   * @example Tensor.arange([2, 2]).toArray(); // [[0, 1], [2, 3]]
   */
  toArray(): NestedArray {
    if (countArrays(this.shape) + this.size > MAX_NESTED) {
      throw new CapacityError(
        `toArray: shape ${formatShape(this.shape)} is too large for nested arrays, which end a process that runs out of ` +
          'memory; use toFloat32Array(), or slices',
      );
    }
    const values = decodeAll('toArray', gather('toArray', this), this.dtype);
    const isBool = this.dtype === 'bool';
    let next = 0;
    const nest = (axis: number): NestedArray => {
      if (axis < this.shape.length) return Array.from({ length: this.shape[axis] }, () => nest(axis + 1));
      const value = values[next++];
      return isBool ? value !== 0 : value;
    };
    return nest(0);
  }

  /** A fresh Float32Array of all elements in row-major order. */
  toFloat32Array(): Float32Array {
    return copyOf('toFloat32Array', this, 'float32') as Float32Array;
  }

  /**
   * The same elements, in row-major order, under another shape; one length may be -1. A list, or the numbers
   * one by one.
   *
   * @throws ShapeError where only a copy could have that shape: call {@link Tensor.contiguous} first
   * @example Tensor.arange([2, 3]).reshape(3, -1).shape; // [3, 2]
   */
  reshape(...shape: readonly [readonly number[]] | readonly number[]): Tensor {
    return Tensor.ofLayout(reshaped(this, Array.isArray(shape[0]) ? shape[0] : shape));
  }

  /**
   * Axes `a` and `b` exchanged; negative ones count from the end.
   * @example const q = projected.transpose(1, 2); // [1, 8, 32, 64]
   */
  transpose(a: number, b: number): Tensor {
    return Tensor.ofLayout(transposed(this, a, b));
  }

  /**
   * Axes in another order: axis i of the result is axis `axes[i]` of this. A list, or the numbers one by one.
   * @example Tensor.zeros([2, 3, 4]).permute(2, 0, 1).shape; // [4, 2, 3]
   */
  permute(...axes: readonly [readonly number[]] | readonly number[]): Tensor {
    return Tensor.ofLayout(permuted(this, Array.isArray(axes[0]) ? axes[0] : axes));
  }

  /**
   * Elements `start` to `end` (exclusive, default the length) of one axis, as Array.slice counts: negative
   * from the end.
   * @example Tensor.arange([2, 3]).slice(1, -2).toArray(); // [[1, 2], [4, 5]]
   */
  slice(axis: number, start: number, end?: number): Tensor {
    return Tensor.ofLayout(sliced(this, axis, start, end));
  }

  /** A new axis of length 1 before `axis`; -1 puts it last. */
  unsqueeze(axis: number): Tensor {
    return Tensor.ofLayout(unsqueezed(this, axis));
  }

  /** Without `axis`, which must have length 1; without every axis of length 1 when none is named. */
  squeeze(axis?: number): Tensor {
    return Tensor.ofLayout(squeezed(this, axis));
  }

  /**
   * A row-major tensor whose `data` is exactly `size` long: this one where it is that already, a view where
   * only `data` is longer, else a copy.
   * @example projected.transpose(1, 2).contiguous().isContiguous; // true
   */
  contiguous(): Tensor {
    const { data, shape, offset, dtype, size } = this;
    checkExtent('contiguous: shape', this);
    if (!this.isContiguous) return Tensor.wrap(gather('contiguous', this), shape, dtype);
    return data.length === size ? this : Tensor.wrap(data.subarray(offset, offset + size), shape, dtype);
  }

  /**
   * A copy of another (or the same) dtype, row-major. To floats: rounds to nearest, ties to even. To
   * integers: truncates toward zero, saturates at the ends of the range, NaN gives 0. To bool: all but 0 is
   * true.
   * @example Tensor.from([1 / 3]).to('bfloat16').at(0); // 0.333984375
   */
  to(dtype: DType): Tensor {
    checkDType('to', dtype);
    return Tensor.wrap(copyOf('to', this, dtype), this.shape, dtype);
  }

  /** A row-major copy. */
  clone(): Tensor {
    return Tensor.wrap(gather('clone', this), this.shape, this.dtype);
  }

  /** The same text as `util.inspect` shows: NumPy's `repr`, long axes elided. */
  toString(): string {
    return formatTensor(this);
  }

  [Symbol.for('nodejs.util.inspect.custom')](): string {
    return formatTensor(this);
  }
}

/** Whether the elements of the last axis stand one after another, as every kernel needs them. */
export function lastAxisContiguous(t: Tensor): boolean {
  const last = t.shape.length - 1;
  return t.size === 0 || last < 0 || t.shape[last] <= 1 || t.strides[last] === 1;
}
