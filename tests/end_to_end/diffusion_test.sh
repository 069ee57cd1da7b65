#!/bin/bash
# Denoising diffusion from a job to pictures: on a grid of four ranks and on one,
# drawn by DDIM and by DDPM with learned variances, written as diffusers'
# DiTTransformer2DModel and fine-tuned from there.
# Usage: diffusion_test.sh PATH_TO_TRIREME
source "$(dirname "$0")/testing.sh" "$1"

cat > job.textproto <<'JOB'
model {
  dit {
    hidden: 32
    layers: 2
    heads: 4
    patch: 7
    positions: SINCOS
    qk_norm: false
    conditioning: PER_BLOCK
    learned_variance: true
  }
}
objective { diffusion { min_snr_gamma: 5 } }
data { idx { folder: "/usr/share/datasets/fashion-mnist" } resolution: 28 }
global_batch: 16
steps: 40
optimizer { learning_rate: 3e-3 }
sample { steps: 10 per_class: 1 }
precision: FP32
JOB

echo "== four ranks and one learn the same"
echo 'grid { tp: 2 pp: 2 }' > plan.textproto
"$trireme" launch job.textproto --plan plan.textproto --out grid > launch.txt
expect_in launch.txt "tp 2 x pp 2"
[[ -s grid/samples/step_00000040.png ]] || fail "no samples of the grid"
"$trireme" train job.textproto --out one > train.txt
python3 - <<'PYTHON'
import json
grid, one = ([json.loads(line) for line in open(f"{run}/metrics.jsonl")]
             for run in ("grid", "one"))
assert len(grid) == len(one) == 40
for a, b in zip(grid, one):
    assert abs(a["loss"] - b["loss"]) < 1e-3 * b["loss"], (a, b)
    bound = "variational_bound"
    assert abs(a[bound] - b[bound]) < 1e-3 * abs(b[bound]) + 1e-6, (a, b)
losses = [entry["loss"] for entry in one]
assert sum(losses[-5:]) < 0.8 * sum(losses[:5]), losses
PYTHON

echo "== drawn with the variances that it learnt"
"$trireme" sample one --solver ddpm --steps 20 --out ddpm.png > ddpm.txt
[[ -s ddpm.png ]] || fail "no samples by DDPM"
expect_error "expected DDIM or DDPM" "$trireme" sample one --solver euler

echo "== as diffusers has it"
"$trireme" convert one weights
python3 - <<'PYTHON'
import json
config = json.load(open("weights/transformer/config.json"))
assert config["_class_name"] == "DiTTransformer2DModel", config
assert (config["in_channels"], config["out_channels"]) == (1, 2), config
assert config["num_embeds_ada_norm"] == 10, config
PYTHON
echo "== evaluated at given inputs, on one rank and by stages"
python3 - <<'PYTHON'
from weights_files import write
write("inputs.safetensors", {
    "hidden_states": ([2, 1, 28, 28], [i % 13 / 13 for i in range(2 * 784)]),
    "timestep": ([2], [10.0, 900.0]), "class_labels": ([2], [3.0, 10.0]),
    "cotangent": ([2, 2, 28, 28], [i % 7 / 7 for i in range(4 * 784)])})
PYTHON
echo 'grid { pp: 2 }' > stages.textproto
forward=("$trireme" forward weights --inputs inputs.safetensors --gradients
  --precision FP64)
"${forward[@]}" --out whole.safetensors
"${forward[@]}" --out stages.safetensors --plan stages.textproto
python3 - <<'PYTHON'
from weights_files import read
whole, stages = read("whole.safetensors"), read("stages.safetensors")
assert whole["sample"][0] == [2, 2, 28, 28], whole["sample"][0]
assert any(whole["gradient.proj_out_2.weight"][1])
assert whole.keys() == stages.keys()
for name, (shape, values) in whole.items():
    largest = max(map(abs, values))
    error = max(abs(a - b) for a, b in zip(values, stages[name][1]))
    # A bias of keys has no gradient but rounding.
    assert error <= 1e-9 * largest + 1e-12, (name, error, largest)
PYTHON

echo "== the class's first name, by which the published weights go"
cp -r weights former
python3 - <<'PYTHON'
import json
path = "former/transformer/config.json"
config = json.load(open(path))
config |= {"_class_name": "Transformer2DModel", "num_vector_embeds": None,
           "only_cross_attention": False}
json.dump(config, open(path, "w"))
PYTHON
"$trireme" convert former renamed --to weights
cmp weights/transformer/diffusion_pytorch_model.safetensors \
  renamed/transformer/diffusion_pytorch_model.safetensors
cmp weights/transformer/config.json renamed/transformer/config.json

echo "== and back into a run that goes on"
"$trireme" train job.textproto --steps 2 --out tuned \
  --set 'init.weights="weights"' > tuned.txt
python3 - <<'PYTHON'
import json
first = json.loads(open("tuned/metrics.jsonl").readline())["loss"]
start = json.loads(open("one/metrics.jsonl").readline())["loss"]
assert first < 0.8 * start, (first, start)
PYTHON

echo "== mistakes"
expect_error "found rectified_flow, expected diffusion" \
  "$trireme" train job.textproto --out none \
  --set 'objective={rectified_flow {}}'
