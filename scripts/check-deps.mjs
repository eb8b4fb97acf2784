// Who may import or include whom, the layers of both languages, and the length of a file. Exits 1 and names
// file:line for every breach. An argument checks another tree than this one.
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';

process.chdir(process.argv[2] ?? resolve(import.meta.dirname, '..'));
const maxLines = 400;

// lib/, bottom layer first: a file imports from its own layer and from those below.
const otherLibFiles = /^[^/]+\.ts$/; // attention, kv-cache and whatever else stands directly in lib/
const libLayers = [
  /^(errors|nearest-name|half|random)\.ts$/,
  /^dtype\.ts$/,
  /^tensor(-.+)?\.ts$/,
  /^(problem(-.+)?|limits|options|describe-attention|sequences|.+-options?)\.ts$/,
  /^(native|reference)\//,
  /^backend\.ts$/,
  otherLibFiles,
  /^formats\//,
  /^modules\//,
  /^index\.ts$/,
  /^cli(\.ts|\/)/,
];
const mayTouchFiles = /^(native\/loader\.ts|cli(\.ts|\/.+))$/;

// native/, folder -> folders it may include. The headers directly in native/ are the bottom ('.').
const nativeLayers = {
  '.': ['.'],
  simd: ['simd', '.'],
  kernels: ['kernels', 'simd', '.'],
  isa: ['isa', 'kernels', 'simd', '.'],
  runtime: ['runtime', '.'],
  binding: ['binding', 'runtime', '.'],
  bench: ['bench', 'runtime', '.'],
  fuzz: ['fuzz', 'test', 'binding', 'runtime', '.'],
  test: ['test', 'runtime', 'isa', 'kernels', 'simd', '.'],
};
// An ISA unit that instantiates anything of the C++ library exports it weakly, compiled for that ISA, and the linker
// may then choose that copy for everyone: C headers only.
const isaSideFolders = ['.', 'simd', 'kernels', 'isa'];
const cHeaders = /^(float|immintrin|intrin|limits|math|stddef|stdint|string|x86intrin|arm_acle|arm_neon)\.h$/;
const nodeHeaders = /^(napi|node_api|js_native_api|node|uv|v8)\b.*\.h$/;

const breaches = [];
const report = (file, line, message) => breaches.push(`${file}:${line}: ${message}`);

function filesUnder(folder, pattern) {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { recursive: true })
    .map((name) => join(folder, name).replaceAll('\\', '/'))
    .filter((path) => pattern.test(path))
    .sort();
}

function matches(text, pattern) {
  return [...text.matchAll(pattern)].map((match) => ({
    line: text.slice(0, match.index + match[0].length).split('\n').length,
    groups: match.groups,
  }));
}

function libLayer(name) {
  const layer = libLayers.findIndex((pattern) => pattern !== otherLibFiles && pattern.test(name));
  return layer >= 0 ? layer : libLayers.indexOf(otherLibFiles);
}

function checkImport(name, { line, groups }) {
  const report_ = (message) => report(`lib/${name}`, line, message);
  const { specifier } = groups;
  if (specifier.startsWith('node:')) {
    if (/^node:fs\b/.test(specifier) && !mayTouchFiles.test(name))
      report_(`${specifier} is for native/loader.ts and the command line`);
    return;
  }
  if (!specifier.startsWith('.'))
    return report_(`imports the package '${specifier}'; node-sdpa has no dependencies`);
  const target = relative('lib', join('lib', dirname(name), specifier)).replaceAll('\\', '/');
  if (target.startsWith('..') || target === 'package.json') return;
  const pair = [name, target];
  if (pair.some((side) => side.startsWith('native/')) && pair.some((side) => side.startsWith('reference/')))
    return report_(`the native and the reference backend must not know each other (${specifier})`);
  // The interface that the backends implement stands beside the choice between them.
  if (target === 'backend.ts' && groups.type) return;
  if (libLayer(target) > libLayer(name)) report_(`imports ${target}, which stands above it`);
}

for (const file of filesUnder('lib', /\.ts$/)) {
  const text = readFileSync(file, 'utf8').replace(/\/\*[\s\S]*?\*\//g, (comment) =>
    comment.replace(/[^\n]/g, ' '),
  );
  const statements = /^\s*(?:import|export)\s+(?<type>type\s)?(?:[^;'"]*?\sfrom\s+)?'(?<specifier>[^']+)'/gm;
  const calls = /\b(?:import|require)\(\s*'(?<specifier>[^']+)'\s*\)/g;
  for (const found of [...matches(text, statements), ...matches(text, calls)])
    checkImport(file.slice('lib/'.length), found);
}

function checkInclude(file, { line, groups }) {
  const folder = file.split('/').length > 2 ? file.split('/')[1] : '.';
  const header = groups.own ?? groups.system;
  if (groups.system || nodeHeaders.test(header)) {
    if (nodeHeaders.test(header) && folder !== 'binding')
      report(file, line, `<${header}> is for native/binding/ only`);
    else if (isaSideFolders.includes(folder) && !cHeaders.test(header))
      report(
        file,
        line,
        `<${header}>: ISA units and their headers include C headers only (${cHeaders.source})`,
      );
    return;
  }
  const target = [join(dirname(file), header), join('native', header)].find((path) => existsSync(path));
  if (!target) return report(file, line, `"${header}" is not in native/`);
  const targetFolder = target.split('/').length > 2 ? target.split('/')[1] : '.';
  if (!nativeLayers[folder]?.includes(targetFolder))
    report(file, line, `${folder} must not include ${target}`);
  if (file === 'native/problem.h') report(file, line, 'problem.h includes nothing of ours');
}

for (const file of filesUnder('native', /\.(h|cc)$/)) {
  const includes = /^[ \t]*#[ \t]*include[ \t]+(?:"(?<own>[^"]+)"|<(?<system>[^>]+)>)/gm;
  for (const found of matches(readFileSync(file, 'utf8'), includes)) checkInclude(file, found);
}

for (const folder of ['lib', 'native', 'scripts', 'bench', 'test'])
  for (const file of filesUnder(folder, /\.(ts|mjs|h|cc)$/)) {
    const lines = readFileSync(file, 'utf8').split('\n').length - 1;
    // A table of cases is as long as there are cases.
    if (lines > maxLines && !/cases\b.*\.ts$/.test(file))
      report(file, lines, `${lines} lines; at most ${maxLines}`);
  }

for (const breach of breaches) console.error(breach);
console.log(`check-deps: ${breaches.length === 0 ? 'ok' : `failed (${breaches.length})`}`);
process.exitCode = breaches.length === 0 ? 0 : 1;
