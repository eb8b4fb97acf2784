import type { CompareOptions } from '../compare-attention.ts';
import type { Tensor } from '../tensor.ts';
import { formatShape } from '../tensor-layout.ts';
import { readArguments } from './arguments.ts';
import { type Command, type Streams, UsageError } from './command.ts';
import { runLong } from './long-run.ts';
import { readPrecision } from './model-arguments.ts';
import { checkWritable, writeReport } from './output-file.ts';
import { asHeads, type Claim, TENSOR_OPTIONS, TensorFiles } from './verify-inputs.ts';
import { formatMatrix, verifyMachine } from './verify-matrix.ts';
import { formatVerify } from './verify-report.ts';
import { verifyClaim } from './verify-run.ts';

/** The exit code of a verification that fails. */
const FAILED = 2;

const TENSORS = Object.fromEntries(TENSOR_OPTIONS.map((name) => [name, 'value'] as const));

/** `node-sdpa verify`: checks an attention result of your own, or this machine's kernels. */
export const verify: Command = {
  summary: "checks an attention result of your own, or this machine's kernels, against the oracle",
  help: `node-sdpa verify --q FILE --k FILE --v FILE [--expected FILE] [options] [--json FILE]
node-sdpa verify [--json FILE]

Computes attention in float64 and tells whether a result is right: the largest and the relative error against what twice
a naive evaluation would have, the distances in units of the last place, the worst position with the keys of its row, and,
where it is wrong, which of the usual mistakes gives exactly this output. Exit code 0: right; 2: wrong; 1: bad arguments.

Without files: checks this machine's kernels, each ISA, over a matrix of shapes, features and dtypes.

Files are .npy, or .safetensors, from which the tensor named as the option is taken, or FILE.safetensors:NAME.
  --q, --k, --v FILE       [B, H, L, D], or rank 3 without B
  --expected FILE          the output to check; without it, this package's own result is checked
  --lse FILE               its log-sum-exp, [B, H, L], to be checked too
  --layout bhld|blhd       of q, k, v and the output: [B, H, L, D] (default) or [B, L, H, D]

The attention that was meant, as the options of attention() say it:
  --causal                 key j is visible to query i iff j <= queryOffset + i
  --query-offset N         position of the first query; default Lk - Lq (bottom-right); 0: PyTorch's is_causal
  --window LEFT[,RIGHT]    keys before and after the query's position; '-': open. sliding_window N is --window N-1,-
  --sink-tokens N          first keys that stay visible beyond the window
  --scale X, --softcap X
  --mask FILE              bool or uint8, true = attend
  --bias FILE              float, added to the scores
  --alibi-slopes FILE, --sinks FILE
  --kv-lengths FILE        int32 [B]
  --cu-seqlens-q FILE, --cu-seqlens-k FILE
  --precision NAME         highest (default), high or medium: how exactly float32 was to be multiplied

  --json FILE              writes the figures as JSON too; '-': to stdout, in place of the text
`,
  async run(argv: readonly string[], streams: Streams): Promise<number> {
    const given = readArguments(argv, {
      ...TENSORS,
      layout: 'value',
      causal: 'flag',
      'query-offset': 'value',
      window: 'value',
      'sink-tokens': 'value',
      scale: 'value',
      softcap: 'value',
      precision: 'value',
      json: 'value',
    });
    const jsonFile = given.get('json') ?? null;
    if (jsonFile !== null) checkWritable('json', jsonFile);
    const names = [...given.keys()].filter((name) => name !== 'json');
    if (names.length === 0) return verifyKernels(streams, jsonFile);
    const missing = ['q', 'k', 'v'].filter((name) => !given.has(name));
    if (missing.length > 0)
      throw new UsageError(
        `--${names[0]} needs --q, --k and --v; ${missing.map((name) => `--${name}`).join(', ')} missing`,
      );
    const report = verifyClaim(await readClaim(given));
    writeReport(streams, report, (isTerminal) => formatVerify(report, isTerminal), { json: jsonFile });
    return report.pass ? 0 : FAILED;
  },
};

async function verifyKernels(streams: Streams, jsonFile: string | null): Promise<number> {
  const report = await runLong(streams, null, (progress) => verifyMachine(progress));
  writeReport(streams, report, () => formatMatrix(report), { json: jsonFile });
  return report.pass ? 0 : FAILED;
}

async function readClaim(given: ReadonlyMap<string, string>): Promise<Claim> {
  const options = readScoreOptions(given);
  const layout = given.get('layout') ?? 'bhld';
  if (layout !== 'bhld' && layout !== 'blhd')
    throw new UsageError(`--layout must be bhld or blhd; got '${layout}'`);
  const files = new TensorFiles(given);
  const isRagged = given.has('cu-seqlens-q');
  const heads = async (name: string): Promise<Tensor> =>
    asHeads(name, (await files.read(name)) as Tensor, layout, isRagged);
  const [q, k, v] = [await heads('q'), await heads('k'), await heads('v')];
  const expected = given.has('expected') ? await heads('expected') : null;
  const expectedLse = await files.read('lse');
  if (expectedLse !== null && expected === null) throw new UsageError('--lse needs --expected');
  const shape = [...q.shape.slice(0, -1), v.shape[v.rank - 1]];
  if (expected !== null && formatShape(expected.shape) !== formatShape(shape)) {
    throw new UsageError(
      `--expected has the shape ${formatShape(expected.shape)}, and the result of q and v is ${formatShape(shape)}; ` +
        'see --layout',
    );
  }
  const lseShape = shape.slice(0, -1);
  const lse = expectedLse?.rank === 2 && !isRagged ? expectedLse.unsqueeze(0) : expectedLse;
  if (lse !== null && formatShape(lse.shape) !== formatShape(lseShape))
    throw new UsageError(
      `--lse has the shape ${formatShape(lse.shape)}, and that of the result is ${formatShape(lseShape)}`,
    );
  return {
    ...{ q, k, v, expected, expectedLse: lse },
    options: { ...options, ...(await readTensorOptions(files)) },
    notes: files.notes,
  };
}

async function readTensorOptions(files: TensorFiles): Promise<CompareOptions> {
  const mask = await files.read('mask');
  const asBool = mask?.dtype === 'uint8' ? mask.to('bool') : mask;
  const integers = async (name: string): Promise<Int32Array | undefined> => {
    const tensor = await files.read(name);
    if (tensor === null) return undefined;
    if (tensor.dtype === 'int32' && tensor.rank === 1) return Int32Array.from(tensor.toArray() as number[]);
    throw new UsageError(`--${name} must hold int32 [n]; it is ${tensor.dtype} ${formatShape(tensor.shape)}`);
  };
  return {
    mask: asBool,
    bias: await files.read('bias'),
    alibiSlopes: await files.read('alibi-slopes'),
    sinks: await files.read('sinks'),
    kvLengths: await integers('kv-lengths'),
    cuSeqlensQ: await integers('cu-seqlens-q'),
    cuSeqlensK: await integers('cu-seqlens-k'),
  };
}

function readScoreOptions(given: ReadonlyMap<string, string>): CompareOptions {
  const number = (name: string): number | undefined => {
    const text = given.get(name);
    if (text === undefined) return undefined;
    const value = Number(text);
    if (text.trim() !== '' && Number.isFinite(value)) return value;
    throw new UsageError(`--${name} must be a number; got '${text}'`);
  };
  const precision = given.get('precision');
  return {
    causal: given.has('causal'),
    queryOffset: number('query-offset'),
    window: readWindow(given.get('window'), number('sink-tokens')),
    scale: number('scale'),
    softcap: number('softcap'),
    ...(precision === undefined ? {} : { precision: readPrecision(precision) }),
  };
}

function readWindow(text: string | undefined, sinkTokens: number | undefined): CompareOptions['window'] {
  if (text === undefined) {
    if (sinkTokens === undefined) return undefined;
    throw new UsageError('--sink-tokens needs --window');
  }
  const sides = text.split(',').map((side) => side.trim());
  const read = (side: string | undefined): number | undefined => {
    if (side === undefined || side === '-') return undefined;
    if (/^\d+$/.test(side)) return Number(side);
    throw new UsageError(`--window must be LEFT or LEFT,RIGHT, whole numbers or '-'; got '${text}'`);
  };
  if (sides.length > 2) read(text);
  return { left: read(sides[0]), right: read(sides[1]), sinkTokens };
}
