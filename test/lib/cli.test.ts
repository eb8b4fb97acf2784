import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { expect, test } from 'vitest';
import { VERSION } from '../../lib/version.ts';

// What users run: the compiled file, which 'npm test' has brought up to date.
const program = resolve(import.meta.dirname, '../../dist/cli.js');

test('the program prints its version', () => {
  expect(spawnSync(process.execPath, [program, '--version'], { encoding: 'utf8' })).toMatchObject({
    status: 0,
    stdout: `${VERSION}\n`,
    stderr: '',
  });
});

test('a bad argument is one line and exit code 1', () => {
  expect(
    spawnSync(process.execPath, [program, 'bench', '--threads', '0'], { encoding: 'utf8' }),
  ).toMatchObject({
    status: 1,
    stdout: '',
    stderr: "node-sdpa bench: --threads must be a whole number from 1 to 1024; got '0'\n",
  });
});

const page = join(tmpdir(), `node-sdpa-interrupted-${process.pid}.html`);

test.each<[string, string[]]>([
  ['bench', ['bench', '--model', 'minimind2-small', '--context', '64', '--html', page]],
  // Runs of seconds: nobody waits for them.
  ['bench of long runs', ['bench', '--model', 'llama3-8b', '--context', '16384', '--html', page]],
  ['verify', ['verify', '--json', page]],
])('an interrupt ends a running %s with exit code 130, nothing on stdout and no file', async (_, argv) => {
  // In the midst of it, which takes seconds. On a busy machine a process may take as long to begin: it is then ended by
  // the signal itself, without a code.
  for (const delay of [1000, 4000, 16_000]) {
    const child = spawn(process.execPath, [program, ...argv]);
    let stdout = '';
    child.stdout.on('data', (text) => {
      stdout += text;
    });
    let sent = 0;
    setTimeout(() => {
      sent = performance.now();
      child.kill('SIGINT');
    }, delay);
    const [code, signal] = await once(child, 'exit');
    if (signal === 'SIGINT') continue;
    expect({ code, stdout }).toEqual({ code: 130, stdout: '' });
    expect(performance.now() - sent).toBeLessThan(5000);
    expect(existsSync(page)).toBe(false);
    return;
  }
  expect.fail('the signal ended it every time');
});
