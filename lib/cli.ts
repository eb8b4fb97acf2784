#!/usr/bin/env node
import { main } from './cli/main.ts';

// A reader that has seen enough (`node-sdpa bench | head`) is no error.
process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  if (error.code !== 'EPIPE') throw error;
  process.exit(0);
});
process.exitCode = await main(process.argv.slice(2), process);
