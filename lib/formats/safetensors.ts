import { checkFile, plainBytes, type WritableFile, writeAll } from '../byte-file.ts';
import { bytesPerElement, isLittleEndian } from '../dtype.ts';
import { OptionError } from '../errors.ts';
import { nearestName } from '../nearest-name.ts';
import { checkOptions } from '../options.ts';
import { Tensor } from '../tensor.ts';
import { formatValue } from '../tensor-layout.ts';
import { asTensor, type TensorLike } from '../tensor-like.ts';
import { piecesOf } from './elements-out.ts';
import { allocateFile, type ReadOptions, readAsked } from './reading.ts';
import {
  checkComplete,
  checkName,
  compareEntries,
  encodeSafetensorsHeader,
  headerBytesOf,
  type LocatedEntry,
  type NamedShape,
  parseSafetensorsHeader,
  SAFETENSORS_PREFIX_BYTES,
  storedTypeOf,
} from './safetensors-header.ts';
import { isWellFormed, malformed } from './safetensors-json.ts';
import { decodeElements, resultDType, swapInPlace } from './stored-elements.ts';

/** What a .safetensors file holds. Neither object has a prototype, so a tensor may have any name. */
export interface Safetensors {
  readonly tensors: Record<string, Tensor>;
  readonly metadata: Readonly<Record<string, string>>;
}

/** The options of {@link readSafetensors}. */
export interface SafetensorsReadOptions extends ReadOptions {
  /** The tensors to read. Default: all. */
  readonly names?: readonly string[] | null;
}

/** Tensors to write, by their names. */
export type NamedTensors = Readonly<Record<string, TensorLike>>;

/**
 * The tensors of a .safetensors file and its metadata. Each is a view of `bytes` where its elements are aligned (as those are
 * that Hugging Face and {@link writeSafetensors} write) and nothing has to be converted.
 *
 * @param bytes the whole file
 * @param options `names`: which tensors; `dtype`: {@link ReadOptions}
 * @throws OptionError where bytes are missing, too many or malformed, or a name is not there; ShapeError; DTypeError for types
 *   that no Tensor holds
 * @example
 * const { tensors } = readSafetensors(await readFile('attention.safetensors'));
 * const out = attention(tensors.q, tensors.k, tensors.v);
 */
export function readSafetensors(bytes: Uint8Array, options?: SafetensorsReadOptions | null): Safetensors {
  const caller = 'readSafetensors';
  const given = checkOptions(caller, 'options', options, ['names', 'dtype']);
  const { names } = given;
  const asked = readAsked(caller, given);
  const file = plainBytes(caller, bytes, 'the content of a .safetensors file');
  const dataBegin = SAFETENSORS_PREFIX_BYTES + headerBytesOf(caller, file);
  checkComplete(caller, file.length, dataBegin);
  const header = parseSafetensorsHeader(caller, file.subarray(SAFETENSORS_PREFIX_BYTES, dataBegin));
  checkEnd(caller, file.length, dataBegin + header.dataBytes);
  const tensors = Object.create(null) as Record<string, Tensor>;
  for (const entry of selectEntries(caller, header.entries, names)) {
    const where = `${caller}: ${formatValue(entry.name)}`;
    const type = storedTypeOf(where, entry);
    const dtype = resultDType(where, type, asked);
    const begin = dataBegin + entry.begin;
    const elements = file.subarray(begin, begin + entry.byteLength);
    const data = decodeElements(where, elements, { type, isSwapped: !isLittleEndian }, dtype);
    tensors[entry.name] = new Tensor(data, entry.shape, { dtype });
  }
  return { tensors, metadata: header.metadata };
}

/** @throws OptionError unless a file ends where its last tensor does */
export function checkEnd(caller: string, bytes: number, needed: number): void {
  checkComplete(caller, bytes, needed);
  if (bytes > needed) throw malformed(caller, `${bytes} bytes where its header tells of ${needed}`);
}

function selectEntries(
  caller: string,
  entries: readonly LocatedEntry[],
  names: readonly string[] | null | undefined,
): readonly LocatedEntry[] {
  if (names === undefined || names === null) return entries;
  if (!Array.isArray(names))
    throw new OptionError(`${caller}: names must be a list; got ${formatValue(names)}`);
  const byName = new Map(entries.map((entry) => [entry.name, entry]));
  return names.map((name: unknown) => byName.get(name as string) ?? throwNoTensor(caller, name, byName));
}

/** @throws OptionError which names a tensor that is not in the file, and the nearest one that is */
export function throwNoTensor(caller: string, name: unknown, byName: ReadonlyMap<string, unknown>): never {
  const names = [...byName.keys()];
  const nearest = typeof name === 'string' && names.length <= 1000 ? nearestName(name, names) : undefined;
  const hint = nearest === undefined ? '' : `did you mean ${formatValue(nearest)}? `;
  const shown = names.slice(0, 8).map(formatValue).join(', ');
  throw new OptionError(
    `${caller}: there is no tensor ${formatValue(name)}; ${hint}it has ${shown}${names.length > 8 ? `, and ${names.length - 8} more` : ''}`,
  );
}

/** A file to be written. */
interface Plan {
  readonly head: Uint8Array;
  readonly tensors: readonly { readonly name: string; readonly tensor: Tensor }[];
  readonly fileBytes: number;
}

function plan(
  caller: string,
  tensors: NamedTensors,
  metadata: Readonly<Record<string, string>> | null | undefined,
): Plan {
  const texts = readMetadata(caller, metadata);
  const entries = readTensors(caller, tensors);
  const head = encodeSafetensorsHeader(caller, entries, texts);
  return {
    head,
    tensors: entries,
    fileBytes: entries.reduce((sum, { byteLength }) => sum + byteLength, head.length),
  };
}

function readTensors(
  caller: string,
  tensors: NamedTensors,
): readonly (NamedShape & { readonly tensor: Tensor })[] {
  if (
    typeof tensors !== 'object' ||
    tensors === null ||
    Array.isArray(tensors) ||
    tensors instanceof Tensor
  ) {
    throw new OptionError(
      `${caller}: tensors must be an object of tensors by their names, such as { q, k, v }; got ${formatValue(tensors)}`,
    );
  }
  return Object.entries(tensors)
    .map(([name, value]) => {
      checkName(caller, 'tensor', name);
      const tensor = asTensor(caller, `tensors[${formatValue(name)}]`, value);
      const { dtype, shape, byteLength } = tensor;
      return { name, dtype, shape, byteLength, tensor };
    })
    .sort(compareEntries);
}

function readMetadata(caller: string, metadata: unknown): Record<string, string> | null {
  if (metadata === undefined || metadata === null) return null;
  if (typeof metadata !== 'object' || Array.isArray(metadata))
    throw new OptionError(`${caller}: metadata must be an object of strings; got ${formatValue(metadata)}`);
  const texts = Object.create(null) as Record<string, string>;
  for (const [key, value] of Object.entries(metadata)) {
    if (typeof value !== 'string' || !isWellFormed(value) || !isWellFormed(key)) {
      throw new OptionError(
        `${caller}: metadata must hold strings without half characters; ${JSON.stringify(key)} is ${formatValue(value)}`,
      );
    }
    texts[key] = value;
  }
  return texts;
}

/** What is written of a tensor, in pieces: the format is little-endian. */
function* littleEndianPieces(
  caller: string,
  { name, tensor }: Plan['tensors'][number],
): Generator<Uint8Array> {
  for (const piece of piecesOf(`${caller}: tensors[${formatValue(name)}]`, tensor)) {
    if (isLittleEndian) {
      yield piece;
      continue;
    }
    const copy = piece.slice();
    swapInPlace(copy, bytesPerElement(tensor.dtype));
    yield copy;
  }
}

/**
 * The .safetensors file of tensors, byte for byte as Hugging Face's writer has it: ordered by dtype, then by name, row-major,
 * each aligned to its elements.
 *
 * @param metadata texts by their names, such as `{ format: 'pt' }`
 * @throws OptionError for names that a file cannot hold; DTypeError, ShapeError, CapacityError
 * @example
 * const out = attention(q, k, v);
 * await writeFile('checked.safetensors', writeSafetensors({ q, k, v, out }, { scale: '0.125' }));
 */
export function writeSafetensors(
  tensors: NamedTensors,
  metadata?: Readonly<Record<string, string>> | null,
): Uint8Array {
  const caller = 'writeSafetensors';
  const planned = plan(caller, tensors, metadata);
  const bytes = allocateFile(caller, planned.fileBytes, 'writeSafetensorsTo');
  bytes.set(planned.head);
  let at = planned.head.length;
  for (const named of planned.tensors)
    for (const piece of littleEndianPieces(caller, named)) {
      bytes.set(piece, at);
      at += piece.length;
    }
  return bytes;
}

/**
 * Writes what {@link writeSafetensors} returns, in pieces of a few MiB. Until it resolves the tensors must not be written to.
 *
 * @param file a FileHandle, opened for writing, at its beginning; the caller closes it
 * @throws as writeSafetensors does, and what `file.write` throws
 * @example
 * const file = await open('prompt.safetensors', 'w');
 * await writeSafetensorsTo(file, { q, k, v });
 * await file.close();
 */
export async function writeSafetensorsTo(
  file: WritableFile,
  tensors: NamedTensors,
  metadata?: Readonly<Record<string, string>> | null,
): Promise<void> {
  const caller = 'writeSafetensorsTo';
  checkFile(caller, file, 'write');
  const planned = plan(caller, tensors, metadata);
  await writeAll(caller, file, planned.head, '.safetensors file');
  for (const named of planned.tensors)
    for (const piece of littleEndianPieces(caller, named))
      await writeAll(caller, file, piece, '.safetensors file');
}
