#!/usr/bin/env bash
# Compiles native/bench/ and runs it: `scaling` with the given arguments ([most threads] [ISA]), or, after the word jobs,
# `jobs` ([neighbours] [threads]). Needs bash, cmake, make and a C++17 compiler, no Node. The programs are linked
# statically, so they may be carried to a machine that has none of these: build-cmake-bench/sdpa_scaling, sdpa_jobs.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=build-cmake-bench
cmake -S native -B "$folder" -DSDPA_TESTS_ONLY=ON -DSDPA_STATIC=ON > "$folder.log" 2>&1 &&
  cmake --build "$folder" --parallel "$(nproc)" --target sdpa_scaling sdpa_jobs >> "$folder.log" 2>&1 || {
  cat "$folder.log"
  exit 1
}
program=scaling
if [[ ${1:-} == jobs ]]; then
  program=jobs
  shift
fi
exec "$folder/sdpa_$program" "$@"
