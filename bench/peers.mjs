// This package against ONNX Runtime, and PyTorch, on this machine, side by side: npm run bench:peers -- [options], see --help.
import { readFileSync } from 'node:fs';
import { UsageError } from '../dist/cli/command.js';
import { arePagesChosen, restartInHugePages } from './huge-pages.mjs';
import { writeDocs } from './peers/docs.mjs';
import { HELP, readOptions } from './peers/options.mjs';

async function main() {
  const options = readOptions(process.argv.slice(2));
  if (options.help) return process.stdout.write(HELP);
  if (options.from !== undefined) return writeDocs(readReport(options.from));
  if (!arePagesChosen) restartInHugePages();
  const { run } = await import('./peers/run.mjs');
  await run(options);
}

function readReport(file) {
  let report;
  try {
    report = JSON.parse(readFileSync(file, 'utf8'));
  } catch (error) {
    throw new UsageError(`--from ${file} cannot be read: ${error.message}`);
  }
  if (Array.isArray(report?.comparisons)) return report;
  throw new UsageError(`--from ${file} holds no report of this comparison; --json writes them`);
}

try {
  await main();
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  console.error(`bench:peers: ${error.message.replaceAll('\n', ' ')}`);
  process.exitCode = 1;
}
