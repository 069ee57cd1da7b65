#!/bin/bash
# Copies in the hosts' memory: a run that loses ranks goes on from them, to the
# same bits, one that loses a host from those of the next.
# Usage: memory_copies_test.sh PATH_TO_TRIREME
source "$(dirname "$0")/testing.sh" "$1"
kill_ranks() { # kill_ranks OUT: those of a run, of which there may be none
  local rank process
  for rank in 0 1; do
    process=$(process_of_rank "$rank" "$1") && kill -KILL "$process" || true
  done
}
gone() { ! process_of_rank 0 "$1" && ! process_of_rank 1 "$1"; }
cleanup() {
  local out
  for out in hurt dead hosts; do kill_ranks "$out"; done
  rm -rf "$work"
}
trap cleanup EXIT

wait_for() { # wait_for SECONDS COMMAND...
  local i
  for ((i = 0; i < 10 * $1; ++i)); do
    if "${@:2}" > /dev/null 2>&1; then return; fi
    sleep 0.1
  done
  fail "waited $1 s for: ${*:2}"
}
lines_of() { wc -l < "$1/metrics.jsonl"; }
did() { (($(lines_of "$1") >= $2)); } # did RUN STEPS
same_as_whole() { # the last checkpoint of a run, file by file
  local file
  for file in whole/checkpoints/step_00000160/*; do
    cmp "$file" "$1/checkpoints/step_00000160/${file##*/}"
  done
}

"$trireme" data /usr/share/datasets/fashion-mnist "$work/shards" --idx \
  --split test > data.txt
mkdir memory
cat > job.textproto <<JOB
model { dit { hidden: 32 layers: 2 heads: 4 patch: 7 } }
data { webdataset { paths: "$work/shards" } resolution: 28 channels: 1 }
global_batch: 8
steps: 160
checkpoint { memory_every: 2 memory_folder: "$work/memory" }
optimizer { ema_decay: 0.9 }
sample { at_end: false }
precision: FP32
JOB
cat > plan.textproto <<PLAN
grid { dp: 2 }
sharding: OPTIMIZER
PLAN
launch=("$trireme" launch "$work/job.textproto" --plan "$work/plan.textproto")

echo "== they are made and removed again"
"${launch[@]}" --out whole > whole.txt
expect_in whole.txt "copies every 2 steps in $work/memory"
expect_in whole.txt "on this host alone"
[[ -z $(ls memory) ]] || fail "is left: $(ls memory)"

echo "== a rank that is killed: the run goes on from them"
"${launch[@]}" --out hurt > hurt.txt 2>&1 &
first=$!
wait_for 60 did hurt 20
kill -KILL "$(process_of_rank 1 hurt)"
wait "$first" || fail "was not brought to its end: $(cat hurt.txt)"
# There is no other checkpoint.
expect_in hurt.txt ", from copies in memory"
same_as_whole hurt
[[ -z $(ls memory) ]] || fail "is left: $(ls memory)"

echo "== what a dead run left in its place is removed, and not taken"
"${launch[@]}" --out dead > dead.txt 2>&1 &
first=$!
wait_for 60 did dead 20
kill -KILL "$first"
kill_ranks dead
wait "$first" || true
wait_for 20 gone dead
[[ -n $(ls memory) ]] || fail "no copies of a run that was killed"
mv dead buried
"${launch[@]}" --out dead > dead.txt 2>&1
same_as_whole dead
[[ -z $(ls memory) ]] || fail "is left: $(ls memory)"

echo "== several hosts, where names of hosts can be made up: one is lost with"
echo "   its memory"
if unshare --uts true 2> /dev/null; then
  on() { # on HOST HOST [OPTION...]: a rank on each
    local rank=("$trireme" train "$work/job.textproto" --plan
      "$work/plan.textproto" --out=hosts "${@:3}")
    mpirun --allow-run-as-root --oversubscribe \
      -np 1 unshare --uts sh -c "hostname $1; exec \"\$@\"" sh "${rank[@]}" : \
      -np 1 unshare --uts sh -c "hostname $2; exec \"\$@\"" sh "${rank[@]}"
  }
  on first second > hosts.txt 2>&1 &
  first=$!
  wait_for 60 did hosts 20
  expect_in hosts.txt "on its host and the next"
  kill_ranks hosts
  wait "$first" || true
  rm -r memory/*-first
  on second third --resume > hosts.txt 2>&1 || fail "$(cat hosts.txt)"
  expect_in hosts.txt ", from copies in memory"
  same_as_whole hosts
else
  echo "skipped: they cannot"
fi
