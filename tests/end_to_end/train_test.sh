#!/bin/bash
# What a user does, end to end, on four processes of this machine: launch,
# resume under another plan, sample, verify, convert, inspect, and mistakes.
# Usage: train_test.sh PATH_TO_TRIREME
source "$(dirname "$0")/testing.sh" "$1"

cat > job.textproto <<'JOB'
model { dit { hidden: 32 layers: 4 heads: 4 patch: 7 } }
data {
  webdataset { paths: "shards" }
  resolution: 28
  channels: 1
  held_out: 100
}
global_batch: 16
steps: 6
optimizer { learning_rate: 1e-3 ema_decay: 0.9 }
checkpoint { every: 3 }
sample { steps: 4 per_class: 2 }
precision: FP32
JOB

echo "== data"
"$trireme" data /usr/share/datasets/fashion-mnist shards --idx --split test \
  > data.txt
expect_in data.txt "10000 samples in 10 shards"

echo "== launch on four ranks, then resume the first half on two"
"$trireme" launch job.textproto --ranks 4 --out run --resume > launch.txt
expect_in launch.txt "tp 2 x pp 2"
expect_in launch.txt "9900 samples"
expect_in launch.txt "found no checkpoint in run/checkpoints to resume from"
[[ $(wc -l < run/metrics.jsonl) == 6 ]] || fail "metrics: $(cat run/metrics.jsonl)"
for file in job.textproto plan.textproto samples/step_00000006.png \
  checkpoints/step_00000006/model.index.json \
  checkpoints/step_00000006/model-0000{1,2,3,4}-of-00004.safetensors; do
  [[ -s run/$file ]] || fail "no run/$file"
done
cp -r run half
rm -r half/checkpoints/step_00000006
cat > two.textproto <<'PLAN'
grid { dp: 2 }
PLAN
"$trireme" launch job.textproto --ranks 2 --plan two.textproto --out half \
  --resume > resume.txt
expect_in resume.txt "resumed after step 3"
[[ $(wc -l < half/metrics.jsonl) == 6 ]] || fail "$(cat half/metrics.jsonl)"
# The same samples, noise and weights: the last loss agrees although the grid
# changed in the middle.
python3 - <<'PYTHON'
import json
a, b = ([json.loads(line) for line in open(f"{run}/metrics.jsonl")]
        for run in ("run", "half"))
assert [e["step"] for e in b] == [1, 2, 3, 4, 5, 6], b
for x, y in zip(a, b):
    assert abs(x["loss"] - y["loss"]) < 1e-4 * x["loss"], (x, y)
keys = {"step", "loss", "grad_norm", "lr", "step_s", "samples_per_s",
        "model_flops_per_s", "skipped_samples", "peak_bytes", "exposed_s"}
assert keys <= a[0].keys(), a[0]
PYTHON

echo "== without a launch a rank that is stopped ends the job at the deadline,"
echo "   with a verdict"
OMP_NUM_THREADS=1 mpirun --allow-run-as-root --oversubscribe -n 4 \
  "$trireme" train job.textproto --steps 1000000 --out=hung \
  --set communication_deadline_s=3 --set checkpoint.every=0 \
  > hung.txt 2>&1 &
mpirun=$!
for ((i = 0; i < 300; ++i)); do
  [[ -s hung/metrics.jsonl ]] && break
  sleep 0.1
done
[[ -s hung/metrics.jsonl ]] || fail "no first step: $(cat hung.txt)"
stopped=$(process_of_rank 2 hung) || fail "no process of rank 2"
# mpirun gives each rank a process group of its own.
trap 'kill -KILL "-$stopped" 2> /dev/null || true; rm -rf "$work"' EXIT
kill -STOP "$stopped"
begin=$SECONDS
status=0
wait "$mpirun" || status=$?
((status != 0)) || fail "a job with a stopped rank ended with status 0"
((SECONDS - begin <= 20)) || fail "hung for $((SECONDS - begin)) s"
expect_in hung.txt "deadline of 3.0 s passed"
expect_in hung.txt "verdict:"
if grep -q '^State:[[:space:]]*T' "/proc/$stopped/status" 2> /dev/null; then
  fail "the stopped rank is left over"
fi

echo "== sample, from another folder, and inspect"
mkdir elsewhere
(cd elsewhere && "$trireme" sample ../run --out ../samples.png --evaluate 25) \
  > sample.txt
expect_in sample.txt "sliced Wasserstein distance to 25 held-out pictures"
[[ $(head -c 4 samples.png | tail -c 3) == PNG ]] || fail "no PNG"
"$trireme" inspect run > inspect.txt
expect_in inspect.txt "all checksums agree"
"$trireme" inspect \
  run/checkpoints/step_00000006/model-00004-of-00004.safetensors > tensors.txt
expect_in tensors.txt "blocks.3.attention.qkv.weight"
"$trireme" inspect run --plot loss.png
"$trireme" inspect run --plot loss.png
"$trireme" inspect run/checkpoints/step_00000006/manifest.json > inspect.txt
expect_in inspect.txt "all checksums agree"
"$trireme" sample run --checkpoint step_00000003 --out three.png > sample.txt
expect_in sample.txt "run/checkpoints/step_00000003"

expect_in launch.txt "drew   20 pictures: run/samples/step_00000006.png; memory"
# Each replica draws as one rank does: no bit differs.
"$trireme" sample half --out one.png --seed 1 --steps 2 > sample.txt
mpirun --allow-run-as-root --oversubscribe -n 2 "$trireme" sample half \
  --out two.png --seed 1 --steps 2 > sample.txt
expect_in sample.txt "20 pictures from half/checkpoints/step_00000006 in two.png"
cmp one.png two.png || fail "two ranks draw other pictures than one"
if mpirun --allow-run-as-root --oversubscribe -n 3 "$trireme" sample run \
  --out three.png > sample.txt 2>&1; then
  fail "three ranks drew under a plan for four"
fi
expect_in sample.txt "found a plan for 4 ranks, but 3 draw"

echo "== a run that starts from another's weights, on any grid"
for ranks in 4 2; do
  "$trireme" launch job.textproto --ranks $ranks --steps 1 --out tuned$ranks \
    --set init.weights=run/checkpoints/step_00000006 > tuned.txt
done
python3 - <<'PYTHON'
import json
first, four, two = (json.loads(open(f"{run}/metrics.jsonl").readline())["loss"]
                    for run in ("run", "tuned4", "tuned2"))
assert abs(four - two) < 1e-4 * two, (four, two)
assert four < first, (four, first)
PYTHON
if "$trireme" train job.textproto --steps 1 --out tuned \
  --set init.weights=shards > tuned.txt 2>&1; then
  fail "started from a folder without weights"
fi
expect_in tuned.txt "found neither a checkpoint"

echo "== verify"
cat > plan.textproto <<'PLAN'
grid { tp: 2 pp: 2 }
PLAN
"$trireme" verify job.textproto --plan plan.textproto > verify.txt
expect_in verify.txt "in FP64"
expect_in verify.txt "equal: worst loss"
"$trireme" verify job.textproto --plan plan.textproto --set precision=BF16 \
  > verify.txt
expect_in verify.txt "reads as equal"
"$trireme" verify job.textproto --ranks 2 --steps 2 > matrix.txt
expect_in matrix.txt "tolerance, relative: losses 1e-10"
expect_in matrix.txt "bits equal   tp 1 x pp 2 x dp 1 (2 ranks), ZB_V"
expect_in matrix.txt "0 different"
"$trireme" inspect plan.textproto > inspect.txt
expect_in inspect.txt "schedule: ONE_F_ONE_B"
expect_in inspect.txt "4 ranks"
"$trireme" inspect run/plan.textproto > inspect.txt
expect_in inspect.txt "ClipGradients"
echo 'grid { dp: 4 ep: 2 }' > experts.textproto
"$trireme" inspect experts.textproto > inspect.txt
expect_in inspect.txt "4 ranks"
# Of ways by load, one that sends rows to half of the ranks of an expert.
cat > experts.textproto <<'PLAN'
grid { dp: 4 ep: 4 }
experts {
  move: ADAPTIVE
  choices { max_load: 1.5 move: WEIGHTS }
  choices { max_load: 4 move: ROWS row_copies: 2 }
}
PLAN
"$trireme" inspect experts.textproto > inspect.txt
expect_in inspect.txt "4 ranks"
"$trireme" cluster describe --device A100 --out hardware.textproto
"$trireme" inspect hardware.textproto > inspect.txt
expect_in inspect.txt "a cluster of 1 nodes, 8 devices"
echo 'grid { tq: 2 }' > odd.textproto
expect_error "unknown field 'tq' in trireme.Plan.Grid" \
  "$trireme" inspect odd.textproto

echo "== help, and launch's account of what it would do"
"$trireme" help train > help.txt
expect_in help.txt "Usage: trireme train JOB"
"$trireme" --version > version.txt
expect_in version.txt "trireme "
# The plan's ranks, in words that a shell reads as they are.
"$trireme" launch job.textproto --plan plan.textproto --dry_run \
  --set 'name=my run' > dry.txt
expect_in dry.txt "-np 4"
expect_in dry.txt "'--set=name=my run'"
status=0
"$trireme" train job.textproto --dry_run --set memory_limit_bytes=100000 \
  > dry.txt 2>&1 || status=$?
((status == 1)) || fail "status $status of what does not fit: $(cat dry.txt)"
expect_in dry.txt "memory_limit_bytes: found 97.7 KiB, expected at least the"

echo "== mistakes are told with file, line, field, found, expected"
sed 's/hidden: 32/hiden: 32/' job.textproto > typo.textproto
expect_error "did you mean 'hidden'?" "$trireme" train typo.textproto
sed 's/heads: 4/heads: 5/' job.textproto > heads.textproto
expect_error "heads.textproto:1: model.dit.hidden: found 32, expected a multiple of the 5 heads" \
  "$trireme" train heads.textproto --out never
expect_error "did you mean 'sample'?" "$trireme" smaple run
expect_error "already holds a run" "$trireme" train job.textproto --out run
expect_error "--ranks: found without --dry_run" \
  "$trireme" train job.textproto --out never --ranks 2
# Once, not once a rank.
expect_error "model.dit.hidden: found 32, expected a multiple of the 5 heads" \
  "$trireme" launch heads.textproto --ranks 3 --out never
(($(grep -c "multiple of the 5 heads" error.txt) == 1)) || fail "$(cat error.txt)"
# By the launch, before ranks and mpirun's words about them.
expect_error "trireme launch: no default plan: found 3 ranks" \
  "$trireme" launch job.textproto --ranks 3 --out never
expect_error "trireme launch: plan.textproto:1: plan.grid: found tp" \
  "$trireme" launch job.textproto --plan plan.textproto --ranks 2 --out never
expect_error "trireme launch: --checkpoint: found 'step_00000002' without" \
  "$trireme" launch job.textproto --checkpoint step_00000002 --out never
# What would be passed over otherwise.
expect_error "--image: found without --emit" \
  "$trireme" launch job.textproto --image name --out never
# A path that is no run's.
expect_error "nowhere: no such folder; expected that of a run" \
  "$trireme" sample nowhere
expect_error "job.textproto: found a file, expected a run's folder" \
  "$trireme" report job.textproto
expect_error "--checkpoint: found no 'step_9'" \
  "$trireme" sample run --checkpoint step_9
expect_error "top_p: found for a model that does not draw token by token" \
  "$trireme" sample run --top_p 0.9
expect_error "--plan, --ranks: found neither" "$trireme" verify job.textproto
expect_error "--split: found 'val', expected train or test" \
  "$trireme" data shards other --idx --split val
expect_error "run: found a folder, expected a job file, as run/job.textproto" \
  "$trireme" launch run
expect_error "nowhere/latents.json, expected latents, as" \
  "$trireme" train job.textproto --set 'data={latents{path:"nowhere"}}'
expect_error "loss.png: found a header of" \
  "$trireme" forward run --inputs loss.png --out out.safetensors
expect_in error.txt "this is no safetensors file"
expect_error "data.image_folder.path: $work/nowhere: No such file" \
  "$trireme" train job.textproto \
  --set 'data={image_folder{path:"nowhere"} resolution: 28}'
# Each of these once ended verify with a stack trace.
echo 'grid { pp: 2 } microbatches: 4 skip { }' > skip.textproto
expect_error "plan.skip: found a model with 2 kinds of blocks" \
  "$trireme" verify job.textproto --plan skip.textproto \
  --set model.dit.text.tokens=4 --set model.dit.text.width=8 \
  --set model.dit.text.attention=JOINT
expect_error "plan.grid: found 4 ranks, expected mpirun's 3" \
  env OMP_NUM_THREADS=1 OMPI_MCA_btl=self,vader HWLOC_COMPONENTS=-gl \
  OMPI_MCA_btl_vader_single_copy_mechanism=none mpirun --allow-run-as-root \
  --oversubscribe --bind-to none -np 3 "$trireme" verify job.textproto \
  --plan plan.textproto
expect_error "global_batch" "$trireme" train job.textproto --set global_batch=0
cat > three.textproto <<'PLAN'
grid { tp: 3 }
PLAN
expect_error "tp" "$trireme" train job.textproto --plan three.textproto \
  --dry_run --ranks 3
expect_error "did you mean 'optimizer.learning_rate'?" \
  "$trireme" train job.textproto --set learning_rate=3
expect_error "name: found '../x', expected the name of a folder" \
  "$trireme" train job.textproto --set name=../x
expect_error "OUT: found shards, which is within shards" \
  "$trireme" data shards shards
echo mine > mine.png
expect_error "mine.png: found a file that this program did not draw" \
  "$trireme" inspect run --plot mine.png
expect_error "mine.png: found a file that this program did not draw" \
  "$trireme" sample run --out mine.png
[[ $(cat mine.png) == mine ]] || fail "mine.png was overwritten"
printf '\xef\xbb\xbf' | cat - job.textproto > marked.textproto
"$trireme" train marked.textproto --dry_run > dry.txt
# Each of these once ended the program.
for row in \
  "model.dit.mlp_ratio=0.001 found 0.001, which leaves an MLP" \
  "model.dit.class_table_stddev=nan found nan, expected 0 to" \
  "model.dit.class_table_stddev=-5 found -5, expected 0 to" \
  "memory_limit_bytes=0 found 0, expected 1 to" \
  "memory_limit_bytes=18446744073709551615 found 18446744073709551615," \
  "data.webdataset.classes=4294967295 found 4294967295, expected 0 to" \
  "data.held_out=10000 found 10000, expected less than the data set's 10000"; do
  expect_error "--set ${row%% *}: ${row%%=*}: ${row#* }" "$trireme" train \
    job.textproto --dry_run --set "${row%% *}"
done
huge=(--dry_run --set data.resolution=8192 --set global_batch=16777216 --set
  model.dit.hidden=131072 --set model.dit.heads=128)
expect_error "model.dit.patch: found 2, which makes 16777216 tokens" \
  "$trireme" train job.textproto "${huge[@]}" --set model.dit.patch=2
expect_error "global_batch: found 16777216 samples x 4 layers" \
  "$trireme" train job.textproto "${huge[@]}" --set model.dit.patch=8
# 87 channels of the MLP are not for two.
"$trireme" train job.textproto --dry_run --ranks 2 \
  --set model.dit.mlp_ratio=2.71 > dry.txt
expect_in dry.txt "tp 1 x pp 2"
expect_error "plan.textproto:1: plan.grid.tp: found 2, expected a divisor of the width of the model's MLP, 87" \
  "$trireme" train job.textproto --dry_run --ranks 4 --plan plan.textproto \
  --set model.dit.mlp_ratio=2.71
echo 'grid { tp: 0 }' > zero.textproto
expect_error "zero.textproto:1: plan.grid.tp: found 0, expected 1 to" \
  "$trireme" verify job.textproto --plan zero.textproto
most=4294967295
echo "grid { tp: $most cp: $most dp: $most pp: $most }" > most.textproto
expect_error "most.textproto:1: plan.grid.tp: found $most, expected 1 to" \
  "$trireme" verify job.textproto --plan most.textproto
echo 'grid { dp: 2 } microbatch_size: 3' > size.textproto
expect_error "size.textproto:1: plan.microbatch_size: found 3, expected a divisor of 8" \
  "$trireme" train job.textproto --dry_run --ranks 2 --plan size.textproto
python3 - <<'PYTHON'
with open("half/checkpoints/step_00000006/adam_v.safetensors", "r+b") as file:
    file.seek(-3, 2)
    byte = file.read(1)[0]
    file.seek(-3, 2)
    file.write(bytes([byte ^ 64]))
PYTHON
"$trireme" train job.textproto --out half --resume --steps 7 > damaged.txt 2>&1
expect_in damaged.txt "adam_v.safetensors: found checksum"
expect_in damaged.txt "resumed after step 3"
mv half/checkpoints/step_00000006.aside damaged
expect_error "/damaged/adam_v.safetensors: found checksum" \
  "$trireme" train job.textproto --out never --set init.weights=damaged
expect_error "memory_limit_bytes" "$trireme" train job.textproto --out never \
  --set memory_limit_bytes=100000
[[ ! -e never ]] || fail "a refused run left a folder"
echo "PASSED"
