import { accessSync, constants, readFileSync, statSync, writeFileSync } from 'node:fs';
import { dirname, resolve } from 'node:path';
import { getNumThreads, setNumThreads } from '../backend-info.ts';
import { type DType, isDType, isFloatDType } from '../dtype.ts';
import { SdpaError } from '../errors.ts';
import { describeModel, type ModelDescription } from '../modules/describe-model.ts';
import { presetConfig, presetNames } from '../modules/presets.ts';
import { readArguments, readCount, readCounts } from './arguments.ts';
import { formatReport } from './bench-report.ts';
import { type BenchRequest, runBench } from './bench-run.ts';
import { type Command, type Streams, UsageError } from './command.ts';
import { ProgressBar } from './progress-bar.ts';

const DEFAULT_MODEL = 'llama3-8b';
const DEFAULT_CONTEXTS = [512, 2048, 8192];
const MAX_CONTEXT = 2 ** 24;
const MAX_THREADS = 1024;

/** `node-sdpa bench`: prefill against decode for the attention of one model. */
export const bench: Command = {
  summary: "prefill against decode for a model's attention, on this machine",
  help: `node-sdpa bench [--model NAME | --config FILE] [--context N,N] [--dtype NAME] [--precision NAME] [--threads N]
                [--json FILE]

Times the attention layers of a model on random data: the whole prompt at once (prefill), the prompt in chunks through
a KVCache (chunked), and one more token against a cache of N tokens (decode). Every result is checked against the
float64 oracle first. The ceilings of this machine are measured between the runs: of prefill, its fused multiply-adds
('of FMA'), or, where it has instructions for bfloat16 and the products are of that type, those ('of tiles'); of decode,
a plain read of as many bytes ('of read').

  --model NAME     one of the models below; default ${DEFAULT_MODEL}
  --config FILE    the config.json of a model in the layout of Hugging Face transformers
  --context N,N    context lengths in tokens; default ${DEFAULT_CONTEXTS.join(',')}, those left out that would take long
  --dtype NAME     float32 (default), float16 or bfloat16: of q, k, v, out and the cache
  --precision NAME highest (default), high or medium: how exactly float32 is multiplied, where less is faster
  --threads N      threads that compute; default: all that this process may use
  --json FILE      writes the figures as JSON too; '-': to stdout, in place of the tables

models: ${presetNames().join(', ')}
`,
  async run(argv: readonly string[], streams: Streams): Promise<void> {
    const { request, jsonFile } = readRequest(argv);
    const threads = getNumThreads();
    if (request.threads !== null) setNumThreads(request.threads);
    const progress = new ProgressBar(streams.stderr);
    const stopListening = exitOnInterrupt(progress);
    try {
      const report = await runBench(request, progress);
      progress.clear();
      if (jsonFile !== '-') streams.stdout.write(formatReport(report, streams.stdout.isTTY === true));
      const json = `${JSON.stringify(report, null, 2)}\n`;
      if (jsonFile === '-') streams.stdout.write(json);
      else if (jsonFile !== null) writeFileSync(jsonFile, json);
    } finally {
      progress.clear();
      stopListening();
      setNumThreads(threads);
    }
  },
};

function readRequest(argv: readonly string[]): { request: BenchRequest; jsonFile: string | null } {
  const given = readArguments(argv, {
    model: 'value',
    config: 'value',
    context: 'value',
    dtype: 'value',
    precision: 'value',
    threads: 'value',
    json: 'value',
  });
  const threads = given.get('threads');
  const jsonFile = given.get('json') ?? null;
  const dtype = readDType(given.get('dtype') ?? 'float32');
  const precision = readPrecision(given.get('precision') ?? 'highest');
  const { name, model } = readModel(given.get('model'), given.get('config'));
  const request = {
    name,
    model,
    ...readContexts(given.get('context'), model.maxPosition),
    dtype,
    precision,
    threads: threads === undefined ? null : readCount('threads', threads, MAX_THREADS),
  };
  if (jsonFile !== null && jsonFile !== '-') checkWritable(jsonFile);
  return { request, jsonFile };
}

function readModel(
  preset: string | undefined,
  file: string | undefined,
): { name: string; model: ModelDescription } {
  if (preset !== undefined && file !== undefined) {
    throw new UsageError('--model and --config exclude each other; give one of them');
  }
  if (file === undefined) {
    const name = preset ?? DEFAULT_MODEL;
    return { name, model: speakAs('--model', () => describeModel(presetConfig(name))) };
  }
  const text = readText(file);
  return { name: file, model: speakAs(`--config ${file}`, () => describeModel(text)) };
}

/** Errors of the library in the words of the command line: the option stands in for the function. */
function speakAs<T>(option: string, call: () => T): T {
  try {
    return call();
  } catch (error) {
    if (!(error instanceof SdpaError)) throw error;
    throw new UsageError(error.message.replace(/^\w+:/, `${option}:`));
  }
}

function readText(file: string): string {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    throw new UsageError(`--config ${file} cannot be read: ${(error as Error).message}`);
  }
}

/** The contexts asked for, or the default ones that the model is made for. */
function readContexts(
  text: string | undefined,
  maxPosition: number | null,
): Pick<BenchRequest, 'contexts' | 'leaveOutSlow'> {
  if (text !== undefined) return { contexts: readCounts('context', text, MAX_CONTEXT), leaveOutSlow: false };
  const contexts = DEFAULT_CONTEXTS.filter((context) => context <= (maxPosition ?? Infinity));
  return { contexts: contexts.length > 0 ? contexts : [maxPosition as number], leaveOutSlow: true };
}

function readDType(name: string): DType {
  if (isDType(name) && isFloatDType(name)) return name;
  throw new UsageError(`--dtype must be float32, float16 or bfloat16; got '${name}'`);
}

function readPrecision(name: string): BenchRequest['precision'] {
  if (name === 'highest' || name === 'high' || name === 'medium') return name;
  throw new UsageError(`--precision must be highest, high or medium; got '${name}'`);
}

/** Tells before the long run what would fail after it. */
export function checkWritable(file: string): void {
  try {
    if (statSync(file, { throwIfNoEntry: false })?.isDirectory()) throw new Error('it is a directory');
    accessSync(dirname(resolve(file)), constants.W_OK);
  } catch (error) {
    throw new UsageError(`--json ${file} cannot be written: ${(error as Error).message}`);
  }
}

/** Ctrl-C leaves a clean line behind. Returns how to stop listening. */
function exitOnInterrupt(progress: ProgressBar): () => void {
  const onInterrupt = (): void => {
    progress.clear();
    process.exit(130);
  };
  process.once('SIGINT', onInterrupt);
  return () => process.off('SIGINT', onInterrupt);
}
