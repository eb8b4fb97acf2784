// Brings a checkout up to date: npm packages, the addon, dist/. Each step runs only when its inputs changed, so
// that `npm test` and `npm run bench` can call this first on a fresh clone as well as on a warm tree.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join, resolve } from 'node:path';
import { headerOptions } from './node-headers.mjs';
import { writeSourceTree } from './source-tree.mjs';

const root = resolve(import.meta.dirname, '..');
process.chdir(root);

/** Runs a Node program, its output on stderr (stdout belongs to what runs after this); true when it succeeded. */
function node(...args) {
  const { status, error } = spawnSync(process.execPath, args, { stdio: ['ignore', 2, 2] });
  if (error) throw error;
  return status === 0;
}

function fail(message) {
  console.error(`setup: ${message}`);
  process.exit(1);
}

/** True when node_modules holds exactly what package-lock.json asks for (packages of other platforms excepted). */
function packagesAreCurrent() {
  if (!existsSync('node_modules/.package-lock.json')) return false;
  const wanted = JSON.parse(readFileSync('package-lock.json', 'utf8')).packages;
  const present = JSON.parse(readFileSync('node_modules/.package-lock.json', 'utf8')).packages;
  return Object.entries(wanted).every(([path, { version, optional }]) => {
    if (path === '' || (optional && !present[path])) return true;
    return present[path]?.version === version && existsSync(join(path, 'package.json'));
  });
}

function installPackages() {
  if (packagesAreCurrent()) return;
  console.error('setup: installing the development packages (npm ci)');
  const npm = process.env.npm_execpath;
  const args = ['ci', '--no-audit', '--no-fund'];
  const installed = npm
    ? node(npm, ...args)
    : spawnSync('npm', args, { stdio: ['ignore', 2, 2], shell: process.platform === 'win32' }).status === 0;
  if (!installed) fail('npm ci failed; see above');
}

function filesUnder(path) {
  return readdirSync(path, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .sort();
}

/**
 * Runs `build` when `output` is missing or the contents of `inputs` (files) are not those it was last built from.
 * Contents, not dates: a checkout of another branch and back rebuilds nothing needlessly.
 */
function buildWhenStale(output, inputs, build) {
  const hash = createHash('sha256').update(`${process.platform} ${process.arch}`);
  for (const file of inputs) hash.update(`\0${file}\0`).update(readFileSync(file));
  const digest = hash.digest('hex');
  const stamp = join('.cache', `${output.replaceAll('/', '-')}.sha256`);
  if (existsSync(output) && existsSync(stamp) && readFileSync(stamp, 'utf8') === digest) return;
  if (!build()) return;
  mkdirSync('.cache', { recursive: true });
  writeFileSync(stamp, digest);
}

function missingTools() {
  if (process.platform === 'win32') return []; // node-gyp looks for Visual Studio itself and says what it misses
  const tools = [
    process.env.PYTHON ?? 'python3',
    'make',
    process.env.CXX ?? (process.platform === 'darwin' ? 'c++' : 'g++'),
  ];
  return tools.filter((tool) => spawnSync(tool.split(' ')[0], ['--version'], { stdio: 'ignore' }).error);
}

function buildAddon() {
  const missing = missingTools();
  if (missing.length > 0) {
    console.error(
      `setup: the addon is NOT built, ${missing.join(', ')} not found: the slow TypeScript backend will serve. ` +
        'Install python3, make and a C++17 compiler (Debian: apt-get install python3 make g++) and run this again.',
    );
    return false;
  }
  console.error('setup: building the addon');
  const jobs = process.env.npm_config_jobs ?? 'max';
  if (
    node(
      'node_modules/node-gyp/bin/node-gyp.js',
      'configure',
      'build',
      `--jobs=${jobs}`,
      '--loglevel=warn',
      ...headerOptions(),
    )
  )
    return true;
  return fail('the addon does not compile; see above');
}

function compileLibrary() {
  console.error('setup: compiling lib/ to dist/');
  rmSync('dist', { recursive: true, force: true });
  if (!node('node_modules/typescript/bin/tsc', '-p', 'tsconfig.build.json'))
    fail('lib/ does not compile; see above');
  copyFileSync('lib/native/prebuilds.cjs', 'dist/native/prebuilds.cjs');
  if (existsSync('dist/cli.js')) chmodSync('dist/cli.js', 0o755);
  return true;
}

installPackages();
const nativeSources = [
  'binding.gyp',
  'scripts/native-tree.mjs',
  ...filesUnder('native').filter((f) => /\.(cc|h|json|gypi)$/.test(f) && !/native.test/.test(f)),
];
buildWhenStale('build/Release/node_sdpa.node', nativeSources, buildAddon);
buildWhenStale(
  'dist/index.js',
  ['tsconfig.json', 'tsconfig.build.json', ...filesUnder('lib')],
  compileLibrary,
);
buildWhenStale('dist/source/binding.gyp', ['scripts/source-tree.mjs', ...nativeSources], () => {
  writeSourceTree('dist/source');
  return true;
});
