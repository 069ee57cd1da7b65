#!/bin/bash
# Formats the C++ sources (.clang-format); with --check changes nothing and
# fails when one is not formatted.
set -euo pipefail
options=(-i)
if [[ ${1:-} == --check ]]; then
  options=(--dry-run --Werror)
elif [[ $# -gt 0 ]]; then
  echo "format: unknown argument '$1', expected --check" >&2
  exit 2
fi
cd "$(dirname "$0")/../.."
find . -mindepth 1 \( -name 'bazel-*' -o -name '.*' \) -prune -o \
  -type f \( -name '*.cc' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' \) \
  -print0 |
  xargs -0 --no-run-if-empty clang-format --style=file "${options[@]}"
