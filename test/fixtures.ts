import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { Tensor } from '../lib/tensor.ts';

// Reader of the third-party fixtures: expected numbers that other people's implementations computed. They lie beside
// the checkout and are no part of it; their README says what each field means.

const ROOT = fileURLToPath(new URL('../../shared/conformance/', import.meta.url));

/** One tensor of a fixture, as meta.json lists it. */
interface Entry {
  readonly slot: string;
  readonly dtype: string;
  readonly shape: readonly number[];
  readonly file: string;
}

/** Our reading of a case in one vocabulary (the README's `canonical`). */
export interface Canonical {
  readonly kind: string;
  readonly layout: 'BHSD' | 'BSHD' | 'BSE' | 'THD';
  readonly kv_layout?: Canonical['layout'];
  readonly o_layout?: Canonical['layout'];
  readonly present_layout?: Canonical['layout'];
  readonly q_heads: number;
  readonly kv_heads: number;
  readonly scale: number;
  readonly softcap: number;
  readonly causal: boolean;
  readonly window: readonly [number, number];
  readonly offset: number | string;
  readonly q: string;
  readonly k: string;
  readonly v: string;
  readonly empty_row?: string;
  readonly graphs?: unknown;
  readonly mask?: { readonly slot: string; readonly type?: 'bool_keep' | 'additive' };
  readonly bias?: { readonly slot: string; readonly type?: 'bool_keep' | 'additive' };
  readonly kv_lens?: string;
  readonly kv_lens_plus?: number;
  readonly q_lens?: string;
  readonly past?: { readonly k: string; readonly v: string; readonly layout: Canonical['layout'] };
  readonly append?: {
    readonly k: string;
    readonly v: string;
    readonly at: string;
    readonly layout: Canonical['layout'];
  };
  readonly paged?: { readonly k_cache: string; readonly v_cache: string; readonly block_table: string };
  readonly cu_seqlens_q?: string;
  readonly cu_seqlens_k?: string;
  readonly sinks?: string;
  readonly alibi?: { readonly slot: string; readonly form: string };
  readonly sink_tokens?: number;
  readonly chunk?: number;
  readonly heads: number;
  readonly rotary_dim: number;
  readonly interleaved: boolean;
  readonly x: string;
  readonly cos: string;
  readonly sin: string;
  readonly position_ids: string;
  readonly outputs: Readonly<Record<string, string>>;
}

/** A case of the fixtures with its tensors; int64 becomes int32. */
export interface Fixture {
  readonly name: string;
  readonly canonical: Canonical;
  readonly tolerance: { readonly rtol: number; readonly atol: number };
  readonly deviation: Readonly<Record<string, number>>;
  readonly inputs: Readonly<Record<string, Tensor>>;
  readonly outputs: Readonly<Record<string, Tensor>>;
}

/** All cases of the folders, or an empty list where they do not lie beside the checkout. */
export function readFixtures(folders: readonly string[]): Fixture[] {
  return folders
    .filter((folder) => existsSync(`${ROOT}${folder}`))
    .flatMap((folder) => readdirSync(`${ROOT}${folder}`).map((name) => readFixture(`${folder}/${name}`)));
}

function readFixture(name: string): Fixture {
  const meta = JSON.parse(readFileSync(`${ROOT}${name}/meta.json`, 'utf8'));
  const read = (entries: Entry[]): Record<string, Tensor> =>
    Object.fromEntries(
      entries.map((entry) => [entry.slot, readTensor(`${ROOT}${name}/${entry.file}`, entry)]),
    );
  return {
    name,
    canonical: meta.canonical,
    tolerance: meta.tolerance,
    deviation: meta.deviation_from_float64,
    inputs: read(meta.inputs),
    outputs: read(meta.outputs),
  };
}

function readTensor(file: string, { dtype, shape }: Entry): Tensor {
  const bytes = readFileSync(file);
  const buffer = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length) as ArrayBuffer;
  if (dtype === 'float16' || dtype === 'bfloat16')
    return new Tensor(new Uint16Array(buffer), shape, { dtype });
  if (dtype === 'float32') return new Tensor(new Float32Array(buffer), shape);
  if (dtype === 'bool') return new Tensor(new Uint8Array(buffer), shape, { dtype });
  if (dtype === 'int32') return new Tensor(new Int32Array(buffer), shape);
  if (dtype === 'int64') return new Tensor(Int32Array.from(new BigInt64Array(buffer), Number), shape);
  throw new Error(`${file}: dtype ${dtype} is not read here`);
}
