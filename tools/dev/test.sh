#!/bin/bash
# Runs tests and counts them: test.sh [BAZEL_OPTION|TARGET...], by default all.
# Fails when a test or a build does.
set -euo pipefail
[[ " $*" == *" //"* || " $*" == *" :"* ]] || set -- "$@" //...
events=$(mktemp)
trap 'rm -f "$events"' EXIT
status=0
tools/dev/bazel.sh test --keep_going --build_event_json_file="$events" "$@" ||
  status=$?
python3 tools/dev/test_summary.py "$events" "$status"
