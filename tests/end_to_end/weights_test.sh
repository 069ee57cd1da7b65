#!/bin/bash
# Weights that others made, end to end: evaluated, converted both ways, trained
# from, and mistakes. Usage: weights_test.sh PATH_TO_TRIREME GOLDENS FILES_PY
goldens=$PWD/$2
files=$PWD/$3
source "$(dirname "$0")/testing.sh" "$1"

for plan in tp cp pp dp; do
  echo "grid { $plan: 2 }" > $plan.textproto
done
for variant in sd35 flux; do
  echo "== $variant: output and gradients are diffusers', under every axis"
  python3 "$files" make "$goldens" $variant $variant
  forward=("$trireme" forward $variant --inputs $variant/inputs.safetensors
    --gradients --precision FP64)
  "${forward[@]}" --out one.safetensors > forward.txt
  expect_in forward.txt "2 samples through $variant: "
  expect_error "--out: found $variant/inputs.safetensors there already" \
    "${forward[@]}" --out $variant/inputs.safetensors
  python3 "$files" compare "$goldens" $variant one.safetensors \
    one.safetensors
  for plan in tp cp pp dp; do
    "${forward[@]}" --out $plan.safetensors --plan $plan.textproto > forward.txt
    python3 "$files" compare "$goldens" $variant $plan.safetensors \
      one.safetensors
  done
  mpirun --allow-run-as-root --oversubscribe -n 2 "${forward[@]}" \
    --out mpi.safetensors --plan tp.textproto > forward.txt
  cmp mpi.safetensors tp.safetensors || fail "processes differ from threads"

  echo "== $variant: to a run and back, and folder to folder, byte for byte"
  "$trireme" convert $variant $variant.run > convert.txt
  expect_in convert.txt "$variant.run, a run's folder"
  "$trireme" convert $variant.run $variant.back > convert.txt
  "$trireme" convert $variant.back $variant.copy --to weights > convert.txt
  diff -r $variant.back $variant.copy || fail "a copy differs"
  python3 "$files" equal $variant/transformer/*.safetensors \
    $variant.back/transformer/*.safetensors
  # What the file left out is left out again.
  "$trireme" convert $variant $variant.same --to weights > convert.txt
  cmp {$variant,$variant.same}/transformer/config.json ||
    fail "the configuration of a copy differs"
  "$trireme" forward $variant.run/checkpoints/step_00000000 \
    --inputs $variant/inputs.safetensors --out run.safetensors --gradients \
    --precision FP64 > forward.txt
  cmp run.safetensors one.safetensors || fail "a run computes something else"

  echo "== $variant: in shards and other types"
  "$trireme" convert $variant.run $variant.small --dtype BF16 \
    --shard_size 10KB > convert.txt
  [[ -s $variant.small/transformer/diffusion_pytorch_model.safetensors.index.json ]] ||
    fail "no index"
  "$trireme" forward $variant.small --inputs $variant/inputs.safetensors \
    --out small.safetensors > forward.txt
  "$trireme" convert $variant.small $variant.again --to weights > convert.txt
  diff -r $variant.small $variant.again || fail "a copy in shards differs"
done

echo "== training from a folder is training from the checkpoint it was made of"
python3 - <<'PYTHON'
import os
from pictures import png

for i, name in enumerate(("bright", "dark")):
    os.makedirs("pictures/" + name)
    for k in range(4):
        path = f"pictures/{name}/{k}"
        open(path + ".png", "wb").write(png(200 - 150 * i + k))
        open(path + ".txt", "w").write(name)
PYTHON
job() { # job MODEL
  cat <<JOB
model { $1 }
data { image_folder { path: "pictures" } resolution: 8 channels: 1 }
global_batch: 4
steps: 3
optimizer { learning_rate: 1e-2 ema_decay: 0.5 }
sample { at_end: false }
precision: FP32
JOB
}
job 'mmdit { hidden: 32 dual_layers: 1 single_layers: 1 heads: 2 patch: 2
             guidance: 3.5 text { tokens: 8 bytes { } } }' > flux.textproto
"$trireme" train flux.textproto --out first > train.txt
step=checkpoints/step_00000003
"$trireme" convert first first.flux > convert.txt
"$trireme" convert first first.ema --ema > convert.txt
"$trireme" convert first.ema first.ema.run > convert.txt
python3 "$files" equal first/$step/ema.safetensors \
  first.ema.run/checkpoints/step_00000000/model.safetensors
one_step() { # one_step OUT FROM [ARGUMENT...]
  "$trireme" train flux.textproto --steps 1 --out $1 --set init.weights=$2 \
    "${@:3}" > train.txt || fail "$(cat train.txt)"
}
one_step of_checkpoint first/$step
one_step of_folder first.flux
one_step of_average first/$step --set init.ema=true
one_step of_average_folder first.ema
trained=checkpoints/step_00000001/model.safetensors
cmp of_folder/$trained of_checkpoint/$trained ||
  fail "a folder's weights train to others"
cmp of_average_folder/$trained of_average/$trained ||
  fail "a folder's weights train to others"
! cmp -s of_average/$trained of_checkpoint/$trained ||
  fail "the average is the weights"
expect_error "flux/transformer/config.json: attention_head_dim: found 8" \
  "$trireme" train flux.textproto --out refused --set init.weights=flux

echo "== a run of a family without a class, by its classes"
job 'dit { hidden: 32 layers: 2 heads: 4 patch: 4 }' > dit.textproto
"$trireme" train dit.textproto --out dit > train.txt
inputs() { # inputs FILE PYTHON: of `tensors`, those of FILE
  python3 - "$1" "$2" <<'PYTHON'
import pathlib, sys
from weights_files import read, write
path = pathlib.Path(sys.argv[1])
tensors = read(path) if path.exists() else {}
exec(sys.argv[2])
write("inputs.safetensors", tensors)
PYTHON
}
inputs none 'tensors = {
  "hidden_states": ([3, 1, 8, 8], [i % 64 / 64 for i in range(192)]),
  "timestep": ([3], [500.0] * 3), "class_labels": ([3], [0.0, 1.0, 1.0])}'
"$trireme" forward dit --inputs inputs.safetensors --out labels.safetensors \
  > forward.txt
python3 - <<'PYTHON'
from weights_files import read
shape, values = read("labels.safetensors")["sample"]
assert shape == [3, 1, 8, 8], shape
first, second, third = (values[i:i + 64] for i in range(0, 192, 64))
assert second == third and first != second
PYTHON
inputs inputs.safetensors 'tensors["class_labels"] = [3], [0.0, 1.0, 3.0]'
expect_error "class_labels: found 3, expected 0 to 2" "$trireme" forward dit \
  --inputs inputs.safetensors --out out.safetensors

echo "== mistakes"
expect_error "sd35.run: is there, expected a new folder" \
  "$trireme" convert sd35 sd35.run
expect_error "found neither a run (job.textproto)" "$trireme" convert . new
expect_error "ema.safetensors" "$trireme" convert sd35.run new --ema
expect_error "--dtype: found 'F8', expected F32, F16 or BF16" \
  "$trireme" convert sd35.run new --dtype F8
expect_error "has no moving average" "$trireme" convert sd35 new --ema
cp -r flux broken
change() { # change PYTHON: of `config`, that of broken
  cp flux/transformer/config.json broken/transformer/config.json
  python3 - "$1" <<'PYTHON'
import json, sys
path = "broken/transformer/config.json"
config = json.load(open(path))
exec(sys.argv[1])
json.dump(config, open(path, "w"))
PYTHON
}
change 'config["_class_name"] = "UNet2DModel"'
expect_error 'broken/transformer/config.json: _class_name: found "UNet2DModel", expected SD3Transformer2DModel or FluxTransformer2DModel' \
  "$trireme" convert broken new
change 'config["num_layer"] = 3'
expect_error "found field 'num_layer', which no FluxTransformer2DModel has (nearest: 'num_layers')" \
  "$trireme" convert broken new
change 'config["num_layers"] = "many"'
expect_error 'num_layers: found "many", expected a whole number' \
  "$trireme" convert broken new
change 'config["num_layers"] = 3'
expect_error "no tensor 'transformer_blocks.1" "$trireme" convert broken new
change 'config["patch_size"] = 2'
expect_error "patch_size: found 2, expected 1" "$trireme" convert broken new
change 'del config["guidance_embeds"]'
expect_error "found tensor 'time_text_embed.guidance_embedder" \
  "$trireme" convert broken new
[[ ! -e new ]] || fail "a failed conversion left a folder"
expect_error "hidden_states: found shape [2, 6, 8], expected 4 dimensions" \
  "$trireme" forward sd35 --inputs flux/inputs.safetensors --out out.safetensors
refused() { # refused MODEL PYTHON TEXT: what is changed in MODEL's inputs
  inputs $1/inputs.safetensors "$2"
  expect_error "inputs.safetensors: $3" \
    "$trireme" forward $1 --inputs inputs.safetensors --out out.safetensors
}
refused flux 'tensors["img_ids"][1][4] += 1' \
  "img_ids: found others, expected (0, row, column) of the 6 patches"
refused flux 'tensors["txt_ids"][1][0] = 1' \
  "txt_ids: found others, expected zeros"
refused flux 'del tensors["txt_ids"]' "no tensor 'txt_ids'"
refused flux 'del tensors["guidance"]' "no tensor 'guidance'"
refused sd35 'tensors["guidance"] = [2], [2.5, 2.5]' \
  "found tensor 'guidance', which the model does not read"
refused sd35 'tensors["txt_ids"] = [3, 3], [0.0] * 9' \
  "found tensor 'txt_ids', which the model does not read"
expect_error "found no --inputs" "$trireme" forward sd35 --out out.safetensors
expect_error "inputs.safetensors" "$trireme" forward sd35 \
  --inputs no/inputs.safetensors --out out.safetensors

echo "passed"
