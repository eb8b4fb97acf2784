'use strict';

// The addons that ship with the package. CommonJS, and a literal in each `require`, because that is what bundlers follow; within
// a `try`, because there they take a file that is missing for a warning.

/**
 * @param {string} file below prebuilds/
 * @returns {{ addon?: unknown, error?: Error }} neither where no such file ships
 */
function loadPrebuild(file) {
  try {
    switch (file) {
      case 'linux-x64/node-sdpa.glibc.node':
        return { addon: require('../../prebuilds/linux-x64/node-sdpa.glibc.node') };
      case 'linux-x64/node-sdpa.musl.node':
        return { addon: require('../../prebuilds/linux-x64/node-sdpa.musl.node') };
      case 'linux-arm64/node-sdpa.glibc.node':
        return { addon: require('../../prebuilds/linux-arm64/node-sdpa.glibc.node') };
      case 'linux-arm64/node-sdpa.musl.node':
        return { addon: require('../../prebuilds/linux-arm64/node-sdpa.musl.node') };
      case 'darwin-x64/node-sdpa.node':
        return { addon: require('../../prebuilds/darwin-x64/node-sdpa.node') };
      case 'darwin-arm64/node-sdpa.node':
        return { addon: require('../../prebuilds/darwin-arm64/node-sdpa.node') };
      case 'win32-x64/node-sdpa.node':
        return { addon: require('../../prebuilds/win32-x64/node-sdpa.node') };
      case 'win32-arm64/node-sdpa.node':
        return { addon: require('../../prebuilds/win32-arm64/node-sdpa.node') };
      default:
        return {};
    }
  } catch (error) {
    return { error };
  }
}

exports.loadPrebuild = loadPrebuild;
