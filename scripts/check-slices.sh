#!/usr/bin/env bash
# Runs the tests of attention and of the cache on the code that AMX runs, on a machine without AMX: a build in which
# AVX-512 BF16 computes float32 and float16 by slices too, which there is slower and not done otherwise. Works on a copy
# of the checkout, whose own build stays as it is.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! grep -qw avx512_bf16 /proc/cpuinfo 2> /dev/null; then
  echo 'check-slices: skipped, this processor has no AVX-512 BF16'
  exit 0
fi

copy=.cache/slices
mkdir -p "$copy"
git ls-files -z --cached --others --exclude-standard | xargs -0 tar -cf - 2> /dev/null | tar -xf - -C "$copy"
ln -sfn ../../node_modules "$copy/node_modules"
cd "$copy"
CXXFLAGS=-DSDPA_PROFITABLE_PRODUCTS=6 npx node-gyp rebuild -j max > build.log 2>&1 || {
  cat build.log
  exit 1
}
NODE_SDPA_ISA=avx512bf16 npx vitest run test/attention.test.ts test/properties.test.ts test/lib/kv-cache
