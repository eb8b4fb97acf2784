// docs/PEERS.md: the tables of a report, and what is to be known about them.
import { defaultPagesTable, routesTable, sideEffectsTable, timeTables } from './tables.mjs';

const INTRODUCTION = `One attention layer of Llama 3 8B: 32 query heads, 8 key/value heads, head size 128, one sequence, random numbers, the
same number of threads for all. Times of ONNX Runtime are those that a caller in Node sees, by \`session.run\`; those of
PyTorch, where it was there, those that a caller in Python sees. Both are made for whole models on many kinds of hardware;
compared is their attention on the CPU alone.`;

const ROWS = `## What the rows are

- \`node-sdpa attention\` reads q, k and v where GroupQueryAttention does, and makes no cache. \`KVCache.step\` appends and
  attends; so does \`GroupQueryAttention\`, in prefill too. Ours write into a given \`out\`; the result of ONNX Runtime is
  a new tensor, as it would be with one given.
- \`GroupQueryAttention\` (com.microsoft) and \`Attention\` (ONNX opset 23 and 24), plain: the operator keeps the cache. In
  decode the past goes in and the present comes out, into a new tensor, a given one, or the buffer that holds the past.
- *cache kept by hand*: nobody fetches the present. The caller writes the new row into typed arrays of its own, which is
  timed, and has to find larger ones when they are full.
- \`MultiHeadAttention\` (com.microsoft) knows no groups. In prefill k and v are repeated for each query head beforehand,
  which is not timed; in decode the heads of a group are passed as queries of one head.
- *full cache*: k and v lie there with the newest token among them, in tensors exactly that long. Nothing is appended, and
  keys that are stored transposed cannot be without moving all of them: a bound, not a decode step.
- \`PyTorch SDPA\` is \`torch.nn.functional.scaled_dot_product_attention\`, causal in prefill. In decode the caller writes the
  new row into tensors of its own, which is timed; the query sees all keys.
- In bfloat16 there is no row of ONNX Runtime: its binding for Node has no such tensors.`;

const METHOD = `## How it was measured

- Every result is held against \`referenceAttention\` (float64) at sampled queries and heads before it is timed; **error** is the
  largest relative one (Frobenius) of a sample. In 16 bits the rounding of the result is most of it.
- All systems run once a round, the order moving on by one; those of Node in one process, PyTorch in another while this one
  waits, by its own clock. Before each run the garbage is collected, the threads of the run before have gone to sleep, and
  the processor's caches hold other data. **ms** is the median over the rounds, **to ours** the median of the ratios to
  the first row within a round. **Back to back** is the mean of runs without a pause between them, by the benchmark package.
- Each row of a peer is the fastest of several routes (the last table); idle threads of ONNX Runtime spin, as they do by
  default, or sleep.
- The process starts with \`GLIBC_TUNABLES=glibc.malloc.hugetlb=1\`, which puts the memory of JavaScript and of ONNX Runtime
  into huge pages, where a KVCache lies anyway; likewise for PyTorch. That favours the peers; a table below is without.`;

const SIDE_EFFECTS = `What a step copies of the whole cache, in the operator and on the way back to JavaScript: ONNX
Runtime's binding for Node copies each fetched tensor into a new one, the given and the shared ones too. RSS growth is the
peak over 16 steps, or 4 prompts, above what the process had with inputs, session or cache, and given tensors in place. The wait is how
much later than due a timer of 1 ms fired at most in as many runs: \`session.run\` returns a promise and computes on the
event loop. Each system in a process of its own.`;

const DEFAULT_PAGES =
  'Without GLIBC_TUNABLES. Whatever makes tensors of tens of MiB in each run pays for their pages.';

/** The machine and the versions in one line. */
export function describeMachine({ machine, versions }) {
  const pytorch = versions.pytorch ? `PyTorch ${versions.pytorch}, ` : '';
  const cores = `${machine.cores} core${machine.cores === 1 ? '' : 's'}`;
  return (
    `${machine.cpu}, ${cores}, ${machine.memoryGiB} GiB, ${machine.platform}; node-sdpa ${versions.nodeSdpa} ` +
    `(${machine.isa}), onnxruntime-node ${versions.runtime}, ${pytorch}Node ${versions.node}`
  );
}

/** The whole document, as Markdown. */
export function writeDocument(report) {
  const { isLong, versions } = report;
  const options = [...(isLong ? ['--long'] : []), ...(versions.pytorch ? ['--python python3'] : [])];
  const command = ['npm run bench:peers', ...(options.length > 0 ? ['--', ...options] : [])].join(' ');
  const sections = [
    `# Against ONNX Runtime${versions.pytorch ? ' and PyTorch' : ''}`,
    `Written by \`${command}\`, which anyone can run. ${describeMachine(report)}.`,
    INTRODUCTION,
    '![Milliseconds of each system as bars](peers.svg)',
    ROWS,
    ...timeTables(report).map((table) => formatSection(table)),
    METHOD,
    formatSection(sideEffectsTable(report), SIDE_EFFECTS),
    formatSection(defaultPagesTable(report), DEFAULT_PAGES),
    formatSection(routesTable(report)),
  ];
  return `${sections.filter((section) => section !== null).join('\n\n')}\n`;
}

function formatSection(table, note) {
  if (table === null) return null;
  const { title, head, rows, numLabels } = table;
  const formatRow = (cells) => `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  const rule = head.map((_, j) => (j < numLabels ? '---' : '---:'));
  const lines = [`## ${title}`, '', ...(note === undefined ? [] : [note, ''])];
  return [...lines, formatRow(head), formatRow(rule), ...rows.map(formatRow)].join('\n');
}
