// What npm would publish: the files, their size, no install script, no dependency, and types that resolve. With --release the
// prebuilt addons of all platforms must be there; without, those that are tell how much room the others will take.
import { spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { gzipSync } from 'node:zlib';

process.chdir(resolve(import.meta.dirname, '..'));
const maxBytes = 5 * 2 ** 20;
const isRelease = process.argv.includes('--release');
const allowed =
  /^(dist\/(?!source).+\.(js|d\.ts)|dist\/source\/.+\.(gyp|gypi|h|cc|json|mjs|md|txt)|dist\/source\/.+\/LICENSE|package\.json|README\.md|LICENSE|CHANGELOG\.md|SECURITY\.md)$/;
/** The addons that lib/native/prebuilds.cjs can load. */
const prebuilds = [...readFileSync('lib/native/prebuilds.cjs', 'utf8').matchAll(/case '([^']+)'/g)].map(
  ([, file]) => `prebuilds/${file}`,
);
const required = [
  ...(isRelease ? prebuilds : []),
  'dist/native/prebuilds.cjs',
  'dist/source/binding.gyp',
  'dist/source/scripts/native-tree.mjs',
  'dist/source/native/headers/common.gypi',
  'dist/source/headers/node-addon-api/napi.h',
  'dist/source/headers/node-api-headers/include/node_api.h',
  'dist/index.js',
  'dist/index.d.ts',
  'dist/cli.js',
  'package.json',
  'README.md',
  'LICENSE',
  'CHANGELOG.md',
  'SECURITY.md',
];

const faults = [];
const manifest = JSON.parse(readFileSync('package.json', 'utf8'));
for (const script of ['preinstall', 'install', 'postinstall', 'prepare'])
  if (manifest.scripts[script]) faults.push(`package.json has the install script "${script}"`);
for (const kind of ['dependencies', 'optionalDependencies', 'peerDependencies'])
  if (manifest[kind]) faults.push(`package.json has ${kind}`);
if (/"resolved"/.test(readFileSync('package-lock.json', 'utf8')))
  faults.push('package-lock.json names a registry ("resolved")');

/** Packs into a folder of its own and returns npm's account of it. */
function pack(folder) {
  const npm = process.env.npm_execpath;
  const args = ['pack', '--json', '--ignore-scripts', '--pack-destination', folder];
  const { status, stdout, stderr } = npm
    ? spawnSync(process.execPath, [npm, ...args], { encoding: 'utf8' })
    : spawnSync('npm', args, { encoding: 'utf8', shell: process.platform === 'win32' });
  if (status !== 0) throw new Error(`npm pack: ${stderr}`);
  const report = JSON.parse(stdout);
  return Array.isArray(report) ? report[0] : Object.values(report)[0];
}

/**
 * The bytes of a tarball with all prebuilt addons, from one of `size` bytes with those that are there: an absent one is taken to
 * be as large as the first that is there for its processor. Undefined where there is none.
 */
function withAllPrebuilds(size) {
  const processorOf = (file) => file.match(/-(\w+)\//)[1];
  let bytes = size;
  for (const absent of prebuilds.filter((file) => !existsSync(file))) {
    const like = prebuilds.find((file) => existsSync(file) && processorOf(file) === processorOf(absent));
    if (like === undefined) return undefined;
    bytes += gzipSync(readFileSync(like), { level: 9 }).length;
  }
  return bytes;
}

/** Runs a checker of node_modules on the tarball; its output becomes a fault. */
function runChecker(program, ...args) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [`node_modules/${program}`, ...args], {
    encoding: 'utf8',
  });
  if (status !== 0) faults.push(`${program}:\n${stdout}${stderr}`);
}

const folder = mkdtempSync(join(tmpdir(), 'node-sdpa-pack-'));
try {
  const { filename, files, size } = pack(folder);
  const tarball = join(folder, filename);
  const paths = files.map((file) => file.path);
  const isKnown = (path) =>
    allowed.test(path) || prebuilds.includes(path) || path === 'dist/native/prebuilds.cjs';
  for (const path of paths) if (!isKnown(path)) faults.push(`${path} does not belong into the package`);
  for (const path of required) if (!paths.includes(path)) faults.push(`${path} is missing from the package`);
  const fullSize = withAllPrebuilds(size);
  if ((fullSize ?? size) > maxBytes)
    faults.push(
      `the tarball has ${fullSize ?? size} bytes with all prebuilt addons, at most ${maxBytes} allowed`,
    );
  runChecker('publint/src/cli.js', '--strict', tarball);
  runChecker('@arethetypeswrong/cli/dist/index.js', '--profile', 'esm-only', tarball);
  if (faults.length === 0)
    console.log(
      `check-pack: ok (${paths.length} files, ${Math.ceil(size / 1024)} KiB packed, ` +
        `${paths.filter((path) => prebuilds.includes(path)).length} of ${prebuilds.length} prebuilt addons` +
        `${fullSize === undefined ? '' : `, with all of them ${Math.ceil(fullSize / 1024)} KiB`})`,
    );
} finally {
  rmSync(folder, { recursive: true, force: true });
}
for (const fault of faults) console.error(`check-pack: ${fault}`);
process.exitCode = faults.length === 0 ? 0 : 1;
