#!/usr/bin/env bash
# Runs the tests of attention and of the cache on the kernels for AMX, on a machine without AMX: the build of the C++ tests
# (scripts/test-native.mjs) emulates the instructions (native/simd/tiles_emulated.h). With AMX, that build has the true ones.
# Works on a copy of the checkout, whose own build stays as it is.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! grep -qw avx512_vnni /proc/cpuinfo 2> /dev/null; then
  echo 'check-amx: skipped, this processor has no AVX-512 VNNI'
  exit 0
fi

for tool in cmake make g++; do
  if ! command -v "$tool" > /dev/null 2>&1; then
    echo "check-amx: skipped, $tool not found (Debian: apt-get install cmake make g++)"
    exit 0
  fi
done

build=build-cmake
headers="$PWD/node_modules/node-addon-api;$PWD/node_modules/node-api-headers/include"
cmake -S native -B "$build" -DSDPA_TESTS_ONLY=ON -DSDPA_STATIC=OFF -DSDPA_SANITIZE= -DSDPA_NODE_HEADERS="$headers" > "$build.log" 2>&1 &&
  cmake --build "$build" --parallel "$(nproc)" --target node_sdpa >> "$build.log" 2>&1 || {
  cat "$build.log"
  exit 1
}

copy=.cache/amx
mkdir -p "$copy/build/Release"
cp "$build/node_sdpa.node" "$copy/build/Release/"
git ls-files -z --cached --others --exclude-standard | xargs -0 tar -cf - 2> /dev/null | tar -xf - -C "$copy"
ln -sfn ../../node_modules "$copy/node_modules"
rm -rf "$copy/dist" && cp -r dist "$copy/"
if [ -d ../shared ]; then ln -sfn "$(cd ../shared && pwd)" .cache/shared; fi # third-party fixtures
cd "$copy"
NODE_SDPA_ISA=amx npx vitest run -t native/amx \
  test/attention.test.ts test/properties.test.ts test/conformance.test.ts test/hostile-numbers.test.ts \
  test/native/determinism.test.ts test/lib/kv-cache
