import {
  checkFile,
  plainBytes,
  type ReadableFile,
  readUpTo,
  type WritableFile,
  writeAll,
} from '../byte-file.ts';
import type { DType, TensorData } from '../dtype.ts';
import { DTypeError } from '../errors.ts';
import { checkOptions } from '../options.ts';
import { Tensor } from '../tensor.ts';
import { asTensor, type TensorLike } from '../tensor-like.ts';
import { readElements } from './elements-in.ts';
import { piecesOf } from './elements-out.ts';
import {
  checkComplete,
  encodeNpyHeader,
  headerTextOf,
  malformed,
  NPY_PREFIX_BYTES,
  type NpyHeader,
  parseNpyHeader,
} from './npy-header.ts';
import { allocateFile, checkSize, type ReadOptions, readAsked } from './reading.ts';
import { decodeElements, resultDType, storedBytes } from './stored-elements.ts';

/**
 * The array of a .npy file, as NumPy's `save` writes them: versions 1.0, 2.0 and 3.0, either byte order. It is a view of `bytes`
 * where they are aligned and nothing has to be converted; Fortran order gives a strided view.
 *
 * @param bytes the whole file
 * @param options `dtype`: {@link ReadOptions}
 * @returns a Tensor of the file's shape
 * @throws OptionError where bytes are missing, too many or malformed; ShapeError; DTypeError for types that no Tensor holds
 * @example
 * const q = readNpy(await readFile('q.npy'));
 * const k = readNpy(await readFile('k.npy'), { dtype: 'bfloat16' }); // of ml_dtypes
 */
export function readNpy(bytes: Uint8Array, options?: ReadOptions | null): Tensor {
  const caller = 'readNpy';
  const asked = readAsked(caller, checkOptions(caller, 'options', options, ['dtype']));
  const file = plainBytes(caller, bytes, 'the content of a .npy file');
  const { begin, end } = headerTextOf(caller, file);
  checkComplete(caller, file.length, end);
  const header = parseNpyHeader(caller, file.subarray(begin, end));
  const dtype = dtypeOf(caller, header, asked);
  const fileBytes = end + header.size * storedBytes(header.stored.type);
  checkComplete(caller, file.length, fileBytes);
  if (file.length > fileBytes)
    throw malformed(caller, `${file.length} bytes where its header tells of ${fileBytes}`);
  return tensorOf(decodeElements(caller, file.subarray(end), header.stored, dtype), dtype, header);
}

/**
 * {@link readNpy} from the current position of a file, which is then behind the array: a file may hold several. The elements
 * are read into their place, without a second copy in memory.
 *
 * @param file a FileHandle, opened for reading; the caller closes it
 * @throws as readNpy does, and what `file.read` throws
 * @example
 * const file = await open('q.npy');
 * const q = await readNpyFrom(file);
 * await file.close();
 */
export async function readNpyFrom(file: ReadableFile, options?: ReadOptions | null): Promise<Tensor> {
  const caller = 'readNpyFrom';
  checkFile(caller, file, 'read');
  const asked = readAsked(caller, checkOptions(caller, 'options', options, ['dtype']));
  const prefix = new Uint8Array(NPY_PREFIX_BYTES);
  // Version 1.0 has no more than 10 bytes before its text, which never is shorter than 2.
  const present = await readUpTo(caller, file, prefix);
  const { begin, end } = headerTextOf(caller, prefix.subarray(0, present));
  const head = new Uint8Array(Math.max(end, NPY_PREFIX_BYTES));
  head.set(prefix);
  const rest = await readUpTo(caller, file, head.subarray(NPY_PREFIX_BYTES));
  checkComplete(caller, present + rest, head.length);
  const header = parseNpyHeader(caller, head.subarray(begin, end));
  const dtype = dtypeOf(caller, header, asked);
  await checkSize(caller, file, end + header.size * storedBytes(header.stored.type));
  const data = await readElements(caller, file, null, header.stored, header.size, dtype);
  return tensorOf(data, dtype, header);
}

/**
 * The .npy file of a tensor, byte for byte as NumPy 2 saves it: version 1.0, row-major. bfloat16 is written as `<V2`, like
 * ml_dtypes; in NumPy `np.load(f).view(ml_dtypes.bfloat16)`.
 *
 * @throws DTypeError, ShapeError, CapacityError
 * @example
 * await writeFile('out.npy', writeNpy(attention(q, k, v)));
 */
export function writeNpy(tensor: TensorLike): Uint8Array {
  const caller = 'writeNpy';
  const given = asTensor(caller, 'tensor', tensor);
  const head = encodeNpyHeader(given.dtype, given.shape);
  const bytes = allocateFile(caller, head.length + given.byteLength, 'writeNpyTo');
  bytes.set(head);
  let at = head.length;
  for (const piece of piecesOf(`${caller}: tensor`, given)) {
    bytes.set(piece, at);
    at += piece.length;
  }
  return bytes;
}

/**
 * Writes what {@link writeNpy} returns at the current position of a file, in pieces of a few MiB. Until it resolves the tensor
 * must not be written to.
 *
 * @param file a FileHandle, opened for writing; the caller closes it
 * @throws as writeNpy does, and what `file.write` throws
 * @example
 * const file = await open('keys.npy', 'w');
 * await writeNpyTo(file, cache.keys());
 * await file.close();
 */
export async function writeNpyTo(file: WritableFile, tensor: TensorLike): Promise<void> {
  const caller = 'writeNpyTo';
  checkFile(caller, file, 'write');
  const given = asTensor(caller, 'tensor', tensor);
  await writeAll(caller, file, encodeNpyHeader(given.dtype, given.shape), '.npy file');
  for (const piece of piecesOf(`${caller}: tensor`, given)) await writeAll(caller, file, piece, '.npy file');
}

function dtypeOf(caller: string, { isRaw, stored }: NpyHeader, asked: DType | undefined): DType {
  if (isRaw && asked !== 'bfloat16') {
    throw new DTypeError(
      `${caller}: the file holds two bytes an element and not what they mean (V2); where they are bfloat16, as ml_dtypes ` +
        "writes it, read them with { dtype: 'bfloat16' } and convert with .to",
    );
  }
  return resultDType(`${caller}: the array`, stored.type, asked);
}

function tensorOf(data: TensorData, dtype: DType, { shape, isFortranOrder }: NpyHeader): Tensor {
  if (!isFortranOrder) return new Tensor(data, shape, { dtype });
  return new Tensor(data, shape.toReversed(), { dtype }).permute(
    shape.map((_, axis) => shape.length - 1 - axis),
  );
}
