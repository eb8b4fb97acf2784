import { beforeAll, describe, expect, test } from 'vitest';
import { type AttentionResult, attention } from '../lib/attention.ts';
import { rope } from '../lib/modules/rope.ts';
import type { AttentionOptions } from '../lib/options.ts';
import { Tensor } from '../lib/tensor.ts';
import { backendsUnderTest } from './backends.ts';
import { type Canonical, type Fixture, readFixtures } from './fixtures.ts';

const FIXTURES = readFixtures(['flash-attention', 'onnxruntime-tests']).filter(
  ({ canonical }) => (canonical.empty_row ?? 'zero') === 'zero' && canonical.graphs === undefined,
);
const attentionFixtures = FIXTURES.filter(({ canonical }) => canonical.kind === 'sdpa');
const ropeFixtures = FIXTURES.filter(({ canonical }) => canonical.kind === 'rope');
if (FIXTURES.length === 0)
  console.warn('conformance: no fixtures beside the checkout (../shared/conformance); skipped');

type Layout = Canonical['layout'];

/** x as [B, H, L, D], or [H, total, D] of packed tokens. */
function toHeadsFirst(x: Tensor, layout: Layout, heads: number): Tensor {
  if (layout === 'BHSD') return x;
  if (layout === 'BSHD') return x.transpose(1, 2);
  if (layout === 'THD') return x.transpose(0, 1);
  const [batch, length, width] = x.shape;
  return x.reshape(batch, length, heads, width / heads).transpose(1, 2);
}

/** Sources one after another on the length axis of [B, H, L, D]. */
function concatenate(past: Tensor, present: Tensor): Tensor {
  const [batch, heads, length, dim] = past.shape;
  const joined = Tensor.empty([batch, heads, length + present.shape[2], dim], { dtype: past.dtype });
  copyRows(joined, past, () => 0);
  copyRows(joined, present, () => length);
  return joined;
}

/** Copies the rows of x [B, H, L, D] into target, entry b from row `begin(b)` on. */
function copyRows(target: Tensor, x: Tensor, begin: (b: number) => number): void {
  const [batch, heads, length, dim] = x.shape;
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      for (let t = 0; t < length; t++) {
        const from = x
          .slice(0, b, b + 1)
          .slice(1, h, h + 1)
          .slice(2, t, t + 1)
          .contiguous();
        target.data.set(from.data, ((b * heads + h) * target.shape[2] + begin(b) + t) * dim);
      }
    }
  }
}

/** Pages [blocks, blockSize, heads, D] gathered by block table [B, n] into [B, heads, n · blockSize, D]. */
function gatherPages(pages: Tensor, table: Tensor): Tensor {
  const [, blockSize, heads, dim] = pages.shape;
  const [batch, count] = table.shape;
  const gathered = Tensor.empty([batch, heads, count * blockSize, dim], { dtype: pages.dtype });
  for (let b = 0; b < batch; b++) {
    for (let n = 0; n < count; n++) {
      const block = table.at(b, n);
      const rows = pages.slice(0, block, block + 1).transpose(1, 2);
      copyRows(gathered.slice(0, b, b + 1).contiguous(), rows, () => n * blockSize);
    }
  }
  return gathered;
}

/** The keys or values of a case, as attention takes them. */
function keysOf(which: 'k' | 'v', { canonical: c, inputs }: Fixture): Tensor {
  if (c.paged) return gatherPages(inputs[c.paged[`${which}_cache`]], inputs[c.paged.block_table]);
  const layout = c.kv_layout ?? c.layout;
  const given = toHeadsFirst(inputs[c[which]], layout, c.kv_heads);
  if (c.past) return concatenate(toHeadsFirst(inputs[c.past[which]], c.past.layout, c.kv_heads), given);
  if (c.append === undefined) return given;
  const cache = given.clone();
  const at = inputs[c.append.at];
  copyRows(cache, toHeadsFirst(inputs[c.append[which]], c.append.layout, c.kv_heads), (b) => at.at(b));
  return cache;
}

/** Whole numbers of a slot, plus `plus`. */
function integers(x: Tensor, plus = 0): Int32Array {
  return Int32Array.from(x.contiguous().data, (value) => value + plus);
}

/** True where query and key lie in the same chunk. */
function chunkMask(chunk: number, qLen: number, kvLen: number): Tensor {
  const mask = Tensor.empty([qLen, kvLen], { dtype: 'bool' });
  for (let i = 0; i < qLen; i++) {
    for (let j = 0; j < kvLen; j++) {
      const position = kvLen - qLen + i;
      mask.data[i * kvLen + j] = Math.floor(position / chunk) === Math.floor(j / chunk) ? 1 : 0;
    }
  }
  return mask;
}

/** slope · (j - (kvLen - 1)): ALiBi as some sources write it, which differs from ours by a constant of each row. */
function shiftedAlibi(slopes: Tensor, kvLen: number): Tensor {
  const [batch, heads] = slopes.shape;
  const bias = Tensor.empty([batch, heads, 1, kvLen]);
  for (let n = 0; n < batch * heads; n++) {
    for (let j = 0; j < kvLen; j++) bias.data[n * kvLen + j] = slopes.data[n] * (j - (kvLen - 1));
  }
  return bias;
}

function optionsOf({ canonical: c, inputs }: Fixture, qLen: number, kvLen: number): AttentionOptions {
  const slot = (name: string | undefined): Tensor | undefined =>
    name === undefined ? undefined : inputs[name];
  const open = (side: number): number => (side < 0 ? Infinity : side);
  const lens = c.kv_lens === undefined ? undefined : integers(inputs[c.kv_lens], c.kv_lens_plus);
  const added = [c.mask, c.bias].find((given) => given !== undefined && given.type !== 'bool_keep');
  const kept = [c.mask, c.bias].find((given) => given?.type === 'bool_keep');
  const shifted = c.alibi !== undefined && c.alibi.form !== '-slope*|p-j|';
  return {
    scale: c.scale,
    softcap: c.softcap,
    causal: c.causal,
    window: { left: open(c.window[0]), right: open(c.window[1]), sinkTokens: c.sink_tokens },
    queryOffset: offsetOf(c, inputs, qLen, lens),
    kvLengths: lens,
    mask: c.chunk === undefined ? slot(kept?.slot) : chunkMask(c.chunk, qLen, kvLen),
    bias: shifted ? shiftedAlibi(inputs[c.alibi!.slot], kvLen) : slot(added?.slot),
    alibiSlopes: shifted ? undefined : slot(c.alibi?.slot),
    sinks: slot(c.sinks),
    cuSeqlensQ: slot(c.cu_seqlens_q),
    cuSeqlensK: slot(c.cu_seqlens_k),
  };
}

/** The position of query row 0; undefined where it is the default. */
function offsetOf(
  c: Canonical,
  inputs: Fixture['inputs'],
  qLen: number,
  lens: Int32Array | undefined,
): AttentionOptions['queryOffset'] {
  if (typeof c.offset === 'number') return c.offset;
  if (c.offset !== 'kv_lens-q_len') return integers(inputs[c.offset]);
  if (c.q_lens === undefined) return undefined;
  const qLens = integers(inputs[c.q_lens]);
  return Int32Array.from(qLens, (length, b) => (lens?.[b] ?? qLen) - length);
}

/** The README's bound, element by element. */
function expectClose(got: Tensor, { outputs, tolerance, deviation }: Fixture, slot: string): void {
  const want = outputs[slot];
  expect(got.shape).toEqual(want.shape);
  const eps = { float16: 2 ** -10, bfloat16: 2 ** -7 }[want.dtype as string] ?? 2 ** -23;
  const [a, b] = [got.toFloat32Array(), want.toFloat32Array()];
  for (let i = 0; i < b.length; i++) {
    if (Object.is(a[i], b[i]) || a[i] === b[i]) continue;
    const size = Math.abs(b[i]);
    const bound = Math.max(
      tolerance.atol + tolerance.rtol * size,
      2 * (deviation[slot] ?? 0) + 4 * eps * Math.max(1, size),
    );
    expect(Math.abs(a[i] - b[i]), `${slot}[${i}]: got ${a[i]}, want ${b[i]}`).toBeLessThanOrEqual(bound);
  }
}

/** From [B, H, L, D] back to the layout of the case. */
function fromHeadsFirst(x: Tensor, layout: Layout): Tensor {
  if (layout === 'BHSD') return x;
  if (layout === 'BSHD') return x.transpose(1, 2);
  if (layout === 'THD') return x.transpose(0, 1);
  const [batch, heads, length, dim] = x.shape;
  return x
    .transpose(1, 2)
    .contiguous()
    .reshape(batch, length, heads * dim);
}

/** Rows beyond q_lens are padding, which the sources write as 0. */
function clearPadding(out: Tensor, { canonical: c, inputs }: Fixture): Tensor {
  if (c.q_lens === undefined) return out;
  const cleared = out.clone();
  const [batch, heads, length, dim] = out.shape;
  for (let b = 0; b < batch; b++) {
    for (let h = 0; h < heads; h++) {
      const row = (b * heads + h) * length;
      cleared.data.fill(0, (row + inputs[c.q_lens].at(b)) * dim, (row + length) * dim);
    }
  }
  return cleared;
}

describe.skipIf(FIXTURES.length === 0)('third-party numbers', () => {
  test('all fixtures are run', () => {
    expect(attentionFixtures.length + ropeFixtures.length).toBe(FIXTURES.length);
    expect(FIXTURES.length).toBe(76);
  });

  describe.each(backendsUnderTest())('$name', ({ backend, select }) => {
    beforeAll(select);

    test.each(attentionFixtures)('$name', (fixture) => {
      const { canonical: c, inputs } = fixture;
      const q = toHeadsFirst(inputs[c.q], c.layout, c.q_heads);
      const [k, v] = [keysOf('k', fixture), keysOf('v', fixture)];
      const options = optionsOf(fixture, q.shape.at(-2)!, k.shape.at(-2)!);
      const { out, lse } = attention(q, k, v, { ...options, backend, returnLse: true }) as AttentionResult;
      const results: Record<string, () => Tensor> = {
        o: () => fromHeadsFirst(clearPadding(out, fixture), c.o_layout ?? c.layout),
        lse: () => lse,
        present_k: () => fromHeadsFirst(k, c.present_layout ?? 'BHSD'),
        present_v: () => fromHeadsFirst(v, c.present_layout ?? 'BHSD'),
      };
      for (const [role, slot] of Object.entries(c.outputs)) expectClose(results[role](), fixture, slot);
    });
  });

  test.each(ropeFixtures)('rope: $name', (fixture) => {
    const { canonical: c, inputs } = fixture;
    const x = toHeadsFirst(inputs[c.x], c.layout, c.heads);
    const [cos, sin, ids] = [inputs[c.cos], inputs[c.sin], integers(inputs[c.position_ids])];
    const where = ids.length === 1 && x.shape[0] * x.shape[2] !== 1 ? { offset: ids[0] } : { positions: ids };
    const dim = c.rotary_dim;
    const got = rope(x, { ...where, dim, interleaved: c.interleaved, cos, sin });
    expectClose(fromHeadsFirst(got, c.layout), fixture, c.outputs.o);
  });
});
