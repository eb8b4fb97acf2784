import { getNumThreads, setNumThreads } from '../backend-info.ts';
import { presetNames } from '../modules/presets.ts';
import { readArguments, readCount, readCounts } from './arguments.ts';
import { formatReport } from './bench-report.ts';
import { type BenchRequest, runBench } from './bench-run.ts';
import type { Command, Streams } from './command.ts';
import { exitOnInterrupt } from './interrupt.ts';
import {
  DEFAULT_MODEL,
  MAX_CONTEXT,
  MAX_THREADS,
  readCacheDType,
  readModel,
  readPrecision,
} from './model-arguments.ts';
import { checkWritable, writeReport } from './output-file.ts';
import { ProgressBar } from './progress-bar.ts';

const DEFAULT_CONTEXTS = [512, 2048, 8192];

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
  --dtype NAME     float32 (default), float16 or bfloat16: of q, k, v, out and the cache; int8: of the cache, the others
                   are bfloat16
  --precision NAME highest (default), high or medium: how exactly float32 is multiplied, where less is faster
  --threads N      threads that compute; default: all that this process may use
  --json FILE      writes the figures as JSON too; '-': to stdout, in place of the tables

models: ${presetNames().join(', ')}
`,
  async run(argv: readonly string[], streams: Streams): Promise<number> {
    const { request, jsonFile } = readRequest(argv);
    const threads = getNumThreads();
    if (request.threads !== null) setNumThreads(request.threads);
    const progress = new ProgressBar(streams.stderr);
    const stopListening = exitOnInterrupt(progress);
    try {
      const report = await runBench(request, progress);
      progress.clear();
      writeReport(streams, report, (isTerminal) => formatReport(report, isTerminal), jsonFile);
      return 0;
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
  const dtype = readCacheDType(given.get('dtype') ?? 'float32');
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
  if (jsonFile !== null) checkWritable('json', jsonFile);
  return { request, jsonFile };
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
