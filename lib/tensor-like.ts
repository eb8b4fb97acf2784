import type { DType } from './dtype.ts';
import { DTypeError } from './errors.ts';
import { Tensor } from './tensor.ts';
import { layoutOfFields, readTensorFields } from './tensor-from.ts';
import { checkExtent, formatValue } from './tensor-layout.ts';

/**
 * What is accepted wherever a Tensor is: a Tensor, or a tensor of another library such as onnxruntime-node or
 * `@huggingface/transformers`, which goes in unchanged and without a copy.
 */
export type TensorLike = Tensor | ForeignTensor;

/**
 * A tensor of another library. `strides` count elements; without them the data is row-major. What `data` and
 * `type` are is looked at when it is used: the types of other libraries speak of all dtypes that they have.
 */
export type ForeignTensor = {
  readonly data: unknown;
  readonly strides?: readonly number[];
} & ({ readonly dims: readonly number[] } | { readonly shape: readonly number[] }) &
  ({ readonly type: string } | { readonly dtype: string });

/**
 * `value` as a Tensor over the same memory: a Tensor is returned as it is (one that was tampered with is read anew, as if of
 * another library), anything of the form
 * `{data, dims | shape, type | dtype, strides?}` is wrapped, and all else is refused.
 *
 * @param caller the function that was called; with `argument` it begins each message, e.g. `attention: q`
 * @param argument the name of the argument
 * @param wanted what messages name as the dtype to convert wide integers to; int32 by default
 * @throws DTypeError for what is no tensor, or of a dtype that is not supported; ShapeError where the shape
 *   does not fit the data, or its buffer was detached. What a getter of `value` throws is passed on.
 */
export function asTensor(caller: string, argument: string, value: unknown, wanted?: DType): Tensor {
  const where = `${caller}: ${argument}`;
  if (Tensor.isIntact(value)) {
    checkExtent(where, value); // the buffer may have been transferred or shrunk since
    return value;
  }
  const fields = readTensorFields(value);
  if (fields === null) {
    throw new DTypeError(
      `${where} must be a Tensor or of the form { data, dims, type }; got ${formatValue(value)}; make one ` +
        'with new Tensor(data, shape), or with Tensor.from(values), which converts to float32',
    );
  }
  return Tensor.ofLayout(layoutOfFields(where, fields, wanted));
}
