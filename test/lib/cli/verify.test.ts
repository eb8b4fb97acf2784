import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { attention } from '../../../lib/attention.ts';
import { backendInfo } from '../../../lib/backend-info.ts';
import { main } from '../../../lib/cli/main.ts';
import type { VerifyReport } from '../../../lib/cli/verify-report.ts';
import type { CompareOptions } from '../../../lib/compare-attention.ts';
import { writeNpy } from '../../../lib/formats/npy.ts';
import { writeSafetensors } from '../../../lib/formats/safetensors.ts';
import { Tensor } from '../../../lib/tensor.ts';

const folder = mkdtempSync(join(tmpdir(), 'node-sdpa-verify-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));
const path = (name: string): string => join(folder, name);

function save(name: string, tensor: Tensor): string {
  const file = path(`${name}.npy`);
  writeFileSync(file, writeNpy(tensor));
  return file;
}

async function run(...argv: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const written = { stdout: '', stderr: '' };
  const stream = (name: 'stdout' | 'stderr') => ({
    write: (text: string) => {
      written[name] += text;
    },
  });
  const code = await main(['verify', ...argv], { stdout: stream('stdout'), stderr: stream('stderr') });
  return { code, ...written };
}

const [HEADS, KV_HEADS, Q_LEN, KV_LEN, DIM] = [6, 2, 7, 19, 16];
const q = Tensor.randn([2, HEADS, Q_LEN, DIM], { seed: 1 });
const k = Tensor.randn([2, KV_HEADS, KV_LEN, DIM], { seed: 2 });
const v = Tensor.randn([2, KV_HEADS, KV_LEN, DIM], { seed: 3 });
const given = ['--q', save('q', q), '--k', save('k', k), '--v', save('v', v)];

/** `attention` with a mistake in it, as somebody's output. */
const outputOf = (options: CompareOptions, inputs = [q, k, v]): string =>
  save('out', attention(inputs[0], inputs[1], inputs[2], { ...options, returnLse: false }));

const mask = new Tensor(
  Uint8Array.from({ length: Q_LEN * KV_LEN }, (_, i) => (i % 3 === 0 ? 0 : 1)),
  [Q_LEN, KV_LEN],
  { dtype: 'bool' },
);
const bias = Tensor.randn([Q_LEN, KV_LEN], { seed: 4 });
const sinks = Tensor.randn([HEADS], { seed: 5 });
const slopes = Tensor.randn([HEADS], { seed: 6 });
const lengths = new Tensor(Int32Array.of(11, 19), [2], { dtype: 'int32' });
const tile = (x: Tensor): Tensor => {
  const heads = Array.from({ length: HEADS }, (_, h) =>
    x.slice(1, h % KV_HEADS, (h % KV_HEADS) + 1).toArray(),
  );
  const all = Tensor.empty([2, HEADS, KV_LEN, DIM]);
  for (const [h, head] of (heads as number[][][][][]).entries())
    for (const b of [0, 1]) all.data.set(head[b][0].flat(), (b * HEADS + h) * KV_LEN * DIM);
  return all;
};
/** The right output, in float32 but with the digits of another type only. */
const rounded = (dtype: 'float16' | 'bfloat16'): string =>
  save('out', attention(q, k, v, { causal: true }).to(dtype).to('float32'));
/** softcap, then softmax over what the mask has made -softcap. */
const cappedAfterMask = (): string => {
  const scores = Tensor.zeros([2, HEADS, Q_LEN, KV_LEN]);
  for (let b = 0; b < 2; b++)
    for (let h = 0; h < HEADS; h++)
      for (let i = 0; i < Q_LEN; i++)
        for (let j = 0; j < KV_LEN; j++) {
          let s = 0;
          for (let d = 0; d < DIM; d++) s += q.at(b, h, i, d) * k.at(b, Math.floor(h / 3), j, d);
          const visible = j <= KV_LEN - Q_LEN + i;
          const at = ((b * HEADS + h) * Q_LEN + i) * KV_LEN + j;
          scores.data[at] = visible ? 2 * Math.tanh(s / Math.sqrt(DIM) / 2) : -2;
        }
  return save('out', attention(q, k, v, { scale: 0, bias: scores }));
};

describe('a right output', () => {
  test('passes with exit code 0, and is accounted for', async () => {
    const { code, stdout, stderr } = await run(
      ...given,
      '--causal',
      '--expected',
      outputOf({ causal: true }),
    );
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/^pass out \(float32, expected\): max abs/);
    expect(stdout).toContain('units of the last place (float32)');
    expect(stdout).not.toContain('Why');
  });

  test('without --expected, that of this package', async () => {
    const { code, stdout } = await run(...given, '--causal', '--window', '5,2');
    expect(code).toBe(0);
    expect(stdout).toContain(`pass out (float32, ${backendInfo().backend})`);
    expect(stdout).toContain('pass lse');
  });

  test('with every option, and its lse', async () => {
    const options: CompareOptions = {
      ...{ causal: true, queryOffset: 9, window: { left: 8, sinkTokens: 2 }, scale: 0.3, softcap: 4 },
      ...{ mask, bias, sinks, alibiSlopes: slopes, kvLengths: Int32Array.of(11, 19) },
    };
    const { out, lse } = attention(q, k, v, { ...options, returnLse: true });
    const { code, stdout } = await run(
      ...given,
      ...['--causal', '--query-offset', '9', '--window', '8', '--sink-tokens', '2', '--scale', '0.3'],
      ...['--softcap', '4', '--mask', save('mask', mask), '--bias', save('bias', bias)],
      ...['--sinks', save('sinks', sinks), '--alibi-slopes', save('slopes', slopes)],
      ...[
        '--kv-lengths',
        save('lengths', lengths),
        '--expected',
        save('out', out),
        '--lse',
        save('lse', lse),
      ],
    );
    expect(stdout).toContain('pass lse (float32)');
    expect(code).toBe(0);
  });

  test('laid out as [B, L, H, D], of rank 3, and from .safetensors', async () => {
    const out = attention(q, k, v, { causal: true });
    const swapped = ([q, k, v, out] as const).map((x) => x.transpose(1, 2).contiguous());
    const files = swapped.map((x, i) => save(`swapped${i}`, x));
    const options = ['q', 'k', 'v', 'expected'].flatMap((name, i) => [`--${name}`, files[i]]);
    expect((await run(...options, '--layout', 'blhd', '--causal')).code).toBe(0);

    const first = ([q, k, v, out] as const).map((x) => x.slice(0, 0, 1).squeeze(0).contiguous());
    const all = path('all.safetensors');
    writeFileSync(
      all,
      writeSafetensors({ query: first[0], k: first[1], value: first[2], out: first[3], bad: first[0] }),
    );
    const named = ['q', 'k', 'v', 'expected'].flatMap((name) => [`--${name}`, all]);
    expect((await run(...named, '--causal')).code).toBe(0);
    expect((await run(...named.slice(0, 6), '--causal', '--expected', `${all}:bad`)).code).toBe(2);
    const { code, stderr } = await run(...named.slice(0, 6), '--expected', `${all}:none`);
    expect(code).toBe(1);
    expect(stderr).toMatch(/has no tensor 'none'; it has .*query/);
  });

  test('in float64, which is read as float32', async () => {
    const out = attention(q, k, v);
    const wide = Buffer.from(Float64Array.from(out.data as Float32Array).buffer);
    const header = Buffer.from(writeNpy(out)).subarray(0, 128).toString('latin1').replace('<f4', '<f8');
    writeFileSync(path('wide.npy'), Buffer.concat([Buffer.from(header, 'latin1'), wide]));
    const { code, stdout } = await run(...given, '--expected', path('wide.npy'));
    expect(code).toBe(0);
    expect(stdout).toContain('--expected: read as float32 (the file has float64)');
  });

  test('of a packed ragged batch', async () => {
    const bounds = { q: [0, 3, 3, 10], k: [0, 8, 10, 30] };
    const vector = (x: number[]): Tensor => new Tensor(Int32Array.from(x), [x.length], { dtype: 'int32' });
    const [a, b, c] = [
      Tensor.randn([HEADS, 10, DIM], { seed: 1 }),
      Tensor.randn([KV_HEADS, 30, DIM], { seed: 2 }),
      Tensor.randn([KV_HEADS, 30, DIM], { seed: 3 }),
    ];
    const cu = { cuSeqlensQ: Int32Array.from(bounds.q), cuSeqlensK: Int32Array.from(bounds.k) };
    const files = ['--q', save('rq', a), '--k', save('rk', b), '--v', save('rv', c)];
    const ragged = [
      '--cu-seqlens-q',
      save('cq', vector(bounds.q)),
      '--cu-seqlens-k',
      save('ck', vector(bounds.k)),
    ];
    const right = save('out', attention(a, b, c, { ...cu, causal: true }));
    expect((await run(...files, ...ragged, '--causal', '--expected', right)).code).toBe(0);
    const wrong = save('out', attention(a, b, c, cu));
    const { code, stdout } = await run(...files, ...ragged, '--causal', '--expected', wrong);
    expect(code).toBe(2);
    expect(stdout).toContain('without the causal mask');
  });
});

describe('a wrong output is explained', () => {
  const window = ['--window', '5'];
  const w = { left: 5 };
  test.each<[string, string[], () => string, RegExp]>([
    ['top-left', ['--causal'], () => outputOf({ causal: true, queryOffset: 0 }), /aligned top-left/],
    [
      'bottom-right',
      ['--causal', '--query-offset', '0'],
      () => outputOf({ causal: true }),
      /aligned bottom-right/,
    ],
    ['no scale', ['--causal'], () => outputOf({ causal: true, scale: 1 }), /without the scale/],
    ['default scale', ['--scale', '0.5'], () => outputOf({}), /the default scale/],
    ['scale twice', ['--scale', '0.3'], () => outputOf({ scale: 0.09 }), /scale applied twice/],
    ['scale by the root', [], () => outputOf({ scale: 4 }), /multiplied by the root of headDim/],
    ['scale of the model', [], () => outputOf({ scale: 1 / Math.sqrt(HEADS * DIM) }), /whole model width/],
    ['not causal', ['--causal'], () => outputOf({}), /without the causal mask/],
    ['causal', [], () => outputOf({ causal: true }), /with a causal mask \(bottom-right\)/],
    [
      'causal, top-left',
      [],
      () => outputOf({ causal: true, queryOffset: 0 }),
      /causal mask aligned top-left/,
    ],
    [
      'one position late',
      ['--causal'],
      () => outputOf({ causal: true, queryOffset: KV_LEN - Q_LEN + 1 }),
      /one position too late/,
    ],
    [
      'one position early',
      ['--causal'],
      () => outputOf({ causal: true, queryOffset: KV_LEN - Q_LEN - 1 }),
      /one position too early/,
    ],
    [
      'a wider window',
      ['--causal', ...window],
      () => outputOf({ causal: true, window: { left: 6 } }),
      /window one key wider on the left/,
    ],
    [
      'a narrower window',
      ['--causal', ...window],
      () => outputOf({ causal: true, window: { left: 4 } }),
      /window one key narrower on the left/,
    ],
    [
      'no sink tokens',
      ['--causal', ...window, '--sink-tokens', '2'],
      () => outputOf({ causal: true, window: w }),
      /without the sink tokens/,
    ],
    ['no window', ['--causal', ...window], () => outputOf({ causal: true }), /without the window/],
    ['tiled heads', ['--causal'], () => outputOf({ causal: true }, [q, tile(k), tile(v)]), /kv heads tiled/],
    [
      'softcap after the mask',
      ['--causal', '--softcap', '2'],
      cappedAfterMask,
      /softcap applied after the mask/,
    ],
    ['no softcap', ['--softcap', '1'], () => outputOf({}), /without softcap/],
    [
      'inverted mask',
      ['--mask', save('mask', mask)],
      () =>
        outputOf({
          mask: new Tensor(
            Uint8Array.from(mask.data as Uint8Array, (x) => 1 - x),
            mask.shape,
            { dtype: 'bool' },
          ),
        }),
      /mask inverted/,
    ],
    [
      'added mask',
      ['--mask', save('mask', mask)],
      () => outputOf({ bias: new Tensor(Float32Array.from(mask.data as Uint8Array), mask.shape) }),
      /added to the scores as 0 and 1/,
    ],
    ['no mask', ['--mask', save('mask', mask)], () => outputOf({}), /without the mask/],
    ['no bias', ['--bias', save('bias', bias)], () => outputOf({}), /without the bias/],
    ['no sinks', ['--sinks', save('sinks', sinks)], () => outputOf({}), /without the sinks/],
    ['no ALiBi', ['--alibi-slopes', save('slopes', slopes)], () => outputOf({}), /without ALiBi/],
    ['padding attended', ['--kv-lengths', save('lengths', lengths)], () => outputOf({}), /padding counts/],
    [
      'no lengths',
      ['--causal', '--kv-lengths', save('lengths', lengths)],
      () => outputOf({ causal: true }),
      /without kvLengths: padding counts/,
    ],
    ['in bfloat16', ['--causal'], () => rounded('bfloat16'), /in the precision of bfloat16/],
    ['in float16', ['--causal'], () => rounded('float16'), /in the precision of TF32 or float16/],
    [
      'heads and queries exchanged',
      ['--causal'],
      () => {
        const out = attention(q, k, v, { causal: true });
        return save('out', out.transpose(1, 2).contiguous().reshape(out.shape));
      },
      /written as \[B, L, H, D\]/,
    ],
    ['k and v exchanged', [], () => outputOf({}, [q, v, k]), /k and v exchanged/],
    [
      'two at once',
      ['--causal', ...window],
      () => outputOf({ causal: true, queryOffset: 0, window: w }, [q, tile(k), tile(v)]),
      /aligned top-left.*\n.*and with kv heads tiled/,
    ],
  ])('%s', async (_, options, output, explanation) => {
    const { code, stdout, stderr } = await run(...given, ...options, '--expected', output());
    expect({ code, stderr }).toEqual({ code: 2, stderr: '' });
    expect(stdout).toMatch(/^FAIL out/);
    expect(stdout).toMatch(explanation);
    expect(stdout).toMatch(/^Remedy: /m);
  });

  // Of a single query a window and a position that are off by one may give the same: the window is what was asked for.
  test.each([
    [4, /one key narrower on the left/],
    [6, /one key wider on the left/],
  ])('a decode step with a window of %d in place of 5', async (left, explanation) => {
    const last = q.slice(2, Q_LEN - 1).contiguous();
    const out = save('out', attention(last, k, v, { window: { left, right: 3 } }));
    const files = ['--q', save('last', last), ...given.slice(2), '--expected', out];
    const { code, stdout } = await run(...files, '--window', '5,3');
    expect(code).toBe(2);
    expect(stdout).toMatch(explanation);
  });

  test('one wrong element: where it stands, and the keys of its row', async () => {
    const out = attention(q, k, v, { causal: true });
    out.data[((1 * HEADS + 3) * Q_LEN + 2) * DIM + 4] += 0.25;
    const json = path('report.json');
    const { code, stdout } = await run(...given, '--causal', '--expected', save('out', out), '--json', json);
    expect(code).toBe(2);
    expect(stdout).toContain('batch 1, head 3, query 2, channel 4');
    expect(stdout).toContain('the query sees 15 of 19 keys');
    expect(stdout).toContain('1 of 84 rows are outside the tolerance');
    expect(stdout).toContain('None of the usual mistakes');
    const report = JSON.parse(readFileSync(json, 'utf8')) as VerifyReport;
    expect(report.worst?.index).toEqual([1, 3, 2, 4]);
    const heaviest = report.worst?.heaviest ?? [];
    expect(heaviest.map(({ weight }) => weight)).toEqual(
      heaviest.map(({ weight }) => weight).sort((a, b) => b - a),
    );
    expect(report.histogram.reduce((sum, { count }) => sum + count, 0)).toBe(out.size);
  });

  test('a mistake and noise: near to it', async () => {
    const out = attention(q, k, v, { scale: 1 });
    for (let i = 0; i < out.size; i++) out.data[i] += 1e-3 * Math.sin(i);
    const { stdout } = await run(...given, '--expected', save('out', out));
    expect(stdout).toMatch(/is near to attention without the scale.*something else is wrong too/);
  });

  test('NaN where there is none', async () => {
    const out = attention(q, k, v);
    out.data[5] = Number.NaN;
    const { code, stdout } = await run(...given, '--expected', save('out', out));
    expect(code).toBe(2);
    expect(stdout).toContain('not finite');
    expect(stdout).toMatch(/channel 5: NaN, should be -?[\d.]+$/m);
  });

  test('a wrong lse', async () => {
    const { out, lse } = attention(q, k, v, { returnLse: true });
    const base2 = new Tensor(
      Float32Array.from(lse.data as Float32Array, (x) => x / Math.LN2),
      lse.shape,
    );
    const { code, stdout } = await run(...given, '--expected', save('out', out), '--lse', save('lse', base2));
    expect(code).toBe(2);
    expect(stdout).toMatch(/^pass out/);
    expect(stdout).toMatch(/^FAIL lse/m);
    expect(stdout).toContain('base 2');
  });
});

describe('refuses, in one line, writing nothing', () => {
  const broken = path('broken.npy');
  writeFileSync(broken, 'not an array');
  const directory = path('directory.npy');
  mkdirSync(directory);
  const wideMask = path('wide-mask.npy');
  const header = "{'descr': '<i8', 'fortran_order': False, 'shape': (1,), }".padEnd(117);
  writeFileSync(wideMask, `\x93NUMPY\x01\0\x76\0${header}\n${'\x01'.padEnd(8, '\0')}`, 'latin1');
  test.each<[string[], RegExp]>([
    [['--q', 'q.npy'], /--q needs --q, --k and --v; --k, --v missing/],
    [['--causal'], /--causal needs --q, --k and --v/],
    [[...given.slice(0, 4), '--v', path('none.npy')], /--v .*none\.npy cannot be read: ENOENT/],
    [[...given.slice(0, 4), '--v', broken], /--v .*broken\.npy: /],
    [[...given.slice(0, 4), '--v', directory], /--v .*directory\.npy cannot be read: EISDIR/],
    [[...given.slice(0, 4), '--v', 'v.pt'], /--v must be a \.npy or \.safetensors file; got 'v\.pt'/],
    [[...given, '--expected', save('k', k)], /--expected has the shape \[2, 2, 19, 16\]/],
    [[...given, '--lse', save('k', k)], /--lse needs --expected/],
    [[...given, '--window', 'wide'], /--window must be LEFT or LEFT,RIGHT/],
    [[...given, '--window', '1,2,3'], /--window must be LEFT or LEFT,RIGHT/],
    [[...given, '--sink-tokens', '1'], /--sink-tokens needs --window/],
    [[...given, '--scale', 'x'], /--scale must be a number; got 'x'/],
    [[...given, '--layout', 'bdhl'], /--layout must be bhld or blhd/],
    [[...given, '--mask', save('bias', bias)], /^node-sdpa verify: mask must be bool; got float32/],
    [[...given, '--softcap', '-1'], /^node-sdpa verify: softcap must be positive/],
    [[...given, '--mask', wideMask], /--mask must hold bool or uint8; the file has int64/],
    [[...given, '--sinks', save('k', k)], /sinks/],
    [[...given, '--casual'], /did you mean --causal/],
    [[...given.slice(0, 4), '--v', save('lengths', lengths)], /--v must be float32, float16 or bfloat16/],
  ])('%j', async (argv, message) => {
    const { code, stdout, stderr } = await run(...argv);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(message);
    expect(stderr.trimEnd().split('\n')).toHaveLength(1);
  });
});
