import type { ProgressBar } from './progress-bar.ts';

/** Ctrl-C leaves a clean line behind. Returns how to stop listening. */
export function exitOnInterrupt(progress: ProgressBar): () => void {
  const onInterrupt = (): void => {
    progress.clear();
    process.exit(130);
  };
  process.once('SIGINT', onInterrupt);
  return () => process.off('SIGINT', onInterrupt);
}
