import { presetNames } from '../modules/presets.ts';
import { readArguments, readCount, readCounts } from './arguments.ts';
import { type Command, type Streams, UsageError } from './command.ts';
import { runLong } from './long-run.ts';
import {
  DEFAULT_MODEL,
  MAX_CONTEXT,
  MAX_THREADS,
  readCacheDType,
  readModel,
  readPrecision,
} from './model-arguments.ts';
import { checkWritable, writeReport } from './output-file.ts';
import { formatPlan } from './plan-report.ts';
import { type PlanRequest, runPlan } from './plan-run.ts';

const DEFAULT_CONTEXTS = [512, 4096, 32768];

/** `node-sdpa plan`: what a model's attention costs. */
export const plan: Command = {
  summary: "what a model's attention costs: memory, operations, and time on this machine",
  help: `node-sdpa plan [--model NAME | --config FILE] [--context N,N] [--dtype NAME,NAME] [--precision NAME]
               [--memory SIZE] [--threads N] [--no-times] [--json FILE]

Works out from a config.json what its attention layers cost: bytes of keys and values, of layers that see all, of those
with a window and of linear ones apart; floating-point operations of prefill and of a decode step; and the times that they
should take here. For these it measures one layer of each kind at a small size, beside the ceilings of this machine.

  --model NAME     one of the models below; default ${DEFAULT_MODEL}
  --config FILE    the config.json of a model in the layout of Hugging Face transformers
  --context N,N    context lengths in tokens; default ${DEFAULT_CONTEXTS.join(',')} and the model's longest
  --dtype NAME,... float32, float16, bfloat16, int8: of the cache, and of q (bfloat16 beside int8); default bfloat16,int8
  --precision NAME highest (default), high or medium: how exactly float32 is multiplied, where less is faster
  --memory SIZE    such as 24GiB or 16GB: tells what fits into it
  --threads N      threads that compute; default: all that this process may use
  --no-times       measures nothing
  --json FILE      writes the figures as JSON too; '-': to stdout, in place of the tables

models: ${presetNames().join(', ')}
`,
  async run(argv: readonly string[], streams: Streams): Promise<number> {
    const { request, jsonFile } = readRequest(argv);
    const report = await runLong(streams, request.threads, (progress) => runPlan(request, progress));
    writeReport(streams, report, (isTerminal) => formatPlan(report, isTerminal), { json: jsonFile });
    return 0;
  },
};

function readRequest(argv: readonly string[]): { request: PlanRequest; jsonFile: string | null } {
  const given = readArguments(argv, {
    model: 'value',
    config: 'value',
    context: 'value',
    dtype: 'value',
    precision: 'value',
    memory: 'value',
    threads: 'value',
    'no-times': 'flag',
    json: 'value',
  });
  const [threads, memory] = [given.get('threads'), given.get('memory')];
  const jsonFile = given.get('json') ?? null;
  const dtypes = (given.get('dtype') ?? 'bfloat16,int8')
    .split(',')
    .map((name) => readCacheDType(name.trim()));
  const precision = readPrecision(given.get('precision') ?? 'highest');
  const { name, model } = readModel(given.get('model'), given.get('config'));
  const request = {
    name,
    model,
    contexts: readContexts(given.get('context'), model.maxPosition),
    dtypes: [...new Set(dtypes)],
    precision,
    memory: memory === undefined ? null : readSize('memory', memory),
    times: !given.has('no-times'),
    threads: threads === undefined ? null : readCount('threads', threads, MAX_THREADS),
  };
  if (jsonFile !== null) checkWritable('json', jsonFile);
  return { request, jsonFile };
}

function readContexts(text: string | undefined, maxPosition: number | null): number[] {
  if (text !== undefined) return readCounts('context', text, MAX_CONTEXT);
  const longest = maxPosition ?? Infinity;
  const contexts = DEFAULT_CONTEXTS.filter((context) => context < longest);
  return maxPosition === null ? contexts : [...contexts, Math.min(maxPosition, MAX_CONTEXT)];
}

const UNITS: Readonly<Record<string, number>> = {
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  KiB: 2 ** 10,
  MiB: 2 ** 20,
  GiB: 2 ** 30,
  TiB: 2 ** 40,
};

/** Bytes of '24GiB' or '16 GB'. */
export function readSize(name: string, text: string): number {
  const [, digits, unit] = /^(\d+(?:\.\d+)?)\s*([KMGT]i?B)$/.exec(text) ?? [];
  const bytes = Number(digits) * (UNITS[unit] ?? Number.NaN);
  if (bytes >= 1 && bytes <= 2 ** 53) return bytes;
  throw new UsageError(
    `--${name} must be a size such as 24GiB or 16GB, with one of ${Object.keys(UNITS).join(', ')}; got '${text}'`,
  );
}
