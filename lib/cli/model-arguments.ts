import { readFileSync } from 'node:fs';
import { SdpaError } from '../errors.ts';
import { type CacheDType, describeModel, type ModelDescription } from '../modules/describe-model.ts';
import { presetConfig } from '../modules/presets.ts';
import type { AttentionProblem } from '../problem.ts';
import { UsageError } from './command.ts';

/** What the commands take that speak of a model. */
export const DEFAULT_MODEL = 'llama3-8b';
export const MAX_CONTEXT = 2 ** 24;
export const MAX_THREADS = 1024;

/** The model of `--model` or `--config`. */
export function readModel(
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

/** `--precision`. */
export function readPrecision(name: string): AttentionProblem['precision'] {
  if (name === 'highest' || name === 'high' || name === 'medium') return name;
  throw new UsageError(`--precision must be highest, high or medium; got '${name}'`);
}

/** `--dtype`, of a cache. */
export function readCacheDType(name: string): CacheDType {
  if (name === 'float32' || name === 'float16' || name === 'bfloat16' || name === 'int8') return name;
  throw new UsageError(`--dtype must be float32, float16, bfloat16 or int8; got '${name}'`);
}
