#!/bin/bash
# A rank never hangs silently: each mistake must end all ranks with a non-zero
# status and a message that says who waits for whom in what.
set -uo pipefail

mpi_run=$1
program=$2
failed=0

# expect MISTAKE PATTERN
expect() {
  local output
  if output=$("$mpi_run" 2 "$program" "$1" 2>&1); then
    echo "$1: ended with status 0"
    failed=1
  fi
  if ! grep -Eq "$2" <<<"$output"; then
    printf '%s: nothing like "%s" in:\n%s\n' "$1" "$2" "$output"
    failed=1
  fi
}

expect deadlock "deadline .* receive 'activation 7' on 'pair'"
expect deadlock "^ +0 .* receive 'activation 7' +pair \[0, 1\] +1$"
expect deadlock "^verdict: ranks wait for one another in a circle: 0 in receive 'activation 7' -> 1 in"
expect missing "deadline .* (all-reduce 'bucket 2'|receive 'activation 7') on 'pair'"
expect size "receive 'activation 7': rank 0 sent 32 bytes, expected 64"
expect long "receive 'activation 7'.*truncated"
expect tag "send 'activation 7': tag -1, expected 0 to [0-9]+"

# What is too long must not be written past the receive's buffer: transports
# that let one process write into another's memory do so by themselves.
for transport in self,vader self,tcp; do
  export OMPI_MCA_btl=$transport
  expect overrun "receive 'activation 7'.*truncated"
  if "$mpi_run" 2 "$program" overrun 2>&1 | grep -F "written past the end"; then
    echo "overrun over $transport"
    failed=1
  fi
done
exit "$failed"
