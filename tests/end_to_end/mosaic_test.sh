#!/bin/bash
# From meshes to trained generators of shapes, of mosaics and of volumes, and
# back to meshes; a run that is given others than it learnt.
# Usage: mosaic_test.sh PATH_TO_TRIREME
source "$(dirname "$0")/testing.sh" "$1"

python3 - <<'PYTHON'
import os
from meshes import box, torus, write_obj

os.makedirs("meshes/ring")
os.makedirs("meshes/block")

for i in range(6):
    write_obj("meshes/block/box_%d.obj" % i, *box(height=(1 + i) / 4))
    write_obj("meshes/ring/torus_%d.obj" % i, *torus(0.15 + 0.05 * i))
PYTHON

"$trireme" data meshes shapes --shapes --points 512 --shell_cells 36 \
  --mosaic_grids 16 --mosaic_resolution 3 --volume_cells 8 > data.txt
cat > job.textproto <<'JOB'
model { dit { hidden: 32 layers: 2 heads: 2 } }
data { shapes { path: "shapes" grids: 16 resolution: 3 } held_out: 3 }
global_batch: 4
steps: 12
optimizer { learning_rate: 1e-3 ema_decay: 0.9 }
precision: FP32
sample { steps: 3 per_class: 1 }
JOB
"$trireme" train job.textproto --dry_run > dry.txt
expect_in dry.txt "16 tokens"
expect_in dry.txt "9 samples in 2 classes"
"$trireme" launch job.textproto --ranks 2 --set model.dit.moe.experts=4 \
  --set 'validation={every: 12 samples: 3}' --out run > train.txt
expect_in train.txt "2 shapes: run/samples/step_00000012.png"
[[ -e run/samples/step_00000012/00_block_0.glb ]] ||
  fail "no mesh among: $(ls -R run/samples)"

# TensorBoard shows the meshes that were drawn, each expert's share, and how each
# parameter's elements are distributed, as the checkpoint has them.
python3 - <<'PYTHON'
import json, struct
from event_files import tensors
from weights_files import read_checkpoint

found = {(step, plugin, tag): (shape, numbers)
         for step, plugin, tag, shape, numbers in tensors("run/tensorboard")}
steps = [json.loads(line) for line in open("run/metrics.jsonl")]
layers = steps[9]["expert_shares"]
assert len(layers) == 2, layers
for layer, shares in layers.items():
    shape, numbers = found.pop((10, "histograms", "experts/" + layer))
    assert shape == [4, 3], shape
    assert list(numbers) == [
        x for expert, share in enumerate(shares)
        for x in (expert, expert + 1, share)], (numbers, shares)
for name in "00_block", "01_ring":
    with open("run/samples/step_00000012/%s_0.glb" % name, "rb") as file:
        glb = file.read()
    (size,) = struct.unpack_from("<I", glb, 12)
    points, indices = json.loads(glb[20:20 + size])["accessors"]
    shape, numbers = found.pop((12, "mesh", "samples/%s_VERTEX" % name))
    assert shape == [1, points["count"], 3], (shape, points)
    for axis in range(3):
        assert abs(min(numbers[axis::3]) - points["min"][axis]) < 1e-6, points
        assert abs(max(numbers[axis::3]) - points["max"][axis]) < 1e-6, points
    shape, numbers = found.pop((12, "mesh", "samples/%s_FACE" % name))
    assert shape == [1, indices["count"] // 3, 3], (shape, indices)
    assert max(numbers) < points["count"], max(numbers)
weights = read_checkpoint("run/checkpoints/step_00000012", "model")
for name, (_, values) in weights.items():
    shape, numbers = found.pop((12, "histograms", "parameters/" + name))
    bins = list(zip(*[iter(numbers)] * 3))
    assert sum(count for _, _, count in bins) == len(values), name
    for low, high, count in bins:
        inside = sum(low <= value < high if high > 0 else low < value <= high
                     for value in values)
        assert inside == count, (name, low, high, count, inside)
assert not found, list(found)
PYTHON

# TensorBoard reads what it is meant to, where it is installed.
python3 - <<'PYTHON'
try:
    from tensorboard.backend.event_processing import plugin_event_accumulator
    from tensorboard.util import tensor_util
except ImportError as error:
    print("TensorBoard's own reader is not tried:", error)
    raise SystemExit(0) from None
import json

found = plugin_event_accumulator.EventAccumulator(
    "run/tensorboard", size_guidance={"tensors": 0}).Reload()


def last(plugin, tag):
    assert tag in found.PluginTagToContent(plugin), (plugin, tag, found.Tags())
    event = found.Tensors(tag)[-1]
    return event.step, tensor_util.make_ndarray(event.tensor_proto)


steps = [json.loads(line) for line in open("run/metrics.jsonl")]
step, loss = last("scalars", "train/loss")
assert (step, round(float(loss), 4)) == (12, round(steps[-1]["loss"], 4)), loss
for tag in found.PluginTagToContent("histograms"):
    shape = last("histograms", tag)[1].shape
    assert len(shape) == 2 and shape[1] == 3, (tag, shape)
assert b"steps: 12" in last("text", "job")[1].item()
assert last("images", "samples")[1][2].startswith(b"\x89PNG")
assert last("mesh", "samples/00_block_VERTEX")[1].shape[2] == 3
PYTHON

"$trireme" sample run --out drawn.png --per_class 2 --evaluate 3 > sample.txt
expect_in sample.txt "4 shapes from "
expect_in sample.txt "to 3 held-out ones: MMD "
expect_in sample.txt "nearest training shape: squared Chamfer distance "
for picture in drawn.png drawn_nearest.png; do
  [[ $(head -c 4 "$picture") == $'\x89PNG' ]] || fail "no picture $picture"
done
for mesh in drawn/00_block_{0,1}.glb drawn/01_ring_{0,1}.glb; do
  [[ $(head -c 4 "$mesh") == glTF ]] || fail "no mesh $mesh"
done
# A mesh that was made is one that is read.
mkdir again
cp drawn/*.glb again
"$trireme" data again reread --shapes --points 64 --shell_cells 36 > reread.txt
expect_in reread.txt "4 of 4 shapes"

# A picture with the run's own name has its meshes in a folder beside the run.
"$trireme" sample run --out run.png > sample.txt
expect_in sample.txt "in run.png, meshes in run_meshes"
[[ $(ls run_meshes) == $'00_block_0.glb\n01_ring_0.glb' ]] ||
  fail "found $(ls run_meshes)"
[[ -z $(ls run/*.glb 2> /dev/null) ]] || fail "meshes in the run's folder"

# Fewer shapes: those of before are gone, and nothing of others'.
"$trireme" sample run --out drawn.png > sample.txt
[[ $(ls drawn) == $'00_block_0.glb\n01_ring_0.glb' ]] ||
  fail "found $(ls drawn)"
echo mine > drawn/mine.glb
expect_error "mine.glb: found a file that this program did not write" \
  "$trireme" sample run --out drawn.png
"$trireme" sample run --out drawn.png --overwrite > sample.txt
[[ $(cat drawn/mine.glb) == mine ]] || fail "mine.glb was overwritten"

# A model that is shown a view of the shape draws for views of the data set's,
# on one rank or on those of a plan, the same.
sed 's/^model.*/model { triposg { hidden: 32 layers: 3 heads: 2 picture { } } }/' \
  job.textproto > views.textproto
echo 'grid { pp: 2 }' > views_plan.textproto
"$trireme" launch views.textproto --ranks 2 --plan views_plan.textproto \
  --out views > train.txt
expect_in train.txt "shapes: views/samples/step_00000012.png"
"$trireme" sample views --out view.png --evaluate 3 > sample.txt
expect_in sample.txt "to 3 held-out ones: MMD "
cmp view/00__0.glb views/samples/step_00000012/00__0.glb ||
  fail "one rank draws other shapes than two"

# Cubes of a regular grid, which know their places.
sed 's/grids: 16 resolution: 3/volume { cells: 8 patch: 4 }/' job.textproto \
  > volumes.textproto
"$trireme" train volumes.textproto --dry_run > dry.txt
expect_in dry.txt "8 tokens"
"$trireme" launch volumes.textproto --ranks 2 --out volumes > train.txt
expect_in train.txt "2 shapes: volumes/samples/step_00000012.png"
expect_in volumes/job.textproto "positions: SINCOS"
"$trireme" sample volumes --out volume.png --evaluate 3 > sample.txt
expect_in sample.txt "to 3 held-out ones: MMD "
"$trireme" sample volumes --out volume.png --parts all > sample.txt
expect_error "--parts: found 'some', expected all, touching or largest" \
  "$trireme" sample volumes --out volume.png --parts some
expect_error "data.shapes.volume.patch: found 3, expected a divisor" \
  "$trireme" train volumes.textproto --set data.shapes.volume.patch=3
expect_error "data.shapes.volume.cells: found 16, expected 8" \
  "$trireme" train volumes.textproto --set data.shapes.volume.cells=16
expect_error "data.shapes.volume: found with data.shapes.grids" \
  "$trireme" train volumes.textproto --set data.shapes.grids=4 \
  --set data.shapes.resolution=3

expect_error "data.shapes.grids: found 8, expected 16" \
  "$trireme" train job.textproto --set data.shapes.grids=8
expect_error "data.shapes.resolution: found 1, expected 2 to 16" \
  "$trireme" train job.textproto --set data.shapes.resolution=1
expect_error "data.resolution: found with data.shapes" \
  "$trireme" train job.textproto --set data.resolution=16
expect_error "model.hidream: found data of sets of tokens, expected pictures" \
  "$trireme" train job.textproto --set model.hidream.preset=TINY
expect_error "expected a shape cache" \
  "$trireme" train job.textproto --set data.shapes.path=meshes
