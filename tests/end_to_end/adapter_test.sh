#!/bin/bash
# From a folder of weights and pictures to an adapter, end to end: trained,
# resumed, drawn with, written for others and read again, merged, and mistakes.
# Usage: adapter_test.sh PATH_TO_TRIREME
source "$(dirname "$0")/testing.sh" "$1"

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
job() { # job STEPS [FIELDS]
  cat <<JOB
model { mmdit { hidden: 32 dual_layers: 1 single_layers: 1 heads: 2 patch: 2
                guidance: 3.5 text { tokens: 8 bytes { } } } }
data { image_folder { path: "pictures" } resolution: 8 channels: 1 }
global_batch: 4
steps: $1
optimizer { learning_rate: 1e-2 ema_decay: 0.5 eps: 1e-4 }
sample { at_end: false per_class: 1 steps: 2 }
precision: FP32
${2:-}
JOB
}
job 6 > base.textproto
"$trireme" train base.textproto --out base.run > train.txt
"$trireme" convert base.run base > convert.txt
job 6 'init { weights: "base" }
       train { parameters: ADAPTERS rank: 4 alpha: 6 layers: "*"
               except: "patch_embedding" }
       checkpoint { every: 3 }' > lora.textproto

echo "== training keeps the adapters alone"
"$trireme" train lora.textproto --out lora > train.txt
expect_in train.txt "parameters of adapters of rank 4, on the weights of $PWD/base"
last=checkpoints/step_00000006
python3 - <<'PYTHON'
from weights_files import read
for file in ("model", "ema", "adam_m", "adam_v"):
    tensors = read(f"lora/checkpoints/step_00000006/{file}.safetensors")
    assert len(tensors) > 20
    for name, (shape, values) in tensors.items():
        assert name.endswith((".lora_A", ".lora_B")), name
        assert any(values), (file, name)
PYTHON

echo "== a run that goes on, also on two ranks, has the same adapters"
"$trireme" train lora.textproto --out again --steps 3 > train.txt
"$trireme" train lora.textproto --out again --resume > train.txt
cmp {lora,again}/$last/model.safetensors || fail "resuming changed the adapters"
mpirun --allow-run-as-root --oversubscribe -n 2 "$trireme" train lora.textproto \
  --out two > train.txt
python3 - <<'PYTHON'
from weights_files import read_checkpoint
one, two = (read_checkpoint(f"{run}/checkpoints/step_00000006", "model")
            for run in ("lora", "two"))
assert one.keys() == two.keys()
for name in one:
    a, b = one[name][1], two[name][1]
    distance = sum((x - y)**2 for x, y in zip(a, b))**0.5
    assert distance <= 2e-2 * sum(x * x for x in a)**0.5, (name, distance)
PYTHON

echo "== on weights in four bits: resumed, and through one place on the device"
job 6 'init { weights: "base" } checkpoint { every: 3 }
       train { parameters: ADAPTERS rank: 4 layers: "blocks.*" frozen: NF4 }' \
  > nf4.textproto
"$trireme" train nf4.textproto --out nf4 > train.txt
expect_in train.txt "kept in NF4"
expect_in train.txt " %  blocks.0."
"$trireme" train nf4.textproto --out nf4_again --steps 3 > train.txt
"$trireme" train nf4.textproto --out nf4_again --resume > train.txt
expect_in train.txt " %  blocks.0."
cmp {nf4,nf4_again}/$last/model.safetensors ||
  fail "resuming changed the adapters beside weights in four bits"
echo 'offload { resident_units: 1 }' > one_place.textproto
"$trireme" train nf4.textproto --plan one_place.textproto --out nf4_offload \
  > train.txt
cmp {nf4,nf4_offload}/$last/model.safetensors ||
  fail "offload changed the adapters"
"$trireme" convert nf4 nf4.safetensors --to adapter > convert.txt

echo "== a file for others, and back, byte for byte"
"$trireme" convert lora adapter/pytorch_lora_weights.safetensors --to adapter \
  > convert.txt
expect_in convert.txt "pytorch_lora_weights.safetensors, a file of adapters"
python3 - <<'PYTHON'
import json
import struct
from weights_files import read
path = "adapter/pytorch_lora_weights.safetensors"
tensors = read(path)
prefix = "transformer.transformer_blocks.0.attn.to_q.lora_"
assert tensors[prefix + "A.weight"][0] == [4, 32]
assert tensors[prefix + "B.weight"][0] == [32, 4]
# Attention's and the MLP's columns of one matrix.
prefix = "transformer.single_transformer_blocks.0.proj_out.lora_"
assert tensors[prefix + "A.weight"][0] == [4, 160]
assert tensors[prefix + "B.weight"][0] == [32, 4]
with open(path, "rb") as file:
    header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
metadata = json.loads(header["__metadata__"]["lora_adapter_metadata"])
assert metadata["transformer.r"] == 4 and metadata["transformer.lora_alpha"] == 6
assert "transformer_blocks.0.attn.to_q" in metadata["transformer.target_modules"]
PYTHON
"$trireme" convert adapter/pytorch_lora_weights.safetensors read --base base \
  > convert.txt
expect_in convert.txt "read, a run's folder"
"$trireme" convert read read.safetensors --to adapter > convert.txt
cmp adapter/pytorch_lora_weights.safetensors read.safetensors ||
  fail "adapters changed on their way"
"$trireme" convert lora average.safetensors --to adapter --ema > convert.txt
! cmp -s read.safetensors average.safetensors || fail "the average is the weights"
"$trireme" convert lora small.safetensors --to adapter --dtype BF16 > convert.txt
"$trireme" convert small.safetensors small --base base > convert.txt
"$trireme" convert small same.safetensors --to adapter --dtype BF16 > convert.txt
cmp {small,same}.safetensors || fail "adapters in BF16 changed on their way"

echo "== weights that are decomposed: resumed, offloaded, to PEFT's names and kohya's"
dora() { # dora LAYERS [FIELDS]
  job 4 "init { weights: \"base\" } checkpoint { every: 2 }
         train { parameters: ADAPTERS rank: 2 alpha: 3 decompose: true
                 $1 } ${2:-}"
}
dora 'layers: "*" except: "patch_embedding"' > dora.textproto
"$trireme" train dora.textproto --out dora > train.txt
expect_in train.txt "of decomposing adapters of rank 2"
"$trireme" train dora.textproto --out dora_again --steps 2 > train.txt
"$trireme" train dora.textproto --out dora_again --resume > train.txt
dora_last=checkpoints/step_00000004
cmp {dora,dora_again}/$dora_last/model.safetensors ||
  fail "resuming changed the magnitudes"
"$trireme" train dora.textproto --plan one_place.textproto --out dora_offload \
  > train.txt
cmp {dora,dora_offload}/$dora_last/model.safetensors ||
  fail "offload changed adapters that decompose weights"
"$trireme" convert dora dora.safetensors --to adapter > convert.txt
python3 - <<'PYTHON'
import json
import struct
from weights_files import read
tensors = read("dora.safetensors")
base = read("base/transformer/diffusion_pytorch_model.safetensors")
module = "transformer_blocks.0.attn.to_q"
shape, magnitudes = tensors[f"transformer.{module}.lora_magnitude_vector"]
assert shape == [32], shape
# Near the norms that they started as.
weight = base[module + ".weight"][1]
for row in range(32):
    norm = sum(w * w for w in weight[32 * row:32 * row + 32])**0.5
    assert abs(magnitudes[row] - norm) < 0.1, (magnitudes[row], norm)
with open("dora.safetensors", "rb") as file:
    header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
metadata = json.loads(header["__metadata__"]["lora_adapter_metadata"])
assert metadata["transformer.use_dora"] is True, metadata
PYTHON
"$trireme" convert dora.safetensors dora_read --base base > convert.txt
"$trireme" convert dora_read dora.back.safetensors --to adapter > convert.txt
cmp dora.safetensors dora.back.safetensors || fail "magnitudes changed on their way"
dora 'layers: "blocks.*"' > dora_blocks.textproto
"$trireme" train dora_blocks.textproto --out dora_blocks > train.txt
"$trireme" convert dora_blocks dora_kohya.safetensors --to kohya > convert.txt
python3 - <<'PYTHON'
from weights_files import read
tensors = read("dora_kohya.safetensors")
assert tensors["lora_unet_double_blocks_0_img_attn_qkv.dora_scale"][0] == [96, 1]
PYTHON
"$trireme" convert dora_kohya.safetensors dora_from_kohya --base base > convert.txt
cmp {dora_blocks/$dora_last,dora_from_kohya/checkpoints/step_00000000}/model.safetensors ||
  fail "magnitudes changed on their way"
"$trireme" convert dora_from_kohya dora_kohya.back.safetensors --to kohya > convert.txt
cmp dora_kohya.safetensors dora_kohya.back.safetensors ||
  fail "kohya's magnitudes changed on their way"

echo "== the same in the names of kohya's scripts"
job 2 'init { weights: "base" }
       train { parameters: ADAPTERS rank: 2 alpha: 0.1 layers: "blocks.*" }' \
  > blocks.textproto
"$trireme" train blocks.textproto --out blocks > train.txt
"$trireme" convert blocks kohya.safetensors --to kohya > convert.txt
python3 - <<'PYTHON'
from weights_files import read
tensors = read("kohya.safetensors")
key = "lora_unet_single_blocks_0_linear1"
down, up = tensors[key + ".lora_down.weight"], tensors[key + ".lora_up.weight"]
# Four modules, each with rank 2, on the diagonal.
assert down[0] == [8, 32] and up[0] == [224, 8], (down[0], up[0])
# The sum of the modules', of four here and of one.
def alpha(key):
    shape, (value,) = tensors[key + ".alpha"]
    return shape == [] and value
assert abs(alpha(key) - 0.4) < 1e-7
assert any(up[1][:2]) and not any(up[1][2:8])
assert abs(alpha("lora_unet_double_blocks_0_img_mod_lin") - 0.1) < 1e-7
PYTHON
"$trireme" convert kohya.safetensors from_kohya --base base > convert.txt
cmp {blocks/checkpoints/step_00000002,from_kohya/checkpoints/step_00000000}/model.safetensors ||
  fail "adapters changed on their way"
"$trireme" convert from_kohya again.safetensors --to kohya > convert.txt
cmp {kohya,again}.safetensors || fail "kohya's file changed on its way"
# A third of a sum that was rounded is not the alpha that was summed.
"$trireme" convert blocks kohya_16.safetensors --to kohya --dtype BF16 > convert.txt
"$trireme" convert kohya_16.safetensors from_16 --base base > convert.txt
# Files that were trained there have one down for q, k and v.
python3 - <<'PYTHON'
from weights_files import write
key = "lora_unet_double_blocks_0_img_attn_qkv"
write("shared.safetensors", {
    key + ".lora_down.weight": ([2, 32], [0.5] * 64),
    key + ".lora_up.weight": ([96, 2], [i / 64 for i in range(192)]),
    key + ".alpha": ([], [1.0])})
PYTHON
"$trireme" convert shared.safetensors shared --base base > convert.txt
"$trireme" convert shared shared.back.safetensors --to kohya > convert.txt
python3 "$PYTHONPATH/weights_files.py" equal shared.safetensors \
  shared.back.safetensors
expect_error "norm_out.linear, expected none: kohya's scripts have no name" \
  "$trireme" convert lora no.safetensors --to kohya

echo "== merged weights compute what the run does"
"$trireme" convert lora merged > convert.txt
"$trireme" convert adapter/pytorch_lora_weights.safetensors other --base base \
  --to weights > convert.txt
diff -r merged other || fail "the file's adapters are others"
python3 - <<'PYTHON'
import json
from weights_files import write
config = json.load(open("base/transformer/config.json"))
def some(*shape):
    size = 1
    for extent in shape:
        size *= extent
    return list(shape), [(7 * i % 23 - 11) / 8 for i in range(size)]
tokens = config["in_channels"]
write("inputs.safetensors", {
    "hidden_states": some(2, 16, tokens),
    "encoder_hidden_states": some(2, 8, config["joint_attention_dim"]),
    "pooled_projections": some(2, config["pooled_projection_dim"]),
    "timestep": ([2], [0.25, 0.75]), "guidance": ([2], [3.5, 3.5]),
    "img_ids": ([16, 3], [float(x) for row in range(4) for column in range(4)
                          for x in (0, row, column)]),
    "txt_ids": ([8, 3], [0.0] * 24)})
PYTHON
"$trireme" convert dora dora_merged > convert.txt
"$trireme" convert dora.safetensors dora_other --base base --to weights > convert.txt
diff -r dora_merged dora_other || fail "the file's magnitudes are others"
for model in base lora merged read dora dora_merged; do
  "$trireme" forward $model --inputs inputs.safetensors \
    --out $model.output.safetensors --precision FP32 > forward.txt
done
cmp {lora,merged}.output.safetensors || fail "merged weights are others"
cmp {lora,read}.output.safetensors || fail "adapters that were read are others"
! cmp -s {lora,base}.output.safetensors || fail "the adapters do nothing"
cmp {dora,dora_merged}.output.safetensors || fail "merged directions are others"
"$trireme" sample lora --prompt bright --out drawn.png > sample.txt
[[ -s drawn.png ]] || fail "drew nothing"

echo "== chosen layers"
job 3 'init { weights: "lora/checkpoints/step_00000006" }
       train { parameters: LAYERS layers: "blocks.1.mlp.*"
               except: "*.bias" }' > layers.textproto
"$trireme" train layers.textproto --out layers > train.txt
"$trireme" convert layers layers.weights > convert.txt
python3 - <<'PYTHON'
from weights_files import read
trained = read("layers/checkpoints/step_00000003/model.safetensors")
assert sorted(trained) == ["blocks.1.mlp.in.weight",
                           "blocks.1.mlp.out.weight"], sorted(trained)
name = "transformer/diffusion_pytorch_model.safetensors"
before, after = read("merged/" + name), read("layers.weights/" + name)
changed = {name for name in before if before[name] != after[name]}
single = "single_transformer_blocks.0."
assert changed == {single + "proj_mlp.weight", single + "proj_out.weight"}, changed
PYTHON

echo "== mistakes"
train() { # train FIELD=VALUE...: refused
  local fields=()
  for field in "$@"; do fields+=(--set "$field"); done
  "$trireme" train lora.textproto --out refused "${fields[@]}"
}
expect_error "train.parameters: found ADAPTERS without init.weights" \
  train 'init.weights=""'
expect_error "train.layers: found 'blocks.7.*', which no layer is named" \
  train 'train.layers=blocks.7.*'
expect_error "train.rank: found 0, expected 1 to 4096" train train.rank=0
expect_error "train.rank: found, expected it with parameters: ADAPTERS only" \
  train train.parameters=LAYERS
expect_error "train.decompose: found, expected it with parameters: ADAPTERS" \
  "$trireme" train base.textproto --out refused --set train.decompose=true
expect_error "train.frozen: found, expected it with parameters: LAYERS" \
  "$trireme" train base.textproto --out refused --set train.frozen=NF4
expect_error "init.weights: $work/base/nothing" train init.weights=base/nothing
[[ ! -e refused ]] || fail "a refused run left a folder"
job 1 'init { weights: "base" }
       train { parameters: ADAPTERS layers: "patch_embedding" }' \
  > patches.textproto
"$trireme" train patches.textproto --out patches > train.txt
expect_error "'patch_embedding': found an adapter, expected none" \
  "$trireme" convert patches patches.safetensors --to adapter
expect_error "found no adapters" \
  "$trireme" convert base.run no.safetensors --to adapter
expect_error "--base: found none" "$trireme" convert read.safetensors no
damaged() { # damaged PYTHON TEXT: what is changed of the file
  python3 - "$1" <<'PYTHON'
import sys
from weights_files import read, write
tensors = read("read.safetensors")
exec(sys.argv[1])
write("damaged.safetensors", tensors)
PYTHON
  expect_error "damaged.safetensors: $2" \
    "$trireme" convert damaged.safetensors no --base base
}
damaged 'del tensors["transformer.transformer_blocks.0.attn.to_k.lora_A.weight"]' \
  "found tensor 'transformer.transformer_blocks.0.attn.to_q.lora_A.weight' without 'transformer.transformer_blocks.0.attn.to_k.lora_A.weight'"
damaged 'tensors["transformer.elsewhere.lora_A.weight"] = [4, 1], [0.0] * 4' \
  "found tensor 'transformer.elsewhere.lora_A.weight', which no linear module of FluxTransformer2DModel has"
damaged 'tensors["transformer.proj_out.lora_A.weight"] = [2, 32], [0.0] * 64' \
  "tensor 'transformer.proj_out.lora_A.weight': found fp32 [2, 32]"
python3 - <<'PYTHON'
from weights_files import read, write
tensors = read("dora.safetensors")
del tensors["transformer.transformer_blocks.0.attn.to_k.lora_magnitude_vector"]
write("damaged.safetensors", tensors)
PYTHON
expect_error "to_k.lora_magnitude_vector" \
  "$trireme" convert damaged.safetensors no --base base
mv base moved
expect_error "base: found neither a checkpoint" \
  "$trireme" sample lora --out no.png
echo PASSED
