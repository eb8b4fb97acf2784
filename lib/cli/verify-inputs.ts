import { type FileHandle, open } from 'node:fs/promises';
import type { CompareOptions } from '../compare-attention.ts';
import { isFloatDType } from '../dtype.ts';
import { DTypeError, SdpaError } from '../errors.ts';
import { readNpyFrom } from '../formats/npy.ts';
import { openSafetensors } from '../formats/safetensors-file.ts';
import type { Tensor } from '../tensor.ts';
import { formatShape } from '../tensor-layout.ts';
import { UsageError } from './command.ts';

/** What is to be verified: rank 4, [B, H, L, D]. */
export interface Claim {
  readonly q: Tensor;
  readonly k: Tensor;
  readonly v: Tensor;
  /** null: this package's own result is checked. */
  readonly expected: Tensor | null;
  readonly expectedLse: Tensor | null;
  readonly options: CompareOptions;
  /** What was done to the files' contents. */
  readonly notes: readonly string[];
}

/** The options of `verify` that name a file with a tensor. */
export const TENSOR_OPTIONS = [
  'q',
  'k',
  'v',
  'expected',
  'lse',
  'mask',
  'bias',
  'alibi-slopes',
  'sinks',
  'kv-lengths',
  'cu-seqlens-q',
  'cu-seqlens-k',
] as const;

/** Names by which a .safetensors file may hold the tensor of an option, beside the option's own. */
const OTHER_NAMES: Readonly<Record<string, readonly string[]>> = {
  q: ['query'],
  k: ['key'],
  v: ['value'],
  expected: ['out', 'output', 'o'],
  'alibi-slopes': ['alibi_slopes'],
  'kv-lengths': ['kv_lengths'],
  'cu-seqlens-q': ['cu_seqlens_q'],
  'cu-seqlens-k': ['cu_seqlens_k'],
};

/** Reads tensors from files, and remembers what it had to convert. */
export class TensorFiles {
  readonly notes: string[] = [];
  readonly #given: ReadonlyMap<string, string>;

  constructor(given: ReadonlyMap<string, string>) {
    this.#given = given;
  }

  /** The tensor of an option; null where the option was not given. @throws UsageError, in one line */
  async read(name: string): Promise<Tensor | null> {
    const text = this.#given.get(name);
    if (text === undefined) return null;
    const { path, entry } = splitEntry(text);
    const file = await openFile(name, path);
    try {
      return path.endsWith('.npy')
        ? await this.#readNpy(name, path, file)
        : await this.#readSafetensors(name, path, entry, file);
    } catch (error) {
      if (error instanceof SdpaError)
        throw new UsageError(`--${name} ${text}: ${error.message.replace(/^[\w.]+: /, '')}`);
      // Of the system: a directory, a disk that fails.
      if (isSystemError(error)) throw unreadable(name, path, error);
      throw error;
    } finally {
      await file.close();
    }
  }

  async #readNpy(name: string, path: string, file: FileHandle): Promise<Tensor> {
    try {
      return await readNpyFrom(file);
    } catch (error) {
      if (!(error instanceof DTypeError)) throw error;
      // NumPy's own default is float64; two bytes without a name are bfloat16 of ml_dtypes.
      const dtype = error.message.includes('V2') ? 'bfloat16' : wanted(name, error);
      const again = await openFile(name, path);
      try {
        const tensor = await readNpyFrom(again, { dtype });
        this.notes.push(`--${name}: read as ${dtype} (${reasonOf(error)})`);
        return tensor;
      } finally {
        await again.close();
      }
    }
  }

  async #readSafetensors(
    name: string,
    path: string,
    entry: string | null,
    file: FileHandle,
  ): Promise<Tensor> {
    const tensors = await openSafetensors(file);
    const names = entry === null ? [name, ...(OTHER_NAMES[name] ?? [])] : [entry];
    const found = names.find((each) => tensors.has(each));
    if (found === undefined) {
      throw new UsageError(
        `--${name} ${path} has no tensor ${names.map((each) => `'${each}'`).join(' or ')}; ` +
          `it has ${tensors.names.slice(0, 20).join(', ')}; name one as ${path}:NAME`,
      );
    }
    try {
      return await tensors.read(found);
    } catch (error) {
      if (!(error instanceof DTypeError)) throw error;
      const dtype = wanted(name, error);
      this.notes.push(`--${name}: read as ${dtype} (${reasonOf(error)})`);
      return await tensors.read(found, { dtype });
    }
  }
}

const INTEGER_OPTIONS = ['kv-lengths', 'cu-seqlens-q', 'cu-seqlens-k'];

/** What to read a type as that no Tensor holds. @throws UsageError for a mask, of which numbers would be a guess */
function wanted(name: string, error: Error): 'int32' | 'float32' {
  if (name === 'mask') throw new UsageError(`--mask must hold bool or uint8; ${reasonOf(error)}`);
  return INTEGER_OPTIONS.includes(name) ? 'int32' : 'float32';
}

function reasonOf(error: Error): string {
  const type = /\b(float64|u?int64|uint32|u?int16|V2)\b/.exec(error.message)?.[0];
  return type === undefined ? 'no Tensor holds its type' : `the file has ${type}`;
}

/** 'a.safetensors:name' apart. */
function splitEntry(text: string): { path: string; entry: string | null } {
  const [, path, entry] = /^(.*\.safetensors):(.+)$/s.exec(text) ?? [];
  return path === undefined ? { path: text, entry: null } : { path, entry };
}

async function openFile(name: string, path: string): Promise<FileHandle> {
  if (!/\.(npy|safetensors)$/.test(path))
    throw new UsageError(`--${name} must be a .npy or .safetensors file; got '${path}'`);
  try {
    return await open(path);
  } catch (error) {
    throw unreadable(name, path, error as Error);
  }
}

const isSystemError = (error: unknown): error is Error => error instanceof Error && 'syscall' in error;

const unreadable = (name: string, path: string, { message }: Error): UsageError =>
  new UsageError(`--${name} ${path} cannot be read: ${message}`);

/** [B, H, L, D] of a tensor that is laid out so, or as [B, L, H, D] ('blhd'); rank 3 gets B = 1. */
export function asHeads(name: string, x: Tensor, layout: 'bhld' | 'blhd', isRagged: boolean): Tensor {
  if (!isFloatDType(x.dtype))
    throw new UsageError(`--${name} must be float32, float16 or bfloat16; it is ${x.dtype}`);
  if (isRagged) return layout === 'bhld' ? x : x.transpose(0, 1);
  if (x.rank !== 3 && x.rank !== 4)
    throw new UsageError(
      `--${name} must have 4 axes, or 3 without the batch; it has ${formatShape(x.shape)}`,
    );
  const whole = x.rank === 3 ? x.unsqueeze(0) : x;
  return (layout === 'bhld' ? whole : whole.transpose(1, 2)).contiguous();
}
