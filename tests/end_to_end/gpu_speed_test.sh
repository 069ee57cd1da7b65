#!/bin/bash
# What a GPU's check measures, on the processor: each of its runs trains, and one
# that does not is told.
source "$(dirname "$0")/testing.sh" "$1"
speed=$OLDPWD/$2

echo "== a line for each run"
"$speed" "$trireme" speed cpu 32 2 2 32 4 > speed.json 2> speed.txt ||
  fail "$(cat speed.json speed.txt)"
[[ $(wc -l < speed.json) == 5 ]] || fail "$(cat speed.json)"
for run in bf16 fp8 fp8_delayed bf16_quarter; do
  grep -qE "^\{\"run\": \"$run\", \"steps\": [0-9]+, \"step_s\": [0-9.e-]+, \"model_flops_per_s\": [0-9.e+]+\}$" \
    speed.json || fail "no figures of $run in: $(cat speed.json)"
done
python3 - <<'PYTHON'
import json

streams = [json.loads(line) for line in open("speed.json")][-1]
assert streams["run"] == "streams" and streams["steps"] == 3, streams
assert 0 <= streams["compute_idle_percent"] < 50, streams
PYTHON

echo "== runs that do not train"
status=0
"$speed" "$trireme" failed cuda:99 32 2 2 32 4 > failed.json 2> failed.txt ||
  status=$?
((status == 1)) || fail "status $status"
expect_in failed.json '{"run": "fp8", "steps": 0, "status": 1}'
expect_in failed.txt "--device"
