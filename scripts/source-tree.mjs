// All that the addon is compiled from, as a folder of its own that needs no npm package: binding.gyp, the native tree without
// its tests, and the headers of Node-API. It ships as dist/source, for `npx node-sdpa build`; prebuilds are made from copies.
import { cpSync, mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { join, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '..');
const isOfTests = /^native\/(test|bench)(\/|$)/;

/** The headers, by the package that they come from. */
const headers = {
  'node-addon-api': ['LICENSE.md', 'napi.h', 'napi-inl.h', 'napi-inl.deprecated.h'],
  'node-api-headers': ['LICENSE', 'include'],
};

export function writeSourceTree(folder) {
  rmSync(folder, { recursive: true, force: true });
  for (const path of ['binding.gyp', 'scripts/native-tree.mjs', 'native'])
    cpSync(join(root, path), join(folder, path), {
      recursive: true,
      filter: (from) => !isOfTests.test(from.slice(root.length + 1).replaceAll('\\', '/')),
    });
  for (const [name, files] of Object.entries(headers))
    for (const file of files)
      cpSync(join(root, 'node_modules', name, file), join(folder, 'headers', name, file), {
        recursive: true,
      });
  mkdirSync(folder, { recursive: true });
  writeFileSync(join(folder, 'package.json'), '{ "name": "node-sdpa", "private": true, "type": "module" }\n');
}
