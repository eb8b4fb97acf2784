// docs/PEERS.md: the tables of a report, and what is to be known about them.
import { defaultPagesTable, routesTable, sideEffectsTable, timeTables } from './tables.mjs';

const INTRODUCTION = `One attention layer of Llama 3 8B: 32 query heads, 8 key/value heads, head size 128, one sequence, random numbers, the
same number of threads for all. The times of ONNX Runtime are those that a caller in Node sees, of \`session.run\`; those
of PyTorch, if it was measured, those that a caller in Python sees. Both run whole models on many kinds of hardware; only
their attention on the CPU is compared here.`;

const ROWS = `## What the rows are

- \`node-sdpa attention\` takes the same q, k and v as GroupQueryAttention, and keeps no cache. \`KVCache.step\` appends and
  attends, and so does \`GroupQueryAttention\`, in prefill too. Ours write into a given \`out\`; ONNX Runtime returns a new
  tensor, even if one is given.
- \`GroupQueryAttention\` (com.microsoft) and \`Attention\` (ONNX opset 23 and 24), plain: the operator keeps the cache. In
  decode the past goes in and the present comes out, into a new tensor, a given one, or the buffer that holds the past.
- *cache kept by hand*: the present is not fetched. The caller writes the new row into typed arrays of its own, which is
  timed, and has to allocate larger ones when they are full.
- \`MultiHeadAttention\` (com.microsoft) has no grouped heads. In prefill k and v are repeated for each query head
  beforehand, which is not timed; in decode the heads of a group are passed as queries of one head.
- *full cache*: k and v already contain the newest token, in tensors of exactly that length. Nothing is appended, and keys
  stored transposed could not be appended to without moving all of them: this is a bound, not a decode step.
- \`PyTorch SDPA\` is \`torch.nn.functional.scaled_dot_product_attention\`, causal in prefill. In decode the caller writes the
  new row into tensors of its own, which is timed; the query sees all keys.
- There is no row of ONNX Runtime in bfloat16, since its binding for Node has no such tensors.`;

const METHOD = `## How it was measured

- Every result is checked against \`referenceAttention\` (float64) at sampled queries and heads before it is timed;
  **error** is the largest relative error (Frobenius) of a sample, against its result rounded to the dtype of the row.
- All systems run once per round, in an order that rotates: those of Node in one process; PyTorch in another, by its own
  clock, while the first one waits. Before each run the garbage is collected, the threads of the previous run have gone to
  sleep, and the processor's caches hold other data. **ms** is the median over the rounds, **to ours** the median of the
  ratios to the first row within a round. **Back to back** is the mean of runs without pauses, measured by the
  \`benchmark\` package.
- Each row of a peer is the fastest of several ways to call it (the last table); idle threads of ONNX Runtime spin, as they
  do by default, or sleep.
- The process starts with \`GLIBC_TUNABLES=glibc.malloc.hugetlb=1\`, which puts the memory of JavaScript and of ONNX Runtime
  into huge pages, where a KVCache is anyway; so does that of PyTorch. That favours the peers; one table below is without it.`;

const SIDE_EFFECTS = `*Copied* is what a step copies of the whole cache, in the operator and on the way back to JavaScript: ONNX Runtime's
binding for Node copies each fetched tensor into a new one, even if it is given or shared. *RSS growth* is the peak over
16 steps, or 4 prompts, above what the process had with inputs, session or cache, and given tensors in place. *Longest
wait* is how late a timer of 1 ms fired at most during these runs: \`session.run\` returns a promise but computes on the
event loop. Each system runs in a process of its own.`;

const DEFAULT_PAGES =
  'Without GLIBC_TUNABLES. Whatever allocates tensors of tens of MiB in each run pays for their pages.';

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
