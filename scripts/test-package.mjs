// What users get: the packed tarball, installed into empty projects without a compiler in reach, under the runtimes and bundlers
// that they have. The program that each runs is test/package/project/check.mjs.
//   node scripts/test-package.mjs            all: npm 11 and 12, Node 20 to 26, Bun, Deno, TypeScript 6 and 7, esbuild, arm64 and
//                                            older x64 under qemu, Windows under wine, `node-sdpa build`; fetches 1.5 GB
//   node scripts/test-package.mjs --short    this Node and Node 24, TypeScript 6, esbuild; arm64 and Windows where prebuilt
//   node scripts/test-package.mjs --only qemu    the steps whose names contain the word
// The tarball holds what is in prebuilds/ (scripts/prebuild.mjs), else what `npm run build` made.
import { spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join, resolve } from 'node:path';
import { parseArgs } from 'node:util';
import { buildSync } from 'esbuild';
import { hasTool, npmProgram, runtime } from './runtimes.mjs';

const root = resolve(import.meta.dirname, '..');
const { values: given } = parseArgs({ options: { short: { type: 'boolean' }, only: { type: 'string' } } });
const isShort = given.short === true;
const work = mkdtempSync(join(tmpdir(), 'node-sdpa-package-'));
const failed = [];
const typescript6 = join(root, 'node_modules/typescript/bin/tsc');

class Failure extends Error {}

/** Runs a program and returns what it printed; a Failure where it ends with another code than `code`. */
function run(command, args, { code = 0, ...options } = {}) {
  const result = spawnSync(command, args, { encoding: 'utf8', input: '', maxBuffer: 2 ** 26, ...options });
  if (result.error) throw new Failure(`${command}: ${result.error.message}`);
  if (result.status !== code)
    throw new Failure(
      `${basename(command)} ${args.join(' ')} ended with ${result.signal ?? result.status}, not ${code}\n${result.stdout}${result.stderr}`,
    );
  return result;
}

/** One line of the report. The installation is what all others need, whatever --only asks for. */
function step(name, body) {
  if (given.only !== undefined && !name.includes(given.only) && !name.startsWith('installed')) return;
  const started = performance.now();
  try {
    const note = body();
    if (note === 'skipped') return;
    const seconds = ((performance.now() - started) / 1000).toFixed(1);
    console.log(`test-package: ${name}: ok${note ? `, ${note}` : ''} (${seconds} s)`);
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    failed.push(name);
    console.error(`test-package: ${name}: FAILED\n${error.message}`);
  }
}

/** A PATH with Node and a shell, and nothing that compiles. */
function barePath() {
  const folder = join(work, 'bin');
  mkdirSync(folder, { recursive: true });
  for (const [name, path] of Object.entries({ node: process.execPath, sh: '/bin/sh' }))
    if (!existsSync(join(folder, name))) symlinkSync(path, join(folder, name));
  return folder;
}

function pack() {
  if (!existsSync(join(root, 'prebuilds')))
    run(process.execPath, [join(root, 'scripts/prebuild.mjs'), '--from-build']);
  run(process.execPath, [npmProgram, 'pack', '--ignore-scripts', '--pack-destination', work], { cwd: root });
  return join(
    work,
    readdirSync(work).find((name) => name.endsWith('.tgz')),
  );
}

/** An empty project with the tarball installed by this npm. Nothing may be said of scripts, nothing compiled. */
function install(name, tarball, node, npm) {
  const project = join(work, name);
  mkdirSync(project);
  cpSync(join(root, 'test/package/project'), project, { recursive: true });
  writeFileSync(join(project, 'package.json'), JSON.stringify({ private: true, type: 'module' }));
  const { stdout, stderr } = run(node, [npm, 'install', '--offline', '--no-audit', '--no-fund', tarball], {
    cwd: project,
    env: { PATH: barePath(), HOME: work },
  });
  if (/script|gyp|blocked/i.test(stdout + stderr))
    throw new Failure(`npm speaks of scripts: ${stdout}${stderr}`);
  if (existsSync(join(project, 'node_modules/node-sdpa/build'))) throw new Failure('something was compiled');
  return project;
}

/** check.mjs under a runtime. Code 7 is its own; what it tells is its last line. */
function check(project, command, args = [], env = {}) {
  const options = { cwd: project, code: 7, env: { ...process.env, ...env } };
  const { stdout, stderr } = run(command, [...args, 'check.mjs'], options);
  if (/node-sdpa:/.test(stderr)) throw new Failure(stderr);
  return JSON.parse(stdout.trim().split('\n').pop()).isa;
}

function requires(project, command, args = []) {
  if (run(command, [...args, 'require.cjs'], { cwd: project }).stdout.trim() !== 'native')
    throw new Failure('require() finds no addon');
}

function types(project, tsc) {
  const folder = join(project, 'node_modules/@types');
  if (!existsSync(folder)) symlinkSync(join(root, 'node_modules/@types'), folder, 'junction');
  const options = ['--strict', '--module', 'nodenext', '--target', 'es2022', '--types', 'node'];
  run(process.execPath, [tsc, ...options, 'types.mts'], { cwd: project });
}

/** types.mts under a runtime, as TypeScript 6 has compiled it. */
function typed(project, command, args = []) {
  if (!existsSync(join(project, 'types.mjs'))) types(project, typescript6);
  if (run(command, [...args, 'types.mjs'], { cwd: project }).stdout.trim() !== '1,1,1,8')
    throw new Failure('what TypeScript compiled computes nothing');
}

/** What esbuild cannot bundle is a failure of the package's. */
function bundle(options) {
  try {
    return buildSync(options);
  } catch (error) {
    throw new Failure(error.message);
  }
}

/** A bundle and the addon that was copied beside it, moved to where no package is. */
function bundles(project, format) {
  const out = join(work, `bundle-${format}`);
  const extension = format === 'esm' ? 'mjs' : 'cjs';
  const source =
    "import { attention, backendInfo, Tensor } from 'node-sdpa';\nconst x = Tensor.randn([1, 1, 4, 8]);\n";
  writeFileSync(
    join(project, 'app.mjs'),
    `${source}console.log(attention(x, x, x).shape.join(), backendInfo().backend);\n`,
  );
  // By its API: npm's install leaves a script or the program itself at bin/esbuild.
  const { warnings } = bundle({
    absWorkingDir: project,
    entryPoints: ['app.mjs'],
    bundle: true,
    platform: 'node',
    format,
    loader: { '.node': 'copy' },
    logLevel: 'silent',
    outfile: join(out, `app.${extension}`),
    // esbuild's own shim of require() needs a real one.
    ...(format === 'esm' && {
      banner: {
        js: "import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);",
      },
    }),
  });
  if (warnings.length > 0) throw new Failure(warnings.map(({ text }) => text).join('\n'));
  const { stdout } = run(process.execPath, [`app.${extension}`], { cwd: out });
  if (stdout !== '1,1,4,8 native\n') throw new Failure(`the bundle printed ${stdout}`);
}

function withoutAddon(project) {
  const bare = join(work, 'bare');
  cpSync(project, bare, { recursive: true });
  rmSync(join(bare, 'node_modules/node-sdpa/prebuilds'), { recursive: true });
  return bare;
}

/** Without the addon: one line on stderr, and an error where that was asked for. */
function fallsBack(bare) {
  const program =
    "import { attention, Tensor } from 'node-sdpa'; const x = Tensor.zeros([1, 1, 2, 8]); attention(x, x, x); attention(x, x, x);";
  const node = (env, code) =>
    run(process.execPath, ['--input-type=module', '-e', program], {
      cwd: bare,
      code,
      env: { ...process.env, ...env },
    });
  const { stderr } = node({}, 0);
  if (!/^node-sdpa: using the slow TypeScript backend: .+\n$/.test(stderr))
    throw new Failure(`it warned: ${stderr}`);
  if (!/NativeLoadError/.test(node({ NODE_SDPA_BACKEND: 'native' }, 1).stderr))
    throw new Failure('no NativeLoadError');
}

/** From a package whose prebuilt addons are gone. */
function buildsFromSource(bare) {
  const cli = 'node_modules/node-sdpa/dist/cli.js';
  const refused = run(process.execPath, [cli, 'build'], {
    cwd: bare,
    code: 1,
    env: { PATH: barePath(), HOME: work },
  });
  if (!/^node-sdpa build: .*python3, make, g\+\+ not found.*\n$/.test(refused.stderr))
    throw new Failure(`without tools it said: ${refused.stderr}`);
  run(process.execPath, [cli, 'build'], { cwd: bare });
  return check(bare, process.execPath);
}

function underWine(project) {
  if (!existsSync(join(root, 'prebuilds/win32-x64')) || !hasTool('wine', 'wine wine64')) return 'skipped';
  const node = runtime('windows-node-20');
  if (!node) return 'skipped';
  // wine gives Node no console: what it prints is lost, and the line comes by a file. Its first start makes a prefix.
  const env = {
    ...process.env,
    WINEPREFIX: join(root, '.cache/wine'),
    WINEDEBUG: '-all',
    NODE_SKIP_PLATFORM_CHECK: '1',
  };
  const options = { cwd: project, env, stdio: ['ignore', 'ignore', 'ignore'], code: 7, timeout: 300_000 };
  rmSync(join(project, 'wine.json'), { force: true });
  run('wine', [join(node, 'bin/node.exe'), 'check.mjs', 'wine.json'], options);
  const { ok, isa, failures } = JSON.parse(readFileSync(join(project, 'wine.json'), 'utf8'));
  if (!ok) throw new Failure(failures.join('\n'));
  return isa;
}

/** The ISA ladder of x64, where a kernel chosen wrongly dies of an illegal instruction. */
function underQemu(project) {
  if (isShort || !hasTool('qemu-x86_64', 'qemu-user')) return;
  for (const [cpu, isa] of Object.entries({ Nehalem: 'portable', Haswell: 'avx2', max: 'avx2' }))
    step(`qemu, x64 of ${cpu}`, () => {
      const found = check(project, 'qemu-x86_64', ['-cpu', cpu, process.execPath]);
      if (found !== isa) throw new Failure(`${found} and not ${isa}`);
      return found;
    });
}

function onArm(project) {
  const libraries = '/usr/aarch64-linux-gnu';
  if (!existsSync(join(root, 'prebuilds/linux-arm64'))) return;
  if (!hasTool('qemu-aarch64', 'qemu-user') || !existsSync(libraries)) return;
  for (const name of isShort ? ['arm64-node-20'] : ['arm64-node-20', 'arm64-node-24']) {
    const node = runtime(name);
    if (node)
      step(`qemu, ${name}`, () => check(project, 'qemu-aarch64', ['-L', libraries, join(node, 'bin/node')]));
  }
}

function onNode(project, name, program, args = []) {
  step(name, () => {
    requires(project, program, args);
    typed(project, program, args);
    return `${run(program, ['--version']).stdout.split('\n')[0]} ${check(project, program, args)}`;
  });
}

/** Installs the tarball with each npm, and returns the last of the projects. */
function installations(tarball) {
  const npms = [['npm', process.execPath, npmProgram]];
  if (!isShort) {
    const [npm11, npm12, node24] = ['npm-11', 'npm-12', 'node-24'].map(runtime);
    if (npm11) npms.push(['npm 11', process.execPath, join(npm11, 'bin/npm-cli.js')]);
    // npm 12 asks for a newer Node than 20.
    if (npm12 && node24) npms.push(['npm 12', join(node24, 'bin/node'), join(npm12, 'bin/npm-cli.js')]);
  }
  let project;
  for (const [name, node, npm] of npms)
    step(`installed by ${name}`, () => {
      const version = run(node, [npm, '--version'], { env: { PATH: barePath(), HOME: work } }).stdout.trim();
      project = install(name.replace(' ', '-'), tarball, node, npm);
      return version;
    });
  return project;
}

function onNodes(project) {
  onNode(project, `node ${process.version}`, process.execPath);
  for (const name of isShort ? ['node-24'] : ['node-22', 'node-24', 'node-26']) {
    const node = runtime(name);
    if (node) onNode(project, name, join(node, 'bin/node'));
  }
}

function onOthers(project) {
  const [bun, deno] = ['bun', 'deno'].map(runtime);
  if (bun) onNode(project, 'bun', join(bun, 'bin/bun'));
  if (deno) onNode(project, 'deno', join(deno, 'deno'), ['run', '--allow-all', '--node-modules-dir=manual']);
}

function compiled(project) {
  step('typescript 6', () => types(project, typescript6));
  const typescript = isShort ? undefined : runtime('typescript-7');
  if (typescript) step('typescript 7', () => types(project, join(typescript, 'bin/tsc')));
  for (const format of ['cjs', 'esm']) step(`esbuild, ${format}`, () => bundles(project, format));
}

if (process.platform !== 'linux' || process.arch !== 'x64' || !npmProgram) {
  console.log('test-package: skipped, needs Linux on x64 and npm beside Node');
  process.exit(0);
}
try {
  const project = installations(pack());
  if (project) {
    onNodes(project);
    compiled(project);
    if (!isShort) onOthers(project);
    underQemu(project);
    onArm(project);
    step('windows under wine', () => underWine(project));
    const bare = withoutAddon(project);
    step('fallback', () => fallsBack(bare));
    if (!isShort) step('build from source', () => buildsFromSource(bare));
  }
} finally {
  rmSync(work, { recursive: true, force: true });
}
console.log(`test-package: ${failed.length === 0 ? 'ok' : `failed (${failed.join(', ')})`}`);
process.exitCode = failed.length === 0 ? 0 : 1;
