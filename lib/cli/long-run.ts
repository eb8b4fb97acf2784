import { getNumThreads, setNumThreads } from '../backend-info.ts';
import type { Streams } from './command.ts';
import { ProgressBar } from './progress-bar.ts';

/**
 * What a command does that takes a while: with its own number of threads, where it asks for one, and a bar that Ctrl-C leaves
 * clean.
 *
 * @returns what `work` returns; the bar is gone by then, and the number of threads as before
 */
export async function runLong<T>(
  streams: Streams,
  threads: number | null,
  work: (progress: ProgressBar) => T | Promise<T>,
): Promise<T> {
  const before = getNumThreads();
  if (threads !== null) setNumThreads(threads);
  const progress = new ProgressBar(streams.stderr);
  const onInterrupt = (): void => {
    progress.clear();
    process.exit(130);
  };
  process.once('SIGINT', onInterrupt);
  try {
    return await work(progress);
  } finally {
    progress.clear();
    process.off('SIGINT', onInterrupt);
    setNumThreads(before);
  }
}
