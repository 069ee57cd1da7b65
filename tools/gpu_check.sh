#!/bin/bash
# Checks a node's GPU with what `./dev bundle` packed, in at most 8 minutes: the
# tests of instructions, of the device, of every kernel and of training, then how
# fast every op is beside products and copies, how fast a DiT of XL/2's size and an
# MMDiT of FLUX's width train in PyTorch, where python3 has one that sees the GPU,
# and how fast models train here (gpu_speed.sh), these two among them, in what is
# left of the time. Writes JSON with
# the device's name; what each test said lies in the folder of the same name. The
# status is not 0 where one failed.
# Usage: gpu_check.sh [OUT.json]
set -uo pipefail
out=$(realpath "${1:-gpu_check.json}")
logs=${out%.json}
here=$(dirname "$(readlink -f "$0")")
readonly most_seconds=470

property() {
  nvidia-smi --query-gpu="$1" --format=csv,noheader 2> /dev/null | head -n 1
}

mkdir -p "$logs"
results=()
failed=0
# Runs a test for what is left of the time, and notes how it ended.
check() {
  local name=$1 begin=$SECONDS status=0 passed
  timeout $((most_seconds > SECONDS ? most_seconds - SECONDS : 1)) \
    "$here/run" "$name" > "$logs/$name.log" 2>&1 || status=$?
  ((status == 0)) || failed=1
  passed=$(grep -c '^\[       OK \]' "$logs/$name.log")
  results+=("$(printf \
    '{"test": "%s", "status": %d, "passed": %d, "seconds": %d}' \
    "$name" "$status" "$passed" $((SECONDS - begin)))")
  echo "$name: status $status, $passed passed, $((SECONDS - begin)) s"
}

# Keeps the lines of JSON of what measures, in at most so many seconds. That there
# is no time left for some (124) is no failure.
measure() { # measure NAME SECONDS COMMAND...
  local name=$1 left=$((most_seconds - SECONDS)) begin=$SECONDS status=0
  ((left > 1)) || left=1
  timeout $(($2 < left ? $2 : left)) "${@:3}" \
    > "$logs/$name.json" 2> "$logs/$name.log" || status=$?
  ((status == 0 || status == 124)) || failed=1
  echo "$name: status $status, $((SECONDS - begin)) s"
}

# A line that the time cut off is none.
lines_of() { # lines_of NAME
  grep -E '^\{.*\}$' "$logs/$1.json" | paste -sd,
}

check ptx_test
check cuda_device_test
check cuda_ops_test
check cuda_parity_test
# Ceilings of products and copies, and each op beside them, by the GPU's clock.
measure kernels 60 "$here/run" op_cases_benchmark --device cuda --json \
  --seconds 0.02
# PyTorch's steps, by its models' names; without it nothing is compared.
measure_peer() { # measure_peer MODEL SECONDS SECONDS_OF_A_WAY
  measure "peer_$1" "$2" python3 "$here/bench/peer_step.py" --device cuda \
    --models "$1" --dtypes bf16 --threads 1 --seconds 3 --budget "$3"
}
if python3 -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' \
  2> /dev/null; then
  measure_peer dit_xl2 100 30
  measure_peer mmdit_flux 80 25
fi
measure speed "$most_seconds" "$here/gpu_speed.sh" "$here/run_trireme" \
  "$logs/speed"
cat "$logs/speed.json"

figure_of() { # figure_of JSON NAME
  grep -oE "\"$2\": [0-9.e+-]+" <<< "$1" | head -n 1 | cut -d ' ' -f 2
}
# A member of "peers": what PyTorch took in each way, and its fastest way's time
# over ours; null is what was not measured.
peer() { # peer MODEL RUN_OF_SPEED
  local figures= theirs ours ratio=null
  [[ ! -e $logs/peer_$1.json ]] || figures=$(lines_of "peer_$1")
  theirs=$(figure_of "$figures" "$1.bf16.threads1.step_s")
  ours=$(figure_of "$(grep -F "\"run\": \"$2\"," "$logs/speed.json")" step_s)
  if [[ -n $theirs && -n $ours ]]; then
    ratio=$(awk -v a="$theirs" -v b="$ours" 'BEGIN {print a / b}')
  fi
  printf '"%s": {"run": "%s", "ratio": %s, "figures": %s}' "$1" "$2" "$ratio" \
    "${figures:-null}"
}
{
  gpu=$(property name)
  driver=$(property driver_version)
  printf '{"device": "%s", "driver": "%s", "tests": [\n' "${gpu:-none}" \
    "${driver:-none}"
  (IFS=$',\n'; printf '%s' "${results[*]}")
  printf '], "kernels": [\n'
  lines_of kernels
  printf '], "speed": [\n'
  lines_of speed
  printf '], "peers": {\n'
  peer dit_xl2 bf16
  printf ',\n'
  peer mmdit_flux bf16_flux
  printf '}}\n'
} > "$out"
echo "wrote $out"
exit "$failed"
