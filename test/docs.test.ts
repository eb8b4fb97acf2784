import { execFile } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, test } from 'vitest';

const root = resolve(import.meta.dirname, '..');
const run = promisify(execFile);

const SKIPPED = /^(node_modules|\..*|build.*|dist|api|coverage|prebuilds)$/;

/** Every page of the repository. */
function pagesUnder(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return SKIPPED.test(entry.name) ? [] : pagesUnder(path);
    return entry.name.endsWith('.md') ? [path] : [];
  });
}

const pages = pagesUnder(root);
const withoutCode = (page: string): string =>
  page.replace(/^```.*?^```$/gms, '').replace(/``.*?``|`[^`\n]*`/g, 'code');

/** The anchors that GitHub gives the headings of a page. */
function anchorsOf(page: string): Set<string> {
  const seen = new Map<string, number>();
  const anchors = new Set<string>();
  for (const [, heading] of page.replace(/^```.*?^```$/gms, '').matchAll(/^#{1,6} +(.*)$/gm)) {
    const text = heading.replace(/\[([^\]]*)\]\([^)]*\)/g, '$1').toLowerCase();
    const slug = text.replace(/[^\p{L}\p{N}\p{M} _-]/gu, '').replace(/ /g, '-');
    const count = seen.get(slug) ?? 0;
    seen.set(slug, count + 1);
    anchors.add(count === 0 ? slug : `${slug}-${count}`);
  }
  return anchors;
}

/** What is wrong with a link of a page; null where it leads somewhere. */
function brokenLink(path: string, link: string): string | null {
  const [target, anchor] = link.split('#');
  const file = target === '' ? path : join(dirname(path), decodeURIComponent(target));
  if (!existsSync(file)) return `${link}: no such file`;
  if (anchor === undefined || !statSync(file).isFile() || !file.endsWith('.md')) return null;
  return anchorsOf(readFileSync(file, 'utf8')).has(anchor) ? null : `${link}: no such heading`;
}

describe('local links', () => {
  test.each(pages.map((page) => relative(root, page)))('%s', (name) => {
    const path = join(root, name);
    const links = [...withoutCode(readFileSync(path, 'utf8')).matchAll(/\]\(([^)\s]+)\)/g)].map(
      ([, link]) => link,
    );
    const local = links.filter((link) => !/^[a-z]+:/.test(link));
    expect(local.map((link) => brokenLink(path, link)).filter((wrong) => wrong !== null)).toEqual([]);
  });

  test('a link that leads nowhere is found', () => {
    const readme = join(root, 'README.md');
    expect(brokenLink(readme, 'docs/NOWHERE.md')).toMatch(/no such file/);
    expect(brokenLink(readme, 'CONTRIBUTING.md#no-such-part')).toMatch(/no such heading/);
    expect(brokenLink(readme, 'CONTRIBUTING.md#the-house')).toBe(null);
  });
});

// Each block is run, and what it prints must stand beneath it: on the best kernels of the machine and on the oracle.
describe('the numbers of the pages', () => {
  test.each(['auto', 'reference'])(
    'by the backend %s',
    async (backend) => {
      const env = { ...process.env, NODE_SDPA_BACKEND: backend };
      const { stdout } = await run(process.execPath, ['scripts/docs-numbers.mjs'], { cwd: root, env });
      expect(stdout).toMatch(/ATTENTION\.md: \d+ blocks, the numbers are those shown/);
    },
    120_000,
  );

  test('a number that is not the one computed is found, and can be written', async () => {
    mkdirSync(join(root, '.cache'), { recursive: true });
    const page = join(root, '.cache', `page-${process.pid}.md`);
    const pageWith = (shown: string): string => `\`\`\`js\nconsole.log(6 * 7);\n\`\`\`\n${shown}\nProse.\n`;
    const check = (...args: string[]) =>
      run(process.execPath, ['scripts/docs-numbers.mjs', ...args, page], { cwd: root });
    for (const shown of ['\n```text\n41\n```\n', '']) {
      writeFileSync(page, pageWith(shown));
      await expect(check()).rejects.toMatchObject({ code: 1 });
    }
    await check('--write');
    expect(readFileSync(page, 'utf8')).toBe(pageWith('\n```text\n42\n```\n'));
    await check();
    rmSync(page);
  });
});
