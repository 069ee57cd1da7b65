#!/bin/bash
# Bazel, with the progress that suits a terminal or a log: bazel.sh COMMAND
# [ARGUMENT...].
set -euo pipefail
# Bazel needs a home for its cache, which some CI runners do not name.
export HOME=${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}
command=$1
shift
options=()
if [[ $command == build || $command == test ]]; then
  options=(--show_progress)
  [[ -t 2 ]] || options+=(--curses=no --show_progress_rate_limit=20)
fi
exec bazel "$command" "${options[@]}" "$@"
