#!/usr/bin/env bash
# Runs the C++ tests on processors that this machine is not: arm64 (the NEON unit) and two steps of the x86-64
# ladder, where a kernel chosen wrongly dies of an illegal instruction. Needs qemu-user and, for arm64, a cross
# compiler; where they are missing it says so and skips, but a CI machine on which we are root installs them.
set -euo pipefail
cd "$(dirname "$0")/.."

has() { command -v "$1" > /dev/null 2>&1; }
skip() { echo "check-emulated: skipped $1: $2 not found (Debian: apt-get install $3)"; }

build() { # build FOLDER CMAKE_OPTION...
  local folder=$1
  shift
  cmake -S native -B "$folder" -DSDPA_TESTS_ONLY=ON -DSDPA_STATIC=ON "$@" > "$folder.log" 2>&1 &&
    cmake --build "$folder" --parallel "$(nproc)" --target sdpa_tests >> "$folder.log" 2>&1 || {
    cat "$folder.log"
    return 1
  }
}

# All of them side by side, in parts: an emulator spends most of its time in one thread. `finish` waits for them and
# prints what they said, in order.
names=()
outputs=()
processes=()
trap 'kill $(jobs -p) 2> /dev/null || true' EXIT # where a build failed

run() { # run NAME EMULATOR... TESTS
  local name=$1 tests parts part output
  shift
  # /proc/cpuinfo speaks of the machine underneath, and a limit on address space would bind the emulator.
  mapfile -t tests < <("$@" --list | grep -vE 'cpuFeatures_agreeWithTheKernel|kvCache_limitedAddressSpace')
  parts=$(($(nproc) < 8 ? $(nproc) : 8))
  for ((part = 0; part < parts; part++)); do
    output=build-cmake-emulated-${#names[@]}.log
    "$@" $(printf '%s\n' "${tests[@]}" | awk "NR % $parts == $part") > "$output" 2>&1 &
    names+=("$name, part $((part + 1)) of $parts")
    outputs+=("$output")
    processes+=($!)
  done
}

finish() {
  local failed=0
  for i in "${!names[@]}"; do
    wait "${processes[i]}" || failed=1
    echo "check-emulated: ${names[i]}"
    cat "${outputs[i]}"
  done
  return $failed
}

if ! has cmake || ! has g++; then
  skip everything 'cmake or g++' 'cmake g++'
  exit 0
fi
if [ "${CI:-}" = true ] && [ "$(id -u)" = 0 ] && has apt-get && ! { has qemu-x86_64 && has qemu-aarch64 && has aarch64-linux-gnu-g++; }; then
  { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends g++-aarch64-linux-gnu qemu-user; } \
    > build-cmake-apt.log 2>&1 || echo 'check-emulated: could not install the emulators'
fi

if [ "$(uname -m)" != x86_64 ] || ! has qemu-x86_64; then
  skip 'the x86-64 ladder' 'an x86-64 machine or qemu-x86_64' qemu-user
else
  build build-cmake # that of scripts/test-native.mjs, linked otherwise
  run 'x86-64, SSE only (Nehalem)' qemu-x86_64 -cpu Nehalem build-cmake/sdpa_tests
  run 'x86-64, AVX2 (max)' qemu-x86_64 -cpu max build-cmake/sdpa_tests
fi

if ! has aarch64-linux-gnu-g++ || ! has qemu-aarch64; then
  skip arm64 'aarch64-linux-gnu-g++ or qemu-aarch64' 'g++-aarch64-linux-gnu qemu-user'
else
  build build-cmake-arm64 -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
    -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++
  run 'arm64 (NEON)' qemu-aarch64 build-cmake-arm64/sdpa_tests
fi

finish
