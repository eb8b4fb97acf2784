// The command line of the comparison.
import { readArguments } from '../../dist/cli/arguments.js';
import { UsageError } from '../../dist/cli/command.js';
import { checkWritable } from '../../dist/cli/output-file.js';

export const HELP = `Times this package against ONNX Runtime, and PyTorch where it is, on this machine, some fifteen minutes long, and
writes docs/PEERS.md and docs/peers.svg.

npm run bench:peers -- [options]

  --quick        one prompt and one decode step, in under a minute; docs/ stays as it is
  --long         a decode step against 32768 keys too (3 GiB of memory)
  --python FILE  a Python that has PyTorch, which is compared too; also in bfloat16
  --json FILE    writes all that was measured, as JSON
  --from FILE    measures nothing: writes docs/ from such a file
  --help         this

The first run installs onnxruntime-node into .cache/peers (290 MB).
`;

const KINDS = { quick: 'flag', long: 'flag', python: 'value', json: 'value', from: 'value', help: 'flag' };
/** Which of them say how to measure: with --from there is nothing to measure. */
const OF_MEASURING = ['quick', 'long', 'python', 'json'];

/** @throws UsageError for what cannot be, in one line */
export function readOptions(argv) {
  if (argv.includes('-h')) return { help: true };
  const given = readArguments(argv, KINDS);
  const options = {
    help: given.has('help'),
    isQuick: given.has('quick'),
    isLong: given.has('long'),
    python: given.get('python'),
    json: given.get('json'),
    from: given.get('from'),
  };
  if (options.isQuick && options.isLong) throw new UsageError('--quick and --long exclude each other');
  const superfluous = OF_MEASURING.find((name) => options.from !== undefined && given.has(name));
  if (superfluous !== undefined)
    throw new UsageError(`--${superfluous} says how to measure; --from measures nothing`);
  if (options.json !== undefined) checkWritable('json', options.json);
  return options;
}
