import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeEach, describe, expect, test, vi } from 'vitest';
import { main } from '../../../../lib/cli/main.ts';
import { writeReport } from '../../../../lib/cli/output-file.ts';

// Where it is installed it would be timed for seconds; test/lib/cli/onnx does that.
vi.mock('../../../../lib/cli/onnx/runtime.ts', () => ({
  PACKAGE: 'onnxruntime-node',
  findRuntime: () => null,
}));

const root = mkdtempSync(join(tmpdir(), 'node-sdpa-html-'));
afterAll(() => rmSync(root, { recursive: true, force: true }));
const config = join(root, 'tiny.json');
writeFileSync(
  config,
  JSON.stringify({
    model_type: 'llama',
    hidden_size: 32,
    num_hidden_layers: 2,
    num_attention_heads: 2,
    num_key_value_heads: 1,
  }),
);

/** An empty one for each test. */
let folder: string;
let count = 0;
beforeEach(() => {
  folder = join(root, String(count++));
  mkdirSync(folder);
});

async function run(...argv: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const written = { stdout: '', stderr: '' };
  const stream = (name: 'stdout' | 'stderr') => ({
    write: (text: string) => {
      written[name] += text;
    },
  });
  const code = await main(['bench', ...argv], { stdout: stream('stdout'), stderr: stream('stderr') });
  return { code, ...written };
}

const quick = ['--config', config, '--context', '16', '--threads', '1'];

describe('bench --html', () => {
  test('writes the page beside the tables and the JSON, and nothing else', async () => {
    const [html, json] = [join(folder, 'page.html'), join(folder, 'page.json')];
    const { code, stdout, stderr } = await run(...quick, '--html', html, '--json', json);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toContain('Native against reference');
    expect(readdirSync(folder).sort()).toEqual(['page.html', 'page.json']);
    const page = readFileSync(html, 'utf8');
    const { rows, page: figures } = JSON.parse(readFileSync(json, 'utf8'));
    expect(page).toMatch(/^<!doctype html>\n<html lang="en">[\s\S]*<\/html>\n$/);
    expect(page).toContain(`${rows[0].context}</td>`);
    expect(page).toContain('npm install onnxruntime-node');
    expect(figures.ceilings.read).toBeGreaterThan(0);
    expect(figures.kv.length).toBeGreaterThan(0);
  });

  test('- is stdout, in place of the tables; an encoder has a page too', async () => {
    const encoder = join(folder, 'encoder.json');
    writeFileSync(encoder, readFileSync(config, 'utf8').replace('llama', 'bert'));
    const { code, stdout } = await run('--config', encoder, '--context', '16', '--html', '-');
    expect(code).toBe(0);
    expect(stdout).toContain('The model is not causal');
    expect(stdout).toMatch(/^<!doctype html>\n[\s\S]*<\/html>\n$/);
  });

  test.each([
    [['--html', join(root, 'none', 'x.html')], /^node-sdpa bench: --html .* cannot be written: ENOENT.*\n$/],
    [['--html', root], /^node-sdpa bench: --html .* cannot be written: it is a directory\n$/],
    [['--html', '-', '--json', '-'], /^node-sdpa bench: --json and --html cannot both be written to -\n$/],
    [['--html', join(root, 'a'), '--json', join(root, '.', 'a')], /cannot both be written to .*a\n$/],
    [['--html'], /--html needs a value/],
    [['--htm', 'x'], /did you mean --html\?/],
  ])('refuses %j, in one line, before it measures', async (argv, message) => {
    const { code, stdout, stderr } = await run(...quick, ...argv);
    expect({ code, stdout }).toEqual({ code: 1, stdout: '' });
    expect(stderr).toMatch(message);
  });
});

describe('files are written whole', () => {
  const streams = { stdout: { write: () => {} }, stderr: { write: () => {} } };
  const write = (html: string, page: () => string): void =>
    writeReport(streams, {}, () => '', { json: null, html }, page);

  test('what was there stays until the new one is complete, through a link, with its permissions', () => {
    const [file, link] = [join(folder, 'file'), join(folder, 'link')];
    writeFileSync(file, 'old');
    chmodSync(file, 0o640);
    symlinkSync(file, link);
    write(link, () => {
      expect(readFileSync(file, 'utf8')).toBe('old');
      return 'new';
    });
    expect(readFileSync(file, 'utf8')).toBe('new');
    expect(statSync(file).mode & 0o777).toBe(0o640);
    expect(readdirSync(folder).sort()).toEqual(['file', 'link']);
  });

  test('a page that cannot be made leaves nothing', () => {
    const fail = (): string => {
      throw new Error('no page');
    };
    expect(() => write(join(folder, 'x'), fail)).toThrow('no page');
    expect(readdirSync(folder)).toEqual([]);
  });

  test('a folder that is gone by then is told in one line', () => {
    expect(() => write(join(folder, 'gone', 'x'), () => 'page')).toThrow(
      /--html .* cannot be written: ENOENT/,
    );
  });

  test('a device is written to as it is', () => {
    if (process.platform === 'win32') return;
    write('/dev/null', () => 'page');
    expect(statSync('/dev/null').isFile()).toBe(false);
  });
});
