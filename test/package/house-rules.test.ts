import { spawnSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, dirname, join, resolve } from 'node:path';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

const root = resolve(import.meta.dirname, '../..');

function runScript(name: string, ...args: string[]) {
  const { status, stdout, stderr } = spawnSync(process.execPath, [join(root, 'scripts', name), ...args], {
    encoding: 'utf8',
  });
  return { status, output: stdout + stderr };
}

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'node-sdpa-rules-'));
});
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function writeTree(files: Record<string, string>) {
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, path)), { recursive: true });
    writeFileSync(join(folder, path), text);
  }
}

describe('layers', () => {
  test('this tree keeps them', () => {
    expect(runScript('check-deps.mjs')).toEqual({ status: 0, output: 'check-deps: ok\n' });
  });

  const breaches: [why: string, path: string, text: string, message: string][] = [
    [
      'an import of a layer above',
      'lib/tensor.ts',
      "import { a } from './attention.ts';\n",
      'lib/tensor.ts:1: imports attention.ts',
    ],
    [
      'an import that spans lines',
      'lib/dtype.ts',
      "import {\n  a,\n} from './tensor.ts';\n",
      'lib/dtype.ts:3: imports tensor.ts',
    ],
    [
      'one backend that knows the other',
      'lib/native/x.ts',
      "import type { A } from '../reference/y.ts';\n",
      'must not know each other',
    ],
    [
      'a file system outside the loader',
      'lib/modules/x.ts',
      "import fs from 'node:fs/promises';\n",
      'lib/modules/x.ts:1: node:fs/promises',
    ],
    [
      'a dependency',
      'lib/x.ts',
      "\nexport { a } from 'lodash';\n",
      "lib/x.ts:2: imports the package 'lodash'",
    ],
    ['C++ headers in an ISA unit', 'native/isa/x.cc', '#include <vector>\n', 'native/isa/x.cc:1: <vector>'],
    [
      'C++ headers in a kernel',
      'native/kernels/x.h',
      '#pragma once\n#include <cstdint>\n',
      'native/kernels/x.h:2: <cstdint>',
    ],
    ['Node-API outside binding', 'native/runtime/x.cc', '#include <napi.h>\n', 'native/binding/ only'],
    [
      'a runtime that sees kernels',
      'native/runtime/x.cc',
      '#include "../kernels/tile.h"\n',
      'runtime must not include native/kernels/tile.h',
    ],
    [
      'a simd header that sees kernels',
      'native/simd/x.h',
      '#include "kernels/tile.h"\n',
      'simd must not include native/kernels/tile.h',
    ],
    [
      'a problem.h that is not the bottom',
      'native/problem.h',
      '#include "kernel_table.h"\n',
      'includes nothing of ours',
    ],
    ['an overlong file', 'lib/x.ts', '\n'.repeat(401), 'lib/x.ts:401: 401 lines'],
  ];
  test.each(breaches)('%s is reported', (_why, path, text, message) => {
    writeTree({ 'native/kernels/tile.h': '', 'native/kernel_table.h': '', [path]: text });
    const { status, output } = runScript('check-deps.mjs', folder);
    expect(output).toContain(message);
    expect(output).toContain('failed (1)');
    expect(status).toBe(1);
  });

  test('what the layers allow is not reported', () => {
    writeTree({
      'lib/native/backend.ts':
        "import type { Backend } from '../backend.ts';\nimport { Tensor } from '../tensor.ts';\n",
      'lib/native/loader.ts':
        "import { existsSync } from 'node:fs';\nimport { createRequire } from 'node:module';\n",
      'lib/index.ts':
        "export { attention } from './attention.ts'; // a comment with 'quotes' from 'lodash'\n",
      'native/kernels/tile.h': '#include <stdint.h>\n#include "../problem.h"\n',
      'native/problem.h': '#include <stdint.h>\n',
      'native/isa/avx2.cc': '#include "../kernels/tile.h"\n#include <immintrin.h>\n',
      'native/binding/addon.cc': '#include <napi.h>\n#include <vector>\n',
    });
    expect(runScript('check-deps.mjs', folder)).toEqual({ status: 0, output: 'check-deps: ok\n' });
  });
});

test('native/README.md names every file of the native tree', () => {
  const text = readFileSync(join(root, 'native/README.md'), 'utf8');
  const stems = readdirSync(join(root, 'native'), { recursive: true, encoding: 'utf8' })
    .filter((path) => /\.(cc|h|json)$/.test(path) && !path.startsWith('test'))
    .map((path) => basename(path).replace(/\.(cc|h)$/, ''));
  expect(stems.filter((stem) => !text.includes(stem))).toEqual([]);
});

const built = existsSync(join(root, 'build/Release/node_sdpa.node'));
const canCompile =
  process.platform === 'linux' && process.arch === 'x64' && !spawnSync('g++', ['--version']).error;

/** Compiles what stands for the unit of an ISA into its library. */
function archive(isa: string, text: string, ...flags: string[]) {
  const [source, object] = [join(folder, `${isa}.cc`), join(folder, `${isa}.o`)];
  writeFileSync(source, text);
  expect(spawnSync('g++', ['-O2', '-fPIC', ...flags, '-c', source, '-o', object]).status).toBe(0);
  expect(spawnSync('ar', ['crs', join(folder, `isa_${isa}.a`), object]).status).toBe(0);
}

describe('symbols', () => {
  test.skipIf(!built)("each ISA's library exports its kernel table alone", () => {
    const { status, output } = runScript('check-isa-symbols.mjs');
    expect(output).toMatch(/^check-isa-symbols: (ok|skipped)/);
    expect(status).toBe(0);
  });

  test.skipIf(!built)('the addon asks for no newer C library than Node does', () => {
    const { status, output } = runScript('check-abi.mjs');
    expect(output).toMatch(/^check-abi: (ok|skipped)/);
    expect(status).toBe(0);
  });

  // Ubuntu's g++ compiles with _FORTIFY_SOURCE unless told otherwise.
  test.skipIf(!canCompile)('copies that the compiler has checked are plain C', () => {
    for (const isa of ['portable', 'avx2', 'avx512', 'avx512bf16', 'amx'])
      archive(
        isa,
        `#include <string.h>\nextern "C" char kernels_${isa}(const char* p, size_t n) {` +
          ' char a[8] = {}; memcpy(a, p, n); memmove(a + 1, a, n); memset(a + 2, 1, n); return a[n]; }\n',
        '-U_FORTIFY_SOURCE',
        '-D_FORTIFY_SOURCE=2',
      );
    const { status, output } = runScript('check-isa-symbols.mjs', folder);
    expect(output).toBe('check-isa-symbols: ok (portable, avx2, avx512, avx512bf16, amx)\n');
    expect(status).toBe(0);
  });

  test.skipIf(!canCompile)('a C++ container and a static initializer in an ISA unit are caught', () => {
    const clean = (isa: string) => `extern "C" int kernels_${isa}() { return 1; }\n`;
    const leaky =
      '#include <vector>\nextern "C" int kernels_avx512(std::vector<int>* v) { v->push_back(1); return 1; }\n';
    const eager = 'int now(); static int then = now();\nextern "C" int kernels_avx2() { return then; }\n';
    const units = { portable: clean('portable'), avx2: eager, avx512: leaky };
    for (const [isa, text] of Object.entries(units)) archive(isa, text);
    const { status, output } = runScript('check-isa-symbols.mjs', folder);
    expect(output).toMatch(/isa_avx512\.a has weak symbols: \S*_M_realloc_insert/);
    expect(output).toMatch(/isa_avx2\.a runs code when it is loaded/);
    expect(output).not.toMatch(/isa_portable\.a/);
    expect(status).toBe(1);
  });
});
