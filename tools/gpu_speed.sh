#!/bin/bash
# Trains a DiT of DiT-XL/2's width and depth on made-up pictures, 1,024 tokens
# each, for a few steps in BF16, in FP8, and in FP8 with scales of earlier steps,
# in BF16 on pictures of a quarter of the tokens, and, where no sizes are given, an
# MMDiT of FLUX's width and a fifth of its depth and a DiT of 2 billion parameters,
# and says how fast: a line of JSON for each, of the median of the steps
# behind the first four. In between one of what streams of a DiT of that width and
# four layers waited for (bench/stream_gaps.py), where there is a python3. What the
# runs said lies in FOLDER.
# Usage: gpu_speed.sh TRIREME FOLDER [DEVICE [HIDDEN LAYERS HEADS SIDE BATCH]]
set -euo pipefail
here=$(dirname "$(readlink -f "$0")")
trireme=$(realpath "${1:?TRIREME}")
folder=${2:?FOLDER}
device=${3:-cuda}
hidden=${4:-1152} layers=${5:-28} heads=${6:-16} side=${7:-256} batch=${8:-16}
readonly first=4 steps=12 pictures=64 most_seconds=150

process=
trap '[[ -z $process ]] || kill -KILL "$process" 2> /dev/null' EXIT
trap 'exit 124' TERM

mkdir -p "$folder"
cd "$folder"
big_endian() {
  printf '%b' "$(printf '\\x%02x' $(($1 >> 24 & 255)) $(($1 >> 16 & 255)) \
    $(($1 >> 8 & 255)) $(($1 & 255)))"
}
make_data() { # make_data SIDE
  local side=$1
  mkdir -p "data_$side"
  {
    printf '\x00\x00\x08\x03'
    big_endian "$pictures"
    big_endian "$side"
    big_endian "$side"
    head -c $((pictures * side * side)) /dev/urandom
  } > "data_$side/train-images-idx3-ubyte"
  {
    printf '\x00\x00\x08\x01'
    big_endian "$pictures"
    head -c "$pictures" /dev/zero
  } > "data_$side/train-labels-idx1-ubyte"
}
make_data "$side"
make_data $((side / 2))

write_job() { # write_job NAME MODEL STEPS FIELDS
  cat > "$1.textproto" <<JOB
name: "$1"
model { $2 }
data { idx { folder: "$PWD/data_$side" } resolution: $side }
global_batch: $batch
steps: $3
checkpoint { every_minutes: 0 }
optimizer { learning_rate: 1e-4 }
sample { at_end: false }
$4
JOB
  rm -rf "$1"
}
dit() { # dit LAYERS
  echo "dit { hidden: $hidden layers: $1 heads: $heads patch: 8 }"
}

# Trains until it has seen enough steps; without the checkpoint at a run's end,
# which takes gigabytes.
measure() { # measure NAME MODEL FIELDS_OF_THE_JOB
  local name=$1 lines=0 metrics=$1/metrics.jsonl status=0
  write_job "$name" "$2" 100000 "$3"
  "$trireme" train "$name.textproto" --out "$name" --device "$device" \
    > "$name.log" 2>&1 &
  process=$!
  local until=$((SECONDS + most_seconds))
  while ((lines < first + steps && SECONDS < until)) &&
    kill -0 "$process" 2> /dev/null; do
    sleep 0.5
    [[ ! -e $metrics ]] || lines=$(wc -l < "$metrics")
  done
  kill -KILL "$process" 2> /dev/null || true
  wait "$process" 2> /dev/null || status=$?
  process=
  if ((lines < first + steps)); then
    printf '{"run": "%s", "steps": %d, "status": %d}\n' "$name" "$lines" \
      "$status"
    tail -n 5 "$name.log" >&2
    return 1
  fi
  local figures=("$name" $((lines - first))) figure
  for figure in step_s model_flops_per_s; do
    figures+=("$(tail -n "+$((first + 1))" "$metrics" |
      grep -oE "\"$figure\":[0-9.e+-]+" | cut -d: -f2 | sort -g |
      awk '{all[NR] = $1} END {print all[int((NR + 1) / 2)]}')")
  done
  printf '{"run": "%s", "steps": %d, "step_s": %s, "model_flops_per_s": %s}\n' \
    "${figures[@]}"
}

# Trains for a few steps to the end, of which the trace is.
measure_streams() { # measure_streams NAME MODEL
  if ! command -v python3 > /dev/null; then
    echo "$1: no python3, hence not measured" >&2
    return 0
  fi
  write_job "$1" "$2" 4 ""
  if ! "$trireme" train "$1.textproto" --out "$1" --device "$device" --trace \
    > "$1.log" 2>&1; then
    printf '{"run": "%s", "steps": 0}\n' "$1"
    tail -n 5 "$1.log" >&2
    return 1
  fi
  local gaps=$here/bench/stream_gaps.py figures
  figures=$(python3 "$gaps" "$1/trace/rank_0.json") || return 1
  printf '{"run": "%s", %s\n' "$1" "${figures#\{}"
}

failed=0
measure bf16 "$(dit "$layers")" "" || failed=1
measure fp8 "$(dit "$layers")" "fp8 {}" || failed=1
measure fp8_delayed "$(dit "$layers")" "fp8 { delayed {} }" || failed=1
side=$((side / 2)) batch=$((4 * batch)) \
  measure bf16_quarter "$(dit "$layers")" "" || failed=1
measure_streams streams "$(dit 4)" || failed=1
if (($# <= 3)); then
  batch=4 measure bf16_flux "mmdit {
    hidden: 3072 dual_layers: 4 single_layers: 8 heads: 24 patch: 8
    text { tokens: 512 bytes {} }
  }" "" || failed=1
  batch=4 measure bf16_2b "$(hidden=2048 dit 28)" "" || failed=1
fi
exit "$failed"
