#!/bin/bash
# From shapes to an autoencoder of them, to sets of latents, to a generator of
# those, and back to meshes; the autoencoder in TripoSG's own files; the same way
# by one of voxels.
# Usage: shape_vae_test.sh PATH_TO_TRIREME
source "$(dirname "$0")/testing.sh" "$1"

python3 - <<'PYTHON'
import math, os
from meshes import box, write_obj

os.makedirs("meshes/ball")
os.makedirs("meshes/block")

for i in range(3):
    write_obj("meshes/block/box_%d.obj" % i, *box(height=(2 + i) / 4))
    n, m = 16, 8
    at = lambda i, j: (math.sin(math.pi * j / m) * math.cos(2 * math.pi * i / n),
                       math.cos(math.pi * j / m),
                       math.sin(math.pi * j / m) * math.sin(2 * math.pi * i / n))
    rows = [[at(i, j) for i in range(n)] for j in range(1, m)]
    points = [p for row in rows for p in row] + [at(0, 0), at(0, m)]
    top, bottom = len(points) - 2, len(points) - 1
    write_obj("meshes/ball/ball_%d.obj" % i,
              [(x, (1 + i) * y / 3, z) for x, y, z in points],
              [(j * n + a, j * n + (a + 1) % n, (j + 1) * n + (a + 1) % n,
                (j + 1) * n + a) for j in range(m - 2) for a in range(n)] +
              [(top, (a + 1) % n, a) for a in range(n)] +
              [(bottom, (m - 2) * n + a, (m - 2) * n + (a + 1) % n)
               for a in range(n)])
PYTHON

"$trireme" data meshes shapes --shapes --points 512 --shell_cells 36 > data.txt
cat > vae.textproto <<'JOB'
model {
  shape_vae {
    latents: 16 channels: 8 encoder_hidden: 32 decoder_hidden: 32
    encoder_layers: 1 decoder_layers: 1 heads: 2 frequencies: 4
    points: 256 queries: 256
  }
}
data { shapes { path: "shapes" } }
global_batch: 6
steps: 200
optimizer { learning_rate: 3e-3 warmup_steps: 10 ema_decay: 0.9 }
precision: FP32
JOB
"$trireme" train vae.textproto --dry_run > dry.txt
expect_in dry.txt "autoencoder of shapes: 1 + 1 blocks"
"$trireme" launch vae.textproto --ranks 1 --out vae > train.txt
python3 - <<'PYTHON'
import json

losses = [json.loads(line).get("loss") for line in open("vae/metrics.jsonl")]
losses = [loss for loss in losses if loss is not None]
assert losses[-1] < 0.5 * losses[0], (losses[0], losses[-1])
PYTHON
# Two ranks, one of the encoder and one of the decoder, and every loss.
echo 'grid { pp: 2 }' > plan.textproto
"$trireme" launch vae.textproto --ranks 2 --plan plan.textproto --out other \
  --set steps=4 --set 'model.shape_vae.losses={normal: 1 eikonal: 0.1}' \
  > train.txt
"$trireme" sample vae --out given.png > sample.txt
expect_in sample.txt "given back of 6 training shapes: volume IoU "
python3 - <<'PYTHON'
import re

iou = float(re.search(r"IoU (\S+),", open("sample.txt").read()).group(1))
assert iou > 0.3, iou
numbers = r"([\d.]+)"
found = [float(x) for x in re.search(
    rf"Chamfer distance {numbers}, F-score {numbers}, normal consistency "
    rf"{numbers} \(other points of the same shapes: {numbers}, {numbers}, "
    rf"{numbers}\)", open("sample.txt").read()).groups()]
# Nothing is nearer to a shape than itself, and this is not far. So few points
# lie too far apart for normals to tell more.
assert found[3] < found[0] < 0.3, found
assert found[2] > 0.5 and found[5] > 0.5, found
PYTHON
[[ $(head -c 4 given/00_*.glb) == glTF ]] || fail "no mesh: $(ls given)"
# One of occupancy, whose surface is where it is undecided.
"$trireme" train vae.textproto --out occupied \
  --set model.shape_vae.losses.occupancy=true > train.txt
"$trireme" sample occupied --out occupied.png > sample.txt
expect_in sample.txt "share on the wrong side near the surface "
python3 - <<'PYTHON'
import re

iou = float(re.search(r"IoU (\S+),", open("sample.txt").read()).group(1))
assert iou > 0.2, iou
PYTHON

"$trireme" data shapes latents --shapes --latents vae > data.txt
expect_in data.txt "latents of 6 shapes in 1 shards in latents; 0 skipped"
# The autoencoder's run may train on: later weights decode other latents.
expect_in latents/latents.json "/vae/checkpoints/step_"
# In the files of the published class they are the same.
"$trireme" convert vae published > convert.txt
grep -q TripoSGVAEModel published/transformer/config.json || fail "no class"
"$trireme" convert published back > convert.txt
"$trireme" data shapes again --shapes --latents back --latent_tokens 16 \
  > data.txt
python3 - <<'PYTHON'
import struct, tarfile

def read(folder):
    with tarfile.open(folder + "/shard-000000.tar") as tar:
        bytes = tar.extractfile("000000000.latents").read()
    assert struct.unpack("<3I", bytes[:12]) == (16, 8, 1), bytes[:12]
    return struct.unpack("<256f", bytes[12:])

assert max(map(abs, read("latents"))) > 0.01
PYTHON

cat > flow.textproto <<'JOB'
model { triposg { hidden: 32 layers: 3 heads: 2 } }
data { latents { path: "latents" } held_out: 3 }
global_batch: 3
steps: 12
optimizer { learning_rate: 1e-3 ema_decay: 0.9 }
precision: FP32
sample { steps: 3 per_class: 1 }
JOB
"$trireme" launch flow.textproto --ranks 2 --out flow > train.txt
expect_in train.txt "2 shapes: flow/samples/step_00000012.png"
"$trireme" sample flow --out drawn.png > sample.txt
expect_in sample.txt "2 shapes from "
[[ $(head -c 4 drawn.png) == $'\x89PNG' ]] || fail "no picture"

expect_error "data.shapes: found neither grids nor a volume" \
  "$trireme" train vae.textproto --set 'model={triposg {preset: TINY}}'
expect_error "a cache without mosaics" \
  "$trireme" train vae.textproto --set data.shapes.grids=4 \
  --set data.shapes.resolution=3
expect_error "sample.every: found with an autoencoder" \
  "$trireme" train vae.textproto --set sample.every=10
expect_error "model.shape_vae.points: found 513" \
  "$trireme" train vae.textproto --set model.shape_vae.points=513
expect_error "expected precision FP32" \
  "$trireme" train vae.textproto --set precision=BF16 \
  --set model.shape_vae.losses.normal=1
expect_error "objective: found rectified_flow, expected reconstruction" \
  "$trireme" train vae.textproto --set 'objective={rectified_flow {}}'
# A picture of each shape lies beside its latents, unless the folder is of an
# earlier version. The second stage reads no latents, and knows of it.
echo 'grid { pp: 2 }' > seen_plan.textproto
"$trireme" launch flow.textproto --ranks 2 --plan seen_plan.textproto \
  --out seen \
  --set 'model={triposg {hidden: 32 layers: 3 heads: 2 picture {}}}' \
  --set steps=2 > train.txt
expect_in train.txt "shapes: seen/samples/step_00000002.png"
mkdir unseen
cp latents/classes.txt latents/latents.json unseen
python3 - <<'PYTHON'
import tarfile
with tarfile.open("latents/shard-000000.tar") as whole, \
        tarfile.open("unseen/shard-000000.tar", "w") as without:
    for member in whole:
        if not member.name.endswith(".png"):
            without.addfile(member, whole.extractfile(member))
PYTHON
expect_error "found latents of 8x1 in " \
  "$trireme" train flow.textproto --set data.latents.path=unseen \
  --set 'model={triposg {hidden: 32 layers: 3 heads: 2 picture {}}}'
expect_error "expected an autoencoder of shapes" \
  "$trireme" data shapes more --shapes --latents flow

# An autoencoder of voxels near the surface, on one rank and on two stages.
"$trireme" data meshes voxels --shapes --points 512 --shell_cells 36 \
  --volume_cells 16 > data.txt
cat > sparse.textproto <<'JOB'
model { sparse_vae { preset: TINY hidden: 32 heads: 2 } }
data {
  shapes { path: "voxels" voxels { resolution: 16 tokens: 4096 whole: 4 } }
  held_out: 2
}
global_batch: 4
steps: 40
optimizer { learning_rate: 3e-3 warmup_steps: 5 ema_decay: 0.9 }
precision: FP32
JOB
"$trireme" train sparse.textproto --dry_run > dry.txt
expect_in dry.txt "autoencoder of sparse voxels: 2 levels, 1 + 1 blocks"
"$trireme" launch sparse.textproto --ranks 1 --out sparse > train.txt
python3 - <<'PYTHON'
import json

losses = [json.loads(line).get("loss") for line in open("sparse/metrics.jsonl")]
losses = [loss for loss in losses if loss is not None]
assert losses[-1] < 0.5 * losses[0], (losses[0], losses[-1])
PYTHON
"$trireme" launch sparse.textproto --ranks 2 --plan plan.textproto \
  --out sparse_stages --set steps=2 --set data.shapes.voxels.whole=1 > train.txt
"$trireme" sample sparse --out voxels_back.png > sample.txt
expect_in sample.txt "given back of 2 held-out shapes: volume IoU "
[[ $(head -c 4 voxels_back/00_*.glb) == glTF ]] || fail "no mesh: $(ls voxels_back)"
# By the weights of a run whose shapes have fewer voxels.
"$trireme" train sparse.textproto --out sparse_fewer --set steps=1 \
  --set data.shapes.voxels.whole=1 --set data.shapes.voxels.tokens=1400 \
  --set 'data.shapes.voxels.coarser_tokens=[500]' > train.txt
"$trireme" sample sparse --checkpoint sparse_fewer/checkpoints/step_00000001 \
  --out of_fewer.png > sample.txt
expect_in sample.txt "given back of 2 held-out shapes: volume IoU "
# Adapters of all its blocks, which have no modulations to leave out.
"$trireme" train sparse.textproto --out sparse_adapted --set steps=1 \
  --set 'init={weights: "sparse/checkpoints/step_00000040"}' \
  --set 'train={parameters: ADAPTERS rank: 2}' > train.txt
expect_in train.txt "of adapters of rank 2"

# A generator of voxels near the surface draws at those of held-out shapes.
cat > at_cells.textproto <<'JOB'
model { sparse_dit { preset: TINY hidden: 32 heads: 2 key_heads: 2 layers: 2 } }
data {
  shapes { path: "voxels" voxels { resolution: 16 patch: 2 tokens: 512 } }
  held_out: 3
}
global_batch: 4
steps: 6
optimizer { learning_rate: 1e-3 ema_decay: 0.9 }
precision: FP32
sample { steps: 2 per_class: 1 }
JOB
"$trireme" launch at_cells.textproto --ranks 2 --out at_cells > train.txt
expect_in train.txt "2 shapes: at_cells/samples/step_00000006.png"
"$trireme" sample at_cells --out at_places.png --evaluate 3 > sample.txt
expect_in sample.txt "to 3 held-out ones: MMD "
expect_in sample.txt "drawn at the voxels of such shapes"
[[ $(ls at_places) == $'00_ball_0.glb\n01_block_0.glb' ]] ||
  fail "found $(ls at_places)"

"$trireme" data voxels voxel_latents --shapes --latents sparse > data.txt
expect_in data.txt "latents of 6 shapes in 1 shards in voxel_latents; 0 skipped"
expect_in voxel_latents/latents.json "/sparse/checkpoints/step_"
cat > sparse_flow.textproto <<'JOB'
model { sparse_dit { hidden: 32 layers: 2 heads: 4 key_heads: 2 top_k: 2 } }
data { latents { path: "voxel_latents" } }
global_batch: 3
steps: 8
optimizer { learning_rate: 1e-3 ema_decay: 0.9 }
precision: FP32
sample { steps: 3 per_class: 1 }
JOB
"$trireme" launch sparse_flow.textproto --ranks 2 --out sparse_flow > train.txt
expect_in train.txt "2 shapes: sparse_flow/samples/step_00000008.png"
"$trireme" sample sparse_flow --out sparse_drawn.png > sample.txt
expect_in sample.txt "2 shapes from "
# From a class to its cells, to latents there, to a mesh.
cat > places.textproto <<'JOB'
model { dit { hidden: 32 layers: 2 heads: 2 } }
data { shapes { path: "voxels" volume { cells: 4 patch: 1 occupied_of: 16 } } }
objective { rectified_flow { prediction: CLEAN } }
global_batch: 6
steps: 60
optimizer { learning_rate: 3e-3 ema_decay: 0.9 }
precision: FP32
sample { at_end: false steps: 4 per_class: 1 }
JOB
"$trireme" launch places.textproto --ranks 1 --out places > train.txt
"$trireme" sample places --out cells.png > sample.txt
expect_in sample.txt "2 shapes from "
"$trireme" sample sparse_flow --places places --out placed.png > sample.txt
expect_in sample.txt "2 shapes from "
cmp -s placed.png sparse_drawn.png && fail "drawn at the data's places"
cp placed.png first.png
"$trireme" sample sparse_flow --places places --out placed.png > sample.txt
cmp placed.png first.png || fail "the same seed drew other places"

expect_error "data.shapes.voxels: found, expected mosaics" \
  "$trireme" train sparse.textproto --set 'model={dit {preset: TINY}}'
expect_error "data.shapes.voxels.tokens: found 5, expected at least the " \
  "$trireme" train sparse.textproto --set data.shapes.voxels.tokens=5
for family in sparse_vae sparse_dit; do
  expect_error "model.$family: found other data, expected voxels" \
    "$trireme" train vae.textproto --set "model={$family {preset: TINY}}"
done
expect_error "data.shapes.voxels.whole: found 1, expected a multiple of 4" \
  "$trireme" data voxels more --shapes --latents sparse_stages
expect_error "places: found places for a model that draws at no places" \
  "$trireme" sample places --places places --out other.png
expect_error "parts: found some chosen for samples that are no surfaces" \
  "$trireme" sample vae --parts all --out other.png
expect_error "places: found flow, whose data are other than which cells are" \
  "$trireme" sample sparse_flow --places flow --out other.png
expect_error "data.shapes.volume.occupied_of: found 18, expected a multiple of" \
  "$trireme" train places.textproto --set data.shapes.volume.occupied_of=18
expect_error "--latent_tokens: found with an autoencoder of sparse voxels" \
  "$trireme" data voxels more --shapes --latents sparse --latent_tokens 9
expect_error "model.sparse_vae: found other data, expected voxels" \
  "$trireme" train sparse_flow.textproto --set 'model={sparse_vae {preset: TINY}}'
