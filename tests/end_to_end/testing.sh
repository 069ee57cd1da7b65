# What the tests here share; `source testing.sh PATH_TO_TRIREME`. Sets `trireme`,
# and works in a folder of its own, `work`, which goes with the test.
set -euo pipefail
trireme=$PWD/$1
# pictures.py and the like.
export PYTHONPATH=$(realpath "$(dirname "$0")") PYTHONDONTWRITEBYTECODE=1
work=$(mktemp -d /tmp/trireme.XXXXXX)
trap 'rm -rf "$work"' EXIT
cd "$work"
export TMPDIR=$work

fail() {
  echo "FAILED: $*" >&2
  exit 1
}
expect_in() { # expect_in FILE TEXT
  grep -qF -- "$2" "$1" || fail "no '$2' in: $(cat "$1")"
}
expect_error() { # expect_error TEXT COMMAND...
  local text=$1
  shift
  local status=0
  "$@" > error.txt 2>&1 || status=$?
  ((status != 0)) || fail "succeeded: $*"
  # A message does not excuse a program that a signal ends.
  ((status < 128)) || fail "ended with status $status: $*"
  expect_in error.txt "$text"
}
process_of_rank() { # process_of_rank RANK OUT: that trains with --out=OUT
  local process
  for process in /proc/[0-9]*; do
    if grep -zqx "OMPI_COMM_WORLD_RANK=$1" "$process/environ" 2> /dev/null &&
      grep -zqx -- "--out=$2" "$process/cmdline" 2> /dev/null &&
      grep -zqx "TMPDIR=$work" "$process/environ" 2> /dev/null; then
      echo "${process#/proc/}"
      return
    fi
  done
  return 1
}
