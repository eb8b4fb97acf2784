import { presetNames } from '../modules/presets.ts';
import { readArguments, readCount, readCounts } from './arguments.ts';
import { formatReport } from './bench-report.ts';
import { type BenchRequest, runBench } from './bench-run.ts';
import { type Command, type Streams, UsageError } from './command.ts';
import { writeDocument } from './html/document.ts';
import { runLong } from './long-run.ts';
import {
  DEFAULT_MODEL,
  MAX_CONTEXT,
  MAX_THREADS,
  readCacheDType,
  readModel,
  readPrecision,
} from './model-arguments.ts';
import { checkWritable, isSameFile, type ReportFiles, writeReport } from './output-file.ts';
import { CHUNK } from './workloads.ts';

const DEFAULT_CONTEXTS = [512, 2048, 8192];
/** Curves want more points. */
const PAGE_CONTEXTS = [128, 256, 512, 1024, 2048, 4096, 8192];

/** `node-sdpa bench`: prefill against decode for the attention of one model. */
export const bench: Command = {
  summary: "prefill against decode for a model's attention, on this machine",
  help: `node-sdpa bench [--model NAME | --config FILE] [--context N,N] [--dtype NAME] [--precision NAME] [--threads N]
                [--json FILE] [--html FILE]

Times the attention layers of a model on random data: the whole prompt at once (prefill), the prompt in chunks of
${CHUNK} tokens through a KVCache (chunked), and one more token against a cache of N tokens (decode). Every result is
checked against the float64 oracle first. The ceilings of this machine are measured between the runs: of prefill, its fused multiply-adds
('of FMA'), or, where it has instructions for bfloat16 and the products are of that type, those ('of tiles'); of decode,
a plain read of as many bytes ('of read').

  --model NAME     one of the models below; default ${DEFAULT_MODEL}
  --config FILE    the config.json of a model in the layout of Hugging Face transformers
  --context N,N    context lengths in tokens; default ${DEFAULT_CONTEXTS.join(',')}, and for --html every power of two from
                   ${PAGE_CONTEXTS[0]} on, but no prefill that would take long
  --dtype NAME     float32 (default), float16 or bfloat16: of q, k, v, out and the cache; int8: of the cache, the others
                   are bfloat16
  --precision NAME highest (default), high or medium: how exactly float32 is multiplied, where less is faster
  --threads N      threads that compute; default: all that this process may use
  --json FILE      writes the figures as JSON too; '-': to stdout, in place of the tables
  --html FILE      writes a page with plots too: prefill and decode over the context, the roofline of this machine, the
                   memory of keys and values, native against reference and, where it is installed, onnxruntime-node;
                   one file, to be read without network; '-': to stdout, in place of the tables

models: ${presetNames().join(', ')}
`,
  async run(argv: readonly string[], streams: Streams): Promise<number> {
    const { request, files } = readRequest(argv);
    const report = await runLong(streams, request.threads, (progress) => runBench(request, progress));
    const page = () => writeDocument(report);
    writeReport(streams, report, (isTerminal) => formatReport(report, isTerminal), files, page);
    return 0;
  },
};

function readRequest(argv: readonly string[]): { request: BenchRequest; files: ReportFiles } {
  const given = readArguments(argv, {
    model: 'value',
    config: 'value',
    context: 'value',
    dtype: 'value',
    precision: 'value',
    threads: 'value',
    json: 'value',
    html: 'value',
  });
  const threads = given.get('threads');
  const files = readFiles(given);
  const dtype = readCacheDType(given.get('dtype') ?? 'float32');
  const precision = readPrecision(given.get('precision') ?? 'highest');
  const { name, model } = readModel(given.get('model'), given.get('config'));
  const request = {
    name,
    model,
    ...readContexts(given.get('context'), model.maxPosition, files.html !== null),
    dtype,
    precision,
    threads: threads === undefined ? null : readCount('threads', threads, MAX_THREADS),
    forPage: files.html !== null,
  };
  if (files.json !== null) checkWritable('json', files.json);
  if (files.html !== null) checkWritable('html', files.html);
  return { request, files };
}

function readFiles(given: ReadonlyMap<string, string>): { json: string | null; html: string | null } {
  const [json, html] = [given.get('json') ?? null, given.get('html') ?? null];
  if (json !== null && html !== null && isSameFile(json, html))
    throw new UsageError(`--json and --html cannot both be written to ${json}`);
  return { json, html };
}

/** The contexts asked for, or the default ones that the model is made for. */
function readContexts(
  text: string | undefined,
  maxPosition: number | null,
  forPage: boolean,
): Pick<BenchRequest, 'contexts' | 'leaveOutSlow'> {
  if (text !== undefined) return { contexts: readCounts('context', text, MAX_CONTEXT), leaveOutSlow: false };
  const wanted = forPage ? PAGE_CONTEXTS : DEFAULT_CONTEXTS;
  const contexts = wanted.filter((context) => context <= (maxPosition ?? Infinity));
  return { contexts: contexts.length > 0 ? contexts : [maxPosition as number], leaveOutSlow: true };
}
