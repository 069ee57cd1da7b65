#!/bin/bash
# Bazel, with the progress that suits a terminal or a log: bazel.sh COMMAND
# [ARGUMENT...]. COMMAND is one that takes build options.
set -euo pipefail
# Some CI runners name no home, or another one than the account's, in which
# .bazelrc's ~ would put the cache.
export HOME=${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}
options=(--disk_cache="$HOME/.cache/trireme/bazel")
command=$1
shift
if [[ $command == build || $command == test ]]; then
  options+=(--show_progress)
  [[ -t 2 ]] || options+=(--curses=no --show_progress_rate_limit=20)
fi
exec bazel "$command" "${options[@]}" "$@"
