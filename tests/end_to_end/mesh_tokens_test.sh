#!/bin/bash
# From meshes to a model of their tokens and back to meshes: what a user types.
# Usage: mesh_tokens_test.sh PATH_TO_TRIREME
source "$(dirname "$0")/testing.sh" "$1"

python3 - <<'PYTHON'
import math, os
from meshes import box, write_obj

os.makedirs("meshes/block")
os.makedirs("meshes/cone")

def cone(n):
    """Without its base."""
    return ([(0, 1, 0)] + [(math.cos(2 * math.pi * j / n), 0,
                            math.sin(2 * math.pi * j / n)) for j in range(n)],
            [(0, 1 + (j + 1) % n, 1 + j) for j in range(n)])

for i in range(4):
    write_obj("meshes/block/box_%d.obj" % i, *box(height=(1 + i) / 4))
    vertices, sides = cone(5 + i)
    write_obj("meshes/cone/cone_%d.obj" % i, vertices,
              sides + [tuple(range(1, len(vertices)))])
# More triangles than are kept, and more tokens than the model sees.
write_obj("meshes/cone/many.obj", *cone(60))
corners, sides = box()
write_obj("meshes/block/two.obj",
          corners + [(x + 2, y, z) for x, y, z in corners],
          sides + [tuple(8 + i for i in side) for side in sides])
PYTHON

"$trireme" data meshes shapes --shapes --points 64 --shell_cells 36 \
  --mesh_faces 50 > data.txt
expect_in data.txt "9 of 10 shapes"
expect_in data.txt "1 refused: over a limit"
expect_in data.txt "cone/many.obj: found 60 triangles, expected at most 50"
cat > job.textproto <<'JOB'
model { mesh_tokens { hidden: 32 layers: 2 heads: 2 } }
data { shapes { path: "shapes" sequences { tokens: 44 bits: 4 block_bits: 2 } } }
global_batch: 4
steps: 12
optimizer { learning_rate: 1e-2 ema_decay: 0 }
precision: FP32
sample { per_class: 2 }
JOB
"$trireme" train job.textproto --dry_run > dry.txt 2> dry_errors.txt
expect_in dry.txt "sequences of 44 of 193 tokens"
expect_in dry.txt "8 samples in 2 classes"
expect_in dry_errors.txt "1 of 9 meshes take more than 44 tokens"
"$trireme" launch job.textproto --ranks 2 --out run > train.txt
expect_in train.txt "4 shapes: run/samples/step_00000012.png"
# Of the even start, log 193, and less at the end.
python3 - <<'PYTHON'
import json, math
losses = [json.loads(line)["loss"] for line in open("run/metrics.jsonl")]
assert abs(losses[0] - math.log(193)) < 1e-4, losses
assert losses[-1] < losses[0] - 0.3, losses
PYTHON

"$trireme" sample run --out drawn.png --per_class 3 --top_p 0.9 \
  --temperature 0.8 --seed 5 > sample.txt
expect_in sample.txt "6 shapes from "
[[ $(head -c 4 drawn.png) == $'\x89PNG' ]] || fail "no picture"
for mesh in drawn/*.glb; do
  [[ $(head -c 4 "$mesh") == glTF ]] || fail "no mesh $mesh"
done
# The likeliest tokens are the same whatever the seed.
"$trireme" sample run --out one.png --temperature 0 --seed 1 > sample.txt
"$trireme" sample run --out two.png --temperature 0 --seed 2 > sample.txt
cmp one.png two.png || fail "a seed chose at temperature 0"

# Other files take the place of those that are there; a row a shape.
"$trireme" sample run --out drawn.png --per_class 3 --mesh_format obj \
  --turntable 4 > sample.txt
expect_in sample.txt "6 shapes from "
[[ $(ls drawn | grep -c '\.obj$') -ge 1 && -z $(ls drawn/*.glb 2>/dev/null) ]] ||
  fail "found $(ls drawn)"
python3 - <<'PYTHON'
import struct

def size(path):
    return struct.unpack(">II", open(path, "rb").read()[16:24])

# Six rows of four views.
assert size("drawn.png")[1] > 6 * 128, size("drawn.png")
assert size("drawn.png")[0] > 4 * 128, size("drawn.png")
PYTHON
expect_error "mesh_format: found 'stl', expected glb, obj or ply" \
  "$trireme" sample run --out three.png --mesh_format stl
expect_error "turntable: found 65, expected 1 to 64" \
  "$trireme" sample run --out three.png --turntable 65
expect_error "model.mesh_tokens: found other data, expected sequences" \
  "$trireme" train job.textproto --set 'data.shapes={path:"shapes"}'
expect_error "data.shapes.sequences: found, expected mosaics or none" \
  "$trireme" train job.textproto --set 'model={dit{preset:TINY}}'
expect_error "data.shapes.sequences.block_bits: found 4, expected 1 to 3" \
  "$trireme" train job.textproto --set data.shapes.sequences.block_bits=4
expect_error "objective: found another one, expected next_token" \
  "$trireme" train job.textproto --set objective.diffusion.steps=10
expect_error "top_p: found 2, expected 0 to 1" \
  "$trireme" sample run --out three.png --top_p 2
expect_error "parts: found some chosen for samples that are no surfaces" \
  "$trireme" sample run --out three.png --parts all
