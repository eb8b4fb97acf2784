import { existsSync } from 'node:fs';
import { dirname, join, resolve } from 'node:path';

const root = resolve(import.meta.dirname, '..');

/**
 * Options that give node-gyp headers without a download: those that came with Node, else native/headers. Elsewhere
 * (Windows needs node.lib too) node-gyp fetches them.
 */
export function headerOptions() {
  const prefix = dirname(dirname(process.execPath));
  if (existsSync(join(prefix, 'include/node/common.gypi'))) return [`--nodedir=${prefix}`];
  return process.platform === 'win32'
    ? []
    : [`--nodedir=${join(root, 'native/headers')}`, '--force-process-config'];
}
