// Runs the ```js blocks of a page, in order, as one module, and compares what each prints with the ```text block beneath it.
//
//   node scripts/docs-numbers.mjs [--write] PAGE.md...    without pages: all of docs/
//
// Exit code 1 where a page and its numbers differ; --write puts the numbers into the page instead.
import { spawnSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const MARK = '\u0000';
const JS_BLOCK = /^```js\n(.*?)^```\n(?:\n*^```text\n(.*?)^```\n)?/gms;

/** The blocks of a page: what is run, what is shown beneath, where both stand. */
function blocksOf(page) {
  return [...page.matchAll(JS_BLOCK)].map((match) => {
    const [whole, script, shown] = match;
    const line = page.slice(0, match.index).split('\n').length;
    return { script, shown: shown ?? '', line, begin: match.index, end: match.index + whole.length };
  });
}

/** What each block prints. The module lies inside the package, so that 'node-sdpa' means it. */
function run(name, blocks) {
  const folder = join(root, '.cache');
  mkdirSync(folder, { recursive: true });
  const file = join(folder, `docs-${name.replace(/\W/g, '-')}-${process.pid}.mjs`);
  // A mark before each block, so that what is printed can be told apart.
  writeFileSync(file, blocks.map(({ script }) => `console.log('\\0');\n${script}`).join('\n'));
  const { status, stdout, stderr } = spawnSync(process.execPath, [file], { encoding: 'utf8' });
  rmSync(file);
  if (status !== 0) throw new Error(`${name} does not run:\n${stderr}`);
  return stdout
    .split(`${MARK}\n`)
    .slice(1)
    .map((text) => text.replace(/[ \t]+$/gm, ''));
}

/** The page with its numbers. */
function written(page, blocks, printed) {
  let [text, at] = ['', 0];
  blocks.forEach(({ script, begin, end }, n) => {
    text += `${page.slice(at, begin)}\`\`\`js\n${script}\`\`\`\n`;
    if (printed[n] !== '') text += `\n\`\`\`text\n${printed[n]}\`\`\`\n`;
    at = end;
  });
  return text + page.slice(at);
}

const names = process.argv.slice(2).filter((argument) => argument !== '--write');
const pages = names.length > 0 ? names.map((name) => resolve(name)) : allPages();

function allPages() {
  const folder = join(root, 'docs');
  return readdirSync(folder)
    .filter((name) => name.endsWith('.md'))
    .map((name) => join(folder, name));
}

for (const path of pages) {
  const name = relative(root, path);
  const page = readFileSync(path, 'utf8');
  const blocks = blocksOf(page);
  if (blocks.length === 0) continue;
  const printed = run(name, blocks);
  if (process.argv.includes('--write')) {
    writeFileSync(path, written(page, blocks, printed));
    console.log(`${name}: ${blocks.length} blocks written`);
    continue;
  }
  const wrong = blocks.filter(({ shown }, n) => shown !== printed[n]);
  for (const block of wrong) {
    console.error(
      `${name}:${block.line}: shown\n${block.shown}printed\n${printed[blocks.indexOf(block)]}` +
        `(node scripts/docs-numbers.mjs --write ${name})`,
    );
  }
  if (wrong.length > 0) process.exitCode = 1;
  else console.log(`${name}: ${blocks.length} blocks, the numbers are those shown`);
}
