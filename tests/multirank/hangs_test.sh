#!/bin/bash
# A rank never hangs silently: whatever keeps a rank of four from its part, all
# end with a non-zero status soon after the deadline (2 s), and one of them
# prints a table of who waits for whom in what.
set -uo pipefail

mpi_run=$1
program=$2
failed=0
# No output means none, also of the leak sanitizer.
export LSAN_OPTIONS=print_suppressions=0

# run WAY: sets $output and $status.
run() {
  local begin=$SECONDS
  output=$("$mpi_run" 4 "$program" "$1" 2>&1)
  status=$?
  if ((SECONDS - begin > 12)); then
    echo "$1: took $((SECONDS - begin)) s"
    failed=1
  fi
  if grep -Eq "(WARNING|ERROR): [A-Za-z]+Sanitizer" <<<"$output"; then
    printf '%s: a sanitizer complains:\n%s\n' "$1" "$output"
    failed=1
  fi
}

# expect WAY PATTERN...: each pattern on a line of its own of the one table.
expect() {
  local way=$1 pattern
  shift
  run "$way"
  if ((status == 0)); then
    echo "$way: ended with status 0"
    failed=1
  fi
  for pattern in "$@"; do
    if ! grep -Eq "$pattern" <<<"$output"; then
      printf '%s: no line like "%s" in:\n%s\n' "$way" "$pattern" "$output"
      failed=1
    fi
  done
  if (($(grep -c '^verdict:' <<<"$output") != 1)); then
    printf '%s: expected one table in:\n%s\n' "$way" "$output"
    failed=1
  fi
}

all='tp activations \[0-3\]'

run none
if ((status != 0)) || [[ -n $output ]]; then
  printf 'none: status %d, expected 0 and no output:\n%s\n' "$status" "$output"
  failed=1
fi

expect collective \
  "rank [0-3]: deadline of 2.0 s passed waiting for" \
  "^ +0 +2\.[0-9] s +all-reduce 'A' #2 +$all +2$" \
  "^ +1 +2\.[0-9] s +all-reduce 'A' #2 +$all +2$" \
  "^ +2 +2\.[0-9] s +all-gather 'B' #2 +$all +0, 1, 3$" \
  "^ +3 +2\.[0-9] s +all-reduce 'A' #2 +$all +2$" \
  "^verdict: ranks 0, 1, 3 started all-reduce 'A', rank 2 all-gather 'B', both as collective #2 of $all: different operations$"

expect size \
  "rank [0-3]: all-reduce 'A': (rank [0-3] sent|message with rank)" \
  "^ +[0-3] +- +failed: all-reduce 'A'" \
  "^verdict: ranks? .* started all-reduce 'A' of (256|512) bytes, .*different sizes$"

expect finished \
  "^ +0 +2\.[0-9] s +all-reduce 'A' #2 +$all +3$" \
  "^ +3 +- +finished 2\.[0-9] s ago" \
  "^verdict: rank 3 has not started its part of all-reduce 'A' #2 on $all"

expect computing \
  "^ +1 +2\.[0-9] s +all-reduce 'A' #2, during Forward mb=3 chunk=0 +$all +3$" \
  "^ +3 +- +computing in Forward mb=3 chunk=0 for 2\.[0-9] s" \
  "^verdict: rank 3 has not started its part of all-reduce 'A' #2 on $all"

expect receive \
  "^ +0 +2\.[0-9] s +all-reduce 'A' #2 +$all +1$" \
  "^ +1 +2\.[0-9] s +receive 'Recv activation mb=3 hop=0' +pp messages \[0, 1\] +0$" \
  "^ +3 +2\.[0-9] s +all-reduce 'A' #2 +$all +1$" \
  "^verdict: ranks wait for one another in a circle: 0 in all-reduce 'A' #2 -> 1 in receive 'Recv activation mb=3 hop=0' -> 0$"

expect creation \
  "^ +0 +[23]\.[0-9] s +creation #0 +$all +3$" \
  "^ +3 +- +computing" \
  "^verdict: rank 3 has not started its part of creation #0 on $all"

expect stopped \
  "^ +0 +2\.[0-9] s +all-reduce 'A' #2 +$all +3$" \
  "^ +3 +- +no answer \(dead or stuck outside communication\)$" \
  "^verdict: rank 3 has not started its part of all-reduce 'A' #2 on $all"

run stopped_leader
if ((status == 0)) || ! grep -Eq "world rank 0 does not react" <<<"$output" ||
  ! grep -Eq "^ +[1-3] +8\.[0-9] s +all-reduce 'A' #2 +$all" <<<"$output"; then
  printf 'stopped_leader: status %d:\n%s\n' "$status" "$output"
  failed=1
fi
exit "$failed"
