#!/bin/bash
# Training whose optimizer, or blocks too, lie on a drive: the bits of training
# without, what is said of the drive, and drives that are full, break, or tear a
# write.
# Usage: nvme_test.sh PATH_TO_TRIREME PATH_TO_FAULTY_DISK
faulty_disk=$PWD/$2
source "$(dirname "$0")/testing.sh" "$1"

python3 - <<'PYTHON'
import os
from pictures import png

for i, name in enumerate(("bright", "dark")):
    os.makedirs("pictures/" + name)
    for k in range(4):
        open(f"pictures/{name}/{k}.png", "wb").write(png(200 - 150 * i + k))
PYTHON
cat > job.textproto <<'JOB'
model { dit { hidden: 32 layers: 3 heads: 2 patch: 2 } }
data { image_folder { path: "pictures" } resolution: 8 channels: 1 }
global_batch: 4
steps: 6
optimizer { ema_decay: 0.5 }
sample { at_end: false }
precision: BF16
checkpoint { every: 2 }
JOB
plan() { # plan IO
  echo "offload { nvme { folder: '$work/nvme' io: $1 drive_endurance_tbw: 600 } }"
}
plan IO_UNSPECIFIED > drive.textproto
plan THREADS > threads.textproto
echo "offload { }" > memory.textproto
echo "offload { resident_units: 1 nvme { folder: '$work/nvme' io: THREADS
  host_units: 1 drive_endurance_tbw: 600 } }" > blocks.textproto
same() { # same RUN RUN STEP
  local file
  for file in model ema adam_m adam_v; do
    cmp "$1/checkpoints/step_$3/$file.safetensors" \
      "$2/checkpoints/step_$3/$file.safetensors" || fail "$1 and $2 differ"
  done
}

echo "== the same bits, on the device, in memory and on a drive"
"$trireme" train job.textproto --out device > device.txt
for states in memory drive threads blocks; do
  "$trireme" train job.textproto --plan $states.textproto --out $states > $states.txt
  same device $states 00000006
done
expect_in threads.txt "of rank 0's optimizer in $work/nvme: threads, "
expect_in threads.txt "written a step by this machine's ranks (1); its 600 TB are"
expect_in blocks.txt "of rank 0's blocks and optimizer in $work/nvme: threads, "
expect_in blocks.txt "copies of blocks "
expect_in threads.txt "a step it lasts"
[[ -z $(ls nvme) ]] || fail "left in the drive's folder: $(ls nvme)"
# A host that has its drive elsewhere.
TRIREME_PATHS=$work/nvme:$work/scratch "$trireme" train job.textproto \
  --plan threads.textproto --out elsewhere > elsewhere.txt
same device elsewhere 00000006
expect_in elsewhere.txt "of rank 0's optimizer in $work/scratch: threads, "
[[ -d scratch ]] || fail "nothing was written to $work/scratch"

echo "== each step says where it waited, and the run what would help"
expect_in threads.txt "waited in "
expect_in threads.txt "; Adam "
expect_in threads.txt "; drive reads "
expect_in memory.txt "waited in "
! grep -q "waited in" device.txt || fail "a run without offload tells of it"
python3 - <<'PYTHON'
import json
lines = [json.loads(line) for line in open("threads/metrics.jsonl")]
for line in lines:
    offload = line["offload"]
    assert set(offload["waited_s"]) == {"copies_in", "copies_out", "updates",
                                        "drive"}, offload
    assert 0 < offload["link_in_use"] <= 1, offload
# A step's updates are carried out by the next one, or before it is saved.
assert any(line["offload"].get("update_bytes_per_s", 0) > 0 for line in lines)
assert any(line["offload"].get("drive_write_bytes_per_s", 0) > 0
           for line in lines)
assert "drive_read_bytes_per_s" not in json.loads(
    open("memory/metrics.jsonl").readline())["offload"]
PYTHON
"$trireme" train job.textproto --plan drive.textproto --out advised \
  --set log.every=2 > advised.txt
expect_in advised.txt "offload  "

echo "== a dry run says what is on the drive"
"$trireme" train job.textproto --plan drive.textproto --out none --dry_run > dry.txt
expect_in dry.txt "host peak"
expect_in dry.txt "of all ranks in $work/nvme"
expect_in dry.txt "are free there on this machine"
expect_in dry.txt "600 TB of writes are"
on_drive=$(grep -o "drive  .* of rank 0's optimizer" threads.txt | cut -d' ' -f3,4)
expect_in dry.txt "$on_drive of all ranks"

echo "== a run goes on from one to the other"
"$trireme" train job.textproto --plan drive.textproto --out on --steps 3 > on.txt
"$trireme" train job.textproto --plan blocks.textproto --out on --resume > on.txt
same device on 00000006

echo "== adapters on a base that lies on the drive"
adapters=(--set "train.parameters=ADAPTERS" --set "train.rank=2" \
  --set "train.frozen=NF4" \
  --set 'init.weights="device/checkpoints/step_00000006"')
"$trireme" train job.textproto --out adapters "${adapters[@]}" > adapters.txt
"$trireme" train job.textproto --plan blocks.textproto --out on_base \
  "${adapters[@]}" > on_base.txt
same adapters on_base 00000006
expect_in on_base.txt "read and 0 B written a step"

echo "== drives that fail end the run; the last checkpoint stands"
export CHAOS_FOLDER=$work/nvme CHAOS_FAULT=$work/fault
for case in broken_threads full_threads torn_threads torn_blocks killed_blocks; do
  fault=${case%_*} plan=${case#*_}.textproto
  LD_PRELOAD=$faulty_disk "$trireme" train job.textproto --plan $plan \
    --out $case --steps 1000000 > $case.txt 2>&1 &
  run=$!
  for ((i = 0; i < 600; ++i)); do
    if [[ -e $case/checkpoints/step_00000002/manifest.json ]]; then break; fi
    sleep 0.05
  done
  if [[ $fault == killed ]]; then
    kill -9 $run
  else
    echo -n $fault > fault.new
    mv fault.new fault
  fi
  if wait $run; then fail "a $fault drive was not noticed"; fi
  rm -f fault
  [[ $fault =~ torn|killed ]] || expect_in $case.txt "$work/nvme/trireme-"
  # One that has only its name to get is the newest, too.
  steps=$(ls $case/checkpoints/*/manifest.json | grep -oE 'step_[0-9]+' |
    sort | tail -n 1)
  steps=$((10#${steps#step_} + 2))
  last=$(printf %08d $steps)
  "$trireme" train job.textproto --plan $plan --out $case \
    --steps $steps --resume > again.txt
  expect_in again.txt "resumed after step"
  "$trireme" train job.textproto --out whole_$case --steps $steps > whole.txt
  same whole_$case $case $last
done
expect_in broken_threads.txt "Input/output error"
expect_in full_threads.txt "No space left on device"

echo "== what cannot be is refused before the first step"
echo "offload { nvme { folder: '/proc/none' } }" > nowhere.textproto
expect_error "/proc/none" "$trireme" train job.textproto \
  --plan nowhere.textproto --out nowhere
echo -n full > fault
expect_error "No space left on device" env LD_PRELOAD=$faulty_disk "$trireme" \
  train job.textproto --plan threads.textproto --out nowhere
