// ONNX Runtime, installed beside the checkout: it is a comparator, 290 MB large, and no dependency of anybody's.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join, resolve } from 'node:path';
import { UsageError } from '../../dist/cli/command.js';

const PACKAGE = 'onnxruntime-node';
export const VERSION = '1.30.0';
const folder = resolve(import.meta.dirname, '../../.cache/peers');

/** The module onnxruntime-node, which is installed first where it is missing. @throws UsageError in one line */
export function loadRuntime() {
  if (!isInstalled()) install();
  try {
    return createRequire(join(folder, 'package.json'))(PACKAGE);
  } catch (error) {
    throw new UsageError(`${PACKAGE} ${VERSION} does not load on this machine: ${firstLine(error.message)}`);
  }
}

function isInstalled() {
  const manifest = join(folder, 'node_modules', PACKAGE, 'package.json');
  return existsSync(manifest) && JSON.parse(readFileSync(manifest, 'utf8')).version === VERSION;
}

function install() {
  console.error(`bench:peers: installing ${PACKAGE} ${VERSION} into .cache/peers`);
  mkdirSync(folder, { recursive: true });
  writeFileSync(
    join(folder, 'package.json'),
    `${JSON.stringify({ private: true, dependencies: { [PACKAGE]: VERSION } }, null, 2)}\n`,
  );
  // Its install script only fetches CUDA.
  const args = ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--no-package-lock'];
  const npm = process.env.npm_execpath;
  const options = { cwd: folder, encoding: 'utf8', stdio: ['ignore', 'ignore', 'pipe'] };
  const { status, stderr, error } = npm
    ? spawnSync(process.execPath, [npm, ...args], options)
    : spawnSync('npm', args, { ...options, shell: process.platform === 'win32' });
  if (error === undefined && status === 0) return;
  const reason =
    error?.message ?? stderr.split('\n').find((line) => /^npm (error|ERR!)/.test(line)) ?? stderr;
  throw new UsageError(
    `${PACKAGE} ${VERSION} cannot be installed into ${folder} (${firstLine(reason)}): ` +
      'the comparison needs the npm registry once, or that folder from a machine that has it',
  );
}

function firstLine(text) {
  return text.trim().split('\n')[0];
}
