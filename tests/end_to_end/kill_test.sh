#!/bin/bash
# Killed and stopped again and again, at instants drawn from a seed and so inside
# of saves too (there is one every second step): the run ends with the bits of one
# that nobody touched. Usage: kill_test.sh PATH_TO_TRIREME [SEED [BLOWS]]
source "$(dirname "$0")/testing.sh" "$1"
seed=${2:-1}
blows=${3:-5}
RANDOM=$seed
steps=$((25 * (blows + 1)))

"$trireme" data /usr/share/datasets/fashion-mnist "$work/shards" --idx \
  --split test > data.txt
cat > job.textproto <<JOB
model { dit { hidden: 32 layers: 2 heads: 4 patch: 7 } }
data { webdataset { paths: "$work/shards" } resolution: 28 channels: 1 }
global_batch: 8
steps: $steps
checkpoint { every: 2 keep: 3 }
sample { at_end: false }
precision: FP32
JOB
launch=("$trireme" launch "$work/job.textproto" --ranks 2 --restarts 20)
lines() { # lines RUN: steps that its metrics tell of
  if [[ -e $1/metrics.jsonl ]]; then wc -l < "$1/metrics.jsonl"; else echo 0; fi
}
mine() { # mine PID...: those that still run
  local process
  for process in "$@"; do
    if grep -q '^State:.[^ZX]' "/proc/$process/status" 2> /dev/null &&
      grep -zqx "TMPDIR=$work" "/proc/$process/environ" 2> /dev/null; then
      echo "$process"
    fi
  done
}

"${launch[@]}" --out whole > whole.txt 2>&1 || fail "$(cat whole.txt)"
"${launch[@]}" --out hurt > hurt.txt 2>&1 &
first=$!
# The second one ends it at once.
trap 'kill "$first" && sleep 1 && kill "$first" && wait; rm -rf "$work"' EXIT
struck=()
for ((blow = 1, at = 0; blow <= blows; ++blow)); do
  at=$((at + 6 + RANDOM % 14))
  way=$((RANDOM % 5))
  pause=$(printf '0.%03d' $((RANDOM % 200)))
  for ((i = 0; i < 1800 && $(lines hurt) < at; ++i)); do sleep 0.1; done
  (($(lines hurt) >= at)) || fail "seed $seed: no step $at: $(cat hurt.txt)"
  sleep "$pause"
  ranks=("$(process_of_rank 0 hurt)" "$(process_of_rank 1 hurt)") || continue
  mpirun=$(awk '{ print $4 }' "/proc/${ranks[0]}/stat") || continue
  case $way in
    0) blow_at=("${ranks[0]}") signal=KILL ;;
    1) blow_at=("${ranks[1]}") signal=KILL ;;
    2) blow_at=("${ranks[@]}") signal=KILL ;;
    3) blow_at=("$mpirun") signal=KILL ;;
    4) blow_at=("${ranks[RANDOM % 2]}") signal=STOP ;;
  esac
  echo "blow $blow at step $at: $signal, way $way"
  kill "-$signal" "${blow_at[@]}" 2> /dev/null || continue
  struck+=("${ranks[@]}" "$mpirun")
  # The next one strikes the ranks that come after these.
  for ((i = 0; i < 600; ++i)); do
    [[ -n $(mine "${ranks[@]}") ]] || break
    sleep 0.1
  done
  [[ -z $(mine "${ranks[@]}") ]] || fail "seed $seed: still there: ${ranks[*]}"
done
status=0
wait "$first" || status=$?
trap 'rm -rf "$work"' EXIT
((status == 0)) || fail "seed $seed: was not brought to its end: $(cat hurt.txt)"
expect_in hurt.txt "starts again from the newest checkpoint"
left=$(mine "${struck[@]}")
[[ -z $left ]] || fail "seed $seed: processes are left: $left"
last=checkpoints/step_$(printf '%08d' "$steps")
for file in whole/"$last"/*; do
  cmp "$file" "hurt/$last/${file##*/}" || fail "seed $seed: ${file##*/} differs"
done
losses() { grep -o '"step":[0-9]*\|"loss":[^,}]*' "$1/metrics.jsonl"; }
diff <(losses whole) <(losses hurt) || fail "seed $seed: other steps or losses"
echo "PASSED"
