import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { afterAll, afterEach, describe, expect, test, vi } from 'vitest';
import { measurePeers } from '../../../../lib/cli/onnx/peers.ts';
import type { PeerRequest } from '../../../../lib/cli/onnx/systems.ts';
import { Tensor } from '../../../../lib/index.ts';

const root = mkdtempSync(join(tmpdir(), 'node-sdpa-peers-'));
afterEach(() => vi.restoreAllMocks());
afterAll(() => rmSync(root, { recursive: true, force: true }));

const shape = { numHeads: 4, numKvHeads: 2, headDim: 16, valueDim: 16 };
const request: PeerRequest = {
  group: { name: 'full', count: 1, shape, decodeShape: shape, window: Infinity },
  scores: { scale: 0.3 },
  dtype: 'float32',
  causal: true,
  threads: 1,
  contexts: { prefill: 24, decode: 40 },
};

describe('what is not compared, and why', () => {
  const latent = { ...shape, headDim: 24 };
  test.each<[Partial<PeerRequest>, RegExp]>([
    [{ dtype: 'bfloat16' }, /no tensors of bfloat16; --dtype float32 compares/],
    [{ dtype: 'int8' }, /no tensors of int8/],
    [{ causal: false }, /not causal/],
    [{ group: { ...request.group, window: 8 } }, /every layer has a window/],
    [{ group: { ...request.group, shape: latent } }, /latent attention/],
    [{ scores: { softcap: 30 } }, /caps, biases or sinks/],
    [{ scores: { sinks: Tensor.zeros([4]) } }, /caps, biases or sinks/],
  ])('%j', async (changes, note) => {
    expect(await measurePeers({ ...request, ...changes })).toEqual({
      engine: null,
      rows: [],
      note: expect.stringMatching(note),
    });
  });
});

/** A folder in which the package is what `source` says. */
function pretend(name: string, source: string): void {
  const folder = join(root, name);
  const place = join(folder, 'node_modules', 'onnxruntime-node');
  mkdirSync(place, { recursive: true });
  writeFileSync(join(place, 'package.json'), '{ "version": "9.9.9", "main": "index.js" }');
  writeFileSync(join(place, 'index.js'), source);
  vi.spyOn(process, 'cwd').mockReturnValue(folder);
}

describe('a package that is installed and does not do', () => {
  test('one that does not load is told, in one line', async () => {
    pretend('broken', "throw new Error('no such library\\nat all')");
    expect(await measurePeers(request)).toEqual({
      engine: null,
      rows: [],
      note: 'ONNX Runtime was not compared further: no such library',
    });
  });

  test('one that gives wrong numbers is not timed', async () => {
    pretend(
      'wrong',
      `class Tensor { constructor(type, data, dims) { Object.assign(this, { type, data, dims }); } }
       const run = async ({ q }) => ({ out: { data: new Float32Array(q.data.length), dims: q.dims } });
       module.exports = { Tensor, InferenceSession: { create: async () => ({ run, release() {} }) } };`,
    );
    const { rows, note } = await measurePeers(request);
    expect(rows).toEqual([]);
    expect(note).toMatch(/^ONNX Runtime was not compared further: the result is wrong at query/);
  });
});

const isInstalled = existsSync(
  resolve(import.meta.dirname, '../../../../.cache/peers/node_modules/onnxruntime-node'),
);
if (!isInstalled)
  console.log('ONNX Runtime is not compared: it is not installed (npm run bench:peers installs it)');

test.skipIf(!isInstalled).each(['float32', 'float16'] as const)(
  'ONNX Runtime, %s: right, and timed in turn with ours',
  async (dtype) => {
    const { engine, rows, note } = await measurePeers({ ...request, dtype }, { seconds: 0, minRounds: 1 });
    expect(note).toBe(null);
    expect(engine).toMatch(/^ONNX Runtime \d+\.\d+/);
    const operators = rows.map(({ phase, context, system }) => [phase, context, system]);
    expect(operators).toEqual(
      (['prefill', 'decode'] as const).flatMap((phase) =>
        ['node-sdpa', 'GroupQueryAttention', 'Attention'].map((system) => [
          phase,
          request.contexts[phase],
          system,
        ]),
      ),
    );
    for (const { milliseconds, ratio } of rows) expect(Math.min(milliseconds, ratio)).toBeGreaterThan(0);
  },
);
