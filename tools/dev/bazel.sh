#!/bin/bash
# Bazel, with the cache that all users of this machine's account share and the
# progress that suits a terminal or a log: bazel.sh COMMAND [ARGUMENT...].
set -euo pipefail
# Some CI runners name no home, or another one than the account's, in which
# .bazelrc's ~ would put the cache.
export HOME=${HOME:-$(getent passwd "$(id -u)" | cut -d: -f6)}
command=$1
shift
options=()
case $command in
  build | test | run | info | cquery | aquery)
    options+=(--disk_cache="$HOME/.cache/trireme/bazel") ;;
esac
case $command in
  build | test)
    options+=(--show_progress)
    [[ -t 2 ]] || options+=(--curses=no --show_progress_rate_limit=20) ;;
esac
exec bazel "$command" "${options[@]}" "$@"
