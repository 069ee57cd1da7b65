#!/bin/bash
# A job's life on two processes of this machine: watched, told to save and to
# stop, interrupted, left by its launch, and given up where mpirun hangs.
# Usage: life_test.sh PATH_TO_TRIREME
source "$(dirname "$0")/testing.sh" "$1"
cleanup() {
  pkill -KILL -f "$work" 2> /dev/null || true
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
newest() { # newest RUN: the step of its newest checkpoint
  local name
  name=$(ls "$1/checkpoints" | grep -E '^step_[0-9]+$' | tail -n 1)
  echo $((10#${name#step_}))
}

"$trireme" data /usr/share/datasets/fashion-mnist "$work/shards" --idx \
  --split test > data.txt
cat > job.textproto <<JOB
model { dit { hidden: 32 layers: 2 heads: 4 patch: 7 } }
data { webdataset { paths: "$work/shards" } resolution: 28 channels: 1 }
global_batch: 8
steps: 1000000
checkpoint { keep: 0 }
sample { at_end: false }
precision: FP32
JOB
launch=("$trireme" launch "$work/job.textproto" --ranks 2)

echo "== status, checkpoint, stop"
"${launch[@]}" --out run --metrics 127.0.0.1:0 > run.txt 2>&1 &
first=$!
wait_for 60 "$trireme" status run
metrics=$(grep -o 'http://127.0.0.1:[0-9]*/metrics' run.txt)
python3 - "$metrics" <<'PYTHON' || fail "metrics: $metrics"
import sys
import urllib.request

text = urllib.request.urlopen(sys.argv[1], timeout=20).read().decode()
lines = dict(line.rsplit(" ", 1) for line in text.splitlines()
             if not line.startswith("#"))
assert float(lines["trireme_ranks"]) == 2, text
assert any(name.startswith('trireme_rank_silent_seconds{rank="1"')
           for name in lines), text
PYTHON
# Steps come with the next report.
wait_for 10 bash -c "'$trireme' status run | grep -q 'of 1000000'"
"$trireme" status run > status.txt
expect_in status.txt "ranks   2 of 2 on 1 host"
expect_in run.txt "watch  ranks report every 0.2 s"
"$trireme" checkpoint run > order.txt
wait_for 20 bash -c 'test -s run/checkpoints/step_*/manifest.json'
"$trireme" watch run > watch.txt &
"$trireme" stop run > order.txt
wait "$first" || fail "a run that was told to stop: $(cat run.txt)"
wait_for 20 grep -qx "ended" watch.txt
expect_in run.txt "as ordered"
steps=$(wc -l < run/metrics.jsonl)
[[ $(newest run) == "$steps" ]] || fail "$steps steps, saved $(newest run)"
if "$trireme" status run > status.txt 2>&1; then fail "$(cat status.txt)"; fi
expect_in status.txt "no launch of it is running"

echo "== a second launch leaves a running one alone; SIGTERM saves"
"${launch[@]}" --out run --resume > run.txt 2>&1 &
first=$!
wait_for 60 "$trireme" status run
if "${launch[@]}" --out run --resume > second.txt 2>&1; then
  fail "two runs in one folder"
fi
expect_in second.txt "is in use by process"
"$trireme" status run > status.txt
kill -TERM "$first"
status=0
wait "$first" || status=$?
((status == 143)) || fail "status $status after SIGTERM: $(cat run.txt)"
expect_in run.txt "--resume goes on from"
after=$(wc -l < run/metrics.jsonl)
((after > steps)) || fail "no step after the resume"
[[ $(newest run) == "$after" ]] || fail "$after steps, saved $(newest run)"

echo "== SIGTERM while a run draws, all of whose steps are done and saved"
"${launch[@]}" --out drawn --steps 2 --set sample.at_end=true \
  --set sample.steps=1000 --set sample.per_class=40 > drawn.txt 2>&1 &
first=$!
wait_for 60 test -e drawn/checkpoints/step_00000002
sleep 1
begin=$SECONDS
kill -TERM "$first"
status=0
wait "$first" || status=$?
((status == 143 && SECONDS - begin < 10)) || fail "$status: $(cat drawn.txt)"
expect_in drawn.txt "stopped after all steps, as ordered"
[[ ! -e drawn/samples/step_00000002.png ]] || fail "drew to the end"
"$trireme" sample drawn --out drawn.png --steps 1 --per_class 1 > sample.txt

echo "== a launch that is killed: another one takes the run up; without one it"
echo "   saves and ends"
"${launch[@]}" --out left --tls > left.txt 2>&1 &
first=$!
wait_for 60 "$trireme" status left
process=$(process_of_rank 0 left)
kill -KILL "$first"
wait "$first" || true
if "$trireme" status left > status.txt 2>&1; then fail "$(cat status.txt)"; fi
"${launch[@]}" --out left --resume > second.txt 2>&1 &
second=$!
wait_for 60 bash -c "'$trireme' status left | grep -q 'of 1000000'"
expect_in second.txt "takes up the run in left"
expect_in left/coordinator.json "BEGIN CERTIFICATE"
[[ $(process_of_rank 0 left) == "$process" ]] || fail "ranks were started again"
saves() { ls left/checkpoints | grep -c '^step_[0-9]*$' || true; }
before=$(saves)
"$trireme" checkpoint left > order.txt
wait_for 20 bash -c "(( \$(ls left/checkpoints | grep -c '^step_[0-9]*\$') > $before ))"
kill -KILL "$second"
wait "$second" || true
wait_for 90 grep -q "as ordered" left.txt
[[ $(newest left) == "$(wc -l < left/metrics.jsonl)" ]] || fail "not saved"
wait_for 20 bash -c "! kill -0 $process"

echo "== a rank that is killed, before the first step too, and one that is"
echo "   stopped: started again, to the same bits as without"
more=(--steps 400 --set checkpoint.every=20)
"${launch[@]}" "${more[@]}" --out whole > whole.txt
mkdir killed
cat > killed/mpirun <<'SCRIPT'
#!/bin/bash
if [[ ! -e started ]]; then
  touch started
  kill -KILL $$
fi
exec /usr/bin/mpirun "$@"
SCRIPT
chmod +x killed/mpirun
PATH=$work/killed:$PATH "${launch[@]}" "${more[@]}" --out hurt > hurt.txt 2>&1 &
first=$!
for signal in KILL STOP; do
  # A new start is recorded before its ranks have done a step.
  wait_for 60 bash -c "'$trireme' status hurt | grep -q '^state   training'"
  process=$(process_of_rank 1 hurt)
  rm hurt/coordinator.json # another one comes with the next start
  kill "-$signal" "$process"
  wait_for 60 bash -c "! kill -0 $process"
done
wait "$first" || fail "was not brought to its end: $(cat hurt.txt)"
(($(grep -c "ranks were lost" hurt.txt) == 3)) || fail "$(cat hurt.txt)"
expect_in hurt.txt "ranks were lost after step 0;"
expect_in hurt.txt "is lost: it is stopped"
same_as_whole() { # the last checkpoint, file by file
  local file
  for file in whole/checkpoints/step_00000400/*; do
    cmp "$file" "hurt/checkpoints/step_00000400/${file##*/}"
  done
}
same_as_whole

echo "== starts in vain follow one another ever more slowly; SIGTERM ends a pause"
mkdir vain
printf '#!/bin/bash\nkill -KILL $$\n' > vain/mpirun
chmod +x vain/mpirun
PATH=$work/vain:$PATH "${launch[@]}" --out in_vain > in_vain.txt 2>&1 &
first=$!
wait_for 30 grep -qF "checkpoint in 4 s (attempt 4 of 5" in_vain.txt
begin=$SECONDS
kill -TERM "$first"
status=0
wait "$first" || status=$?
((status == 143 && SECONDS - begin < 3)) || fail "$status: $(cat in_vain.txt)"
expect_in in_vain.txt "checkpoint (attempt 1 of 5"
expect_in in_vain.txt "checkpoint in 1 s (attempt 2 of 5"
expect_in in_vain.txt "ends as it was told to, while no rank runs"

echo "== sent back to an older checkpoint, then hurt: not sent back again"
"${launch[@]}" "${more[@]}" --out hurt --resume --checkpoint step_00000100 \
  > back.txt 2>&1 &
first=$!
wait_for 60 test -e hurt/checkpoints/step_00000200.aside
wait_for 60 test -e hurt/checkpoints/step_00000200
kill -KILL "$(process_of_rank 1 hurt)"
wait "$first" || fail "was not brought to its end: $(cat back.txt)"
expect_in back.txt "ranks were lost"
(($(grep -c "resumed after step 100" back.txt) == 1)) || fail "$(cat back.txt)"
same_as_whole

echo "== an mpirun that outlives its ranks is ended, and what it started with it"
mkdir bin
cat > bin/mpirun <<'SCRIPT'
#!/bin/bash
# One rank, which dies; then nothing that would listen to anyone.
trap '' TERM USR1
while [[ $1 != */trireme* ]]; do shift; done
"$@" &
sleep 5
kill -KILL $!
sleep 1000
SCRIPT
chmod +x bin/mpirun
begin=$SECONDS
status=0
PATH=$work/bin:$PATH "$trireme" launch "$work/job.textproto" --ranks 1 \
  --restarts 0 --out dead > dead.txt 2>&1 || status=$?
((status == 1)) || fail "status $status: $(cat dead.txt)"
((SECONDS - begin < 60)) || fail "took $((SECONDS - begin)) s"
expect_in dead.txt "has been silent for"
expect_in dead.txt "all ranks are ended"
for process in /proc/[0-9]*; do
  if grep -zqx "TMPDIR=$work" "$process/environ" 2> /dev/null &&
    [[ $(< "$process/comm") == sleep && ${process#/proc/} != $$ ]]; then
    fail "is left: $(tr '\0' ' ' < "$process/cmdline")"
  fi
done
