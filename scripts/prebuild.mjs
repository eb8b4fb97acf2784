// Compiles the addons that ship with the package, into prebuilds/:
//   node scripts/prebuild.mjs                          for this machine
//   node scripts/prebuild.mjs --target linux-arm64     or linux-x64, win32-x64; from Linux on x64, with cross compilers
//   node scripts/prebuild.mjs --target all             all three
//   node scripts/prebuild.mjs --from-build             for this machine, what `npm run build` has compiled
// A target whose compiler is missing is skipped, and so is one that is there already, made of the same sources.
import { spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { availableParallelism } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { headerOptions } from './node-headers.mjs';
import { writeSourceTree } from './source-tree.mjs';

process.chdir(resolve(import.meta.dirname, '..'));
const own = `${process.platform}-${process.arch}`;
const isMusl = process.platform === 'linux' && !process.report.getReport().header.glibcVersionRuntime;
const mingw = 'x86_64-w64-mingw32';

/** Whether a target is made for other machines than this one. */
const isForeign = (target) => target !== own;

const toolsOf = {
  'linux-arm64': [
    'aarch64-linux-gnu-gcc',
    'aarch64-linux-gnu-g++',
    'aarch64-linux-gnu-strip',
    'make',
    'python3',
  ],
  'win32-x64': [`${mingw}-g++-posix`, `${mingw}-dlltool`, `${mingw}-strip`, 'cmake', 'make'],
  [own]: process.platform === 'win32' ? [] : ['c++', 'make', 'python3'],
};
const debianPackages = {
  'linux-arm64': 'g++-aarch64-linux-gnu make python3',
  'win32-x64': 'g++-mingw-w64-x86-64-posix cmake make',
};

function fail(message) {
  console.error(`prebuild: ${message}`);
  process.exit(1);
}

function run(command, args, options = {}) {
  const { status, error } = spawnSync(command, args, { stdio: ['ignore', 2, 2], ...options });
  if (status !== 0) fail(`${command} ${args.join(' ')}: ${error?.message ?? `exit code ${status}`}`);
}

/** Where the addon of a target lies; Linux has two C libraries. */
function fileOf(target) {
  const libc = target.startsWith('linux-') ? (target === own && isMusl ? '.musl' : '.glibc') : '';
  return `prebuilds/${target}/node-sdpa${libc}.node`;
}

/** A name for the contents of the sources, so that nothing is compiled twice. */
function digestOf(folder) {
  const hash = createHash('sha256').update(readFileSync('scripts/prebuild.mjs'));
  for (const entry of readdirSync(folder, { recursive: true }).sort()) {
    const path = join(folder, entry);
    if (!/^build/.test(entry) && statSync(path).isFile())
      hash.update(`\0${entry}\0`).update(readFileSync(path));
  }
  return hash.digest('hex');
}

/** By prebuildify and node-gyp: this machine's platform, and others that Linux has cross compilers for. */
function buildByGyp(target, folder) {
  const [, arch] = target.split('-');
  const options = [
    '--napi',
    '--strip',
    '--name',
    'node-sdpa',
    `--arch=${arch}`,
    `--cwd=${folder}`,
    `--out=${resolve('.')}`,
  ];
  if (target.startsWith('linux-')) options.push('--tag-libc');
  const env = { ...process.env, npm_config_jobs: process.env.npm_config_jobs ?? 'max' };
  // node-gyp takes its options from the environment too, and prebuildify passes none on.
  for (const option of headerOptions()) {
    const [name, value = 'true'] = option.slice('--'.length).split('=');
    env[`npm_config_${name.replaceAll('-', '_')}`] = value;
  }
  if (isForeign(target)) {
    Object.assign(env, { CC: 'aarch64-linux-gnu-gcc', CXX: 'aarch64-linux-gnu-g++' });
    options.push('--strip-bin=aarch64-linux-gnu-strip');
  }
  run(process.execPath, ['node_modules/prebuildify/bin.js', ...options], { env });
}

/** By CMake and mingw-w64, with an import library made from the names that Node-API's headers list. */
function buildByMingw(target, folder) {
  const names = ['js_native_api', 'node_api'].flatMap((name) =>
    readFileSync(`node_modules/node-api-headers/def/${name}.def`, 'utf8').split('\n').slice(2),
  );
  writeFileSync(join(folder, 'node.def'), `NAME node.exe\nEXPORTS\n${names.join('\n')}\n`);
  const library = resolve(folder, 'libnode.a');
  run(`${mingw}-dlltool`, ['-d', join(folder, 'node.def'), '-D', 'node.exe', '-l', library]);
  const headers = ['node-addon-api', 'node-api-headers/include'].map((path) => resolve('node_modules', path));
  const build = `${folder}.cmake`; // its own folder, for CMake knows by itself what is left to compile
  const definitions = {
    CMAKE_SYSTEM_NAME: 'Windows',
    CMAKE_SYSTEM_PROCESSOR: 'AMD64',
    CMAKE_CXX_COMPILER: `${mingw}-g++-posix`,
    SDPA_NODE_HEADERS: headers.join(';'),
    SDPA_NODE_LIBRARY: library,
  };
  const options = Object.entries(definitions).map(([name, value]) => `-D${name}=${value}`);
  run('cmake', ['-S', 'native', '-B', build, ...options]);
  run('cmake', ['--build', build, '--target', 'node_sdpa', '--parallel', String(availableParallelism())]);
  mkdirSync(dirname(fileOf(target)), { recursive: true });
  run(`${mingw}-strip`, ['-o', fileOf(target), join(build, 'node_sdpa.node')]);
}

function prebuild(target) {
  const missing = toolsOf[target].filter((tool) => spawnSync(tool, ['--version'], { stdio: 'ignore' }).error);
  if (missing.length > 0) {
    const remedy = debianPackages[target] ?? 'g++ make python3';
    console.log(
      `prebuild: skipped ${target}, ${missing.join(', ')} not found (Debian: apt-get install ${remedy})`,
    );
    return;
  }
  const folder = `.cache/prebuild/${target}`;
  const stamp = `${folder}.sha256`;
  writeSourceTree(folder);
  const digest = digestOf(folder);
  if (!existsSync(fileOf(target)) || !existsSync(stamp) || readFileSync(stamp, 'utf8') !== digest) {
    console.error(`prebuild: compiling for ${target}`);
    if (target === 'win32-x64' && isForeign(target)) buildByMingw(target, folder);
    else buildByGyp(target, folder);
    writeFileSync(stamp, digest);
  }
  report(target);
}

function report(target) {
  console.log(`prebuild: ${fileOf(target)}, ${Math.ceil(statSync(fileOf(target)).size / 1024)} KiB`);
}

function fromBuild() {
  const built = 'build/Release/node_sdpa.node';
  if (!existsSync(built)) fail(`${built} is not there: npm run build`);
  mkdirSync(dirname(fileOf(own)), { recursive: true });
  copyFileSync(built, fileOf(own));
  if (process.platform === 'linux') run('strip', [fileOf(own)]);
  report(own);
}

const { values } = parseArgs({ options: { target: { type: 'string' }, 'from-build': { type: 'boolean' } } });
const cross = ['linux-x64', 'linux-arm64', 'win32-x64'];
const targets = values.target === 'all' ? cross : [values.target ?? own];
for (const target of targets) {
  if (isForeign(target) && !(own === 'linux-x64' && cross.includes(target)))
    fail(`no cross compiler is known from ${own} to ${target}; known are ${[own, ...cross].join(', ')}`);
}
if (values['from-build']) fromBuild();
else for (const target of targets) prebuild(target);
