import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { writeDocument } from '../../../../lib/cli/html/document.ts';
import { Browser, chromium } from './chromium.ts';
import { makeReport } from './report.ts';

if (chromium === null) console.log('pages are not looked at: no chromium here (CHROMIUM names one)');

/** In the page: labels of a drawing that cover each other or leave the window. */
const FAULTS = `(() => {
  const faults = [];
  for (const svg of document.querySelectorAll('svg')) {
    const title = svg.querySelector('title').textContent;
    const labels = [...svg.querySelectorAll('text')].filter((text) => !/rotate\\(-?[1-9]/.test(text.getAttribute('transform') ?? ''));
    const boxes = labels.map((text) => ({ text: text.textContent, box: text.getBoundingClientRect() }));
    for (const [i, { text, box }] of boxes.entries()) {
      if (box.left < 0 || box.right > innerWidth) faults.push(title + ': ' + text + ' leaves the window');
      for (const other of boxes.slice(i + 1)) {
        const across = Math.min(box.right, other.box.right) - Math.max(box.left, other.box.left);
        const down = Math.min(box.bottom, other.box.bottom) - Math.max(box.top, other.box.top);
        if (across > 1 && down > 3) faults.push(title + ': ' + text + ' covers ' + other.text);
      }
    }
  }
  return faults;
})()`;

describe.skipIf(chromium === null)('in a browser', () => {
  const folder = mkdtempSync(join(tmpdir(), 'node-sdpa-page-'));
  let browser: Browser;
  beforeAll(async () => {
    browser = new Browser(chromium as string);
    await browser.open();
  });
  afterAll(async () => {
    await browser?.close();
    rmSync(folder, { recursive: true, force: true });
  });

  test.each(['gemma3-27b', 'llama3-8b', 'qwen3.6-27b', 'deepseek-v3'])(
    'the page of %s fits a phone and a desk, in light and dark',
    async (preset) => {
      const file = join(folder, `${preset}.html`);
      writeFileSync(
        file,
        writeDocument(makeReport({ name: `${preset} <script>console.log(1)</script>` }, preset)),
      );
      for (const [width, scheme] of [
        [360, 'light'],
        [360, 'dark'],
        [1280, 'light'],
        [1280, 'dark'],
      ] as const) {
        await browser.show(pathToFileURL(file).href, width, scheme);
        expect(await browser.evaluate('document.documentElement.scrollWidth')).toBe(width);
        expect(await browser.evaluate(FAULTS)).toEqual([]);
        expect(await browser.evaluate('getComputedStyle(document.body).backgroundColor')).toBe(
          scheme === 'light' ? 'rgb(255, 255, 255)' : 'rgb(15, 20, 25)',
        );
        expect(await browser.evaluate('document.querySelectorAll("svg").length')).toBeGreaterThanOrEqual(8);
      }
      expect((await browser.screenshot()).length).toBeGreaterThan(100_000);
      expect(browser.complaints).toEqual([]);
    },
  );

  test('a page that loads something is complained of: the check checks', async () => {
    const file = join(folder, 'bad.html');
    writeFileSync(file, '<!doctype html><p>x<img src="http://127.0.0.1:9/x.png"><script>nothing()</script>');
    await browser.show(pathToFileURL(file).href, 360, 'light');
    expect(browser.complaints.join()).toMatch(/asks for http.*ReferenceError/s);
    browser.complaints.length = 0;
  });
});
