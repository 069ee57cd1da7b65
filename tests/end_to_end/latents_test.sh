#!/bin/bash
# Training on an autoencoder's latents, end to end: encoded by one process and by
# several, stopped and gone on with, trained on, drawn and decoded; of views of
# meshes; and mistakes.
# Usage: latents_test.sh PATH_TO_TRIREME GOLDENS WEIGHTS_FILES_PY
goldens=$PWD/$2
files=$PWD/$3
source "$(dirname "$0")/testing.sh" "$1"
export PYTHONPATH=$PYTHONPATH:$(dirname "$files")

python3 - "$goldens" <<'PYTHON'
import os, sys
from pictures import png
from weights_files import write_autoencoder

for variant in ("sd", "flux"):
    write_autoencoder(sys.argv[1], variant)
for i, name in enumerate(("bright", "dark")):
    os.makedirs("pictures/" + name)
    for k in range(5):
        # One is smaller than what is encoded, one cannot be read.
        content = (b"damaged" if i == k == 1
                   else png(200 - 150 * i + k, side=4 if k == 0 else 8))
        open(f"pictures/{name}/{k}.png", "wb").write(content)
        open(f"pictures/{name}/{k}.txt", "w").write(f"{name} {k}")
PYTHON
encode=("$trireme" data --latents sd pictures --resolution 8
  --samples_per_shard 4)

echo "== encoding, and going on with what is there"
"${encode[@]}" latents > data.txt 2> warnings.txt
expect_in data.txt "latents of 9 pictures in 3 shards in latents; 1 skipped as unreadable; 2 enlarged"
expect_in warnings.txt "2 pictures are smaller than every size and are enlarged, the first: bright/0.png of 4x4"
sha256sum latents/*.tar > before.txt
rm latents/shard-000001.tar
"${encode[@]}" latents > data.txt
expect_in data.txt "latents of 9 pictures in 3 shards in latents; 1 skipped"
sha256sum -c before.txt > /dev/null || fail "other latents the second time"

echo "== several ranks make the same"
mpirun --allow-run-as-root --oversubscribe -n 2 "${encode[@]}" shared > data.txt
expect_in data.txt "latents of 9 pictures in 3 shards in shared; 1 skipped"
for shard in 0 1 2; do
  cmp {latents,shared}/shard-00000$shard.tar || fail "ranks made other latents"
done

echo "== a rank without the pictures ends all of them"
mkdir here
ln -s ../pictures here/0
expect_error "rank 1: " timeout 60 mpirun --allow-run-as-root --oversubscribe \
  -n 2 bash -c '"$0" data --latents sd here/$OMPI_COMM_WORLD_RANK none \
    --resolution 8' "$trireme"
expect_in error.txt "here/1"

echo "== they are what forward computes"
python3 - <<'PYTHON'
import struct, tarfile
from weights_files import write

with tarfile.open("latents/shard-000000.tar") as tar:
    assert [name for name in tar.getnames() if name.startswith("000000000")] \
        == ["000000000.latents", "000000000.cls", "000000000.txt"], \
        tar.getnames()
    assert tar.extractfile("000000001.txt").read() == b"bright 1"
value = (200 + 1) / 255 * 2 - 1
write("x.safetensors", {"x": ([1, 3, 8, 8], [value] * 192)})
PYTHON
"$trireme" forward sd --inputs x.safetensors --out y.safetensors > forward.txt
python3 - <<'PYTHON'
import struct, tarfile
from weights_files import read

with tarfile.open("latents/shard-000000.tar") as tar:
    latents = tar.extractfile("000000001.latents").read()
assert struct.unpack("<3I", latents[:12]) == (2, 4, 4)
found = struct.unpack("<64f", latents[12:])
y = read("y.safetensors")
expected = y["latent_dist.mean"][1] + y["latent_dist.logvar"][1]
assert all(abs(a - b) < 1e-4 for a, b in zip(found, expected))
PYTHON

echo "== training on them, to the same bits after a resume"
job() { # job STEPS
  cat <<JOB
model { dit { hidden: 16 layers: 2 heads: 2 patch: 2 } }
data { latents { path: "latents" } }
global_batch: 4
steps: $1
optimizer { learning_rate: 1e-2 }
sample { steps: 2 per_class: 2 }
precision: FP32
JOB
}
job 6 > job.textproto
export OMP_NUM_THREADS=1
"$trireme" train job.textproto --out whole > whole.txt
expect_in whole/job.textproto "channels: 2"
expect_in whole/job.textproto "resolution: 4"
expect_in whole/job.textproto "scaling_factor: 0.5"
[[ -s whole/samples/step_00000006.png ]] || fail "no picture"
"$trireme" train job.textproto --steps 3 --out parts > parts.txt
"$trireme" train job.textproto --steps 6 --out parts --resume > parts.txt
cmp {whole,parts}/checkpoints/step_00000006/model.safetensors ||
  fail "other weights after a resume"
echo 'grid { tp: 2 } ' > plan.textproto
"$trireme" verify job.textproto --plan plan.textproto > verify.txt ||
  fail "$(cat verify.txt)"

echo "== pictures of unlike shapes, each at a size of its own"
python3 - <<'PYTHON'
import os
from pictures import png

os.makedirs("shapes/one")
for k in range(9):
    # Five squares, three that lie, one that is smaller than every size.
    height, width = (9, 10) if k < 5 else (5, 14) if k < 8 else (3, 3)
    open(f"shapes/one/{k}.png", "wb").write(png(20 * k, height, width))
PYTHON
"$trireme" data --latents sd shapes sized --size 4x12 --size 8x8 > data.txt
expect_in data.txt "latents of 8 pictures in 1 shards in sized; 1 skipped as unreadable or smaller than every size"
job 6 | sed 's/"latents"/"sized"/' > sized.textproto
"$trireme" train sized.textproto --out sized_run > sized.txt
expect_in sized.txt "4x4: 5 samples of 4 tokens"
expect_in sized.txt "2x6: 3 samples of 3 tokens"
"$trireme" train sized.textproto --steps 2 --out sized_parts > parts.txt
"$trireme" train sized.textproto --steps 6 --out sized_parts --resume > parts.txt
cmp {sized_run,sized_parts}/checkpoints/step_00000006/model.safetensors ||
  fail "other weights after a resume"
for size in 4x4 2x6; do
  expect_in sized_run/metrics.jsonl "\"picture_size\":\"$size\""
done
"$trireme" sample sized_run --size 2x6 --out wide.png > sample.txt
"$trireme" verify sized.textproto --plan plan.textproto > verify.txt ||
  fail "$(cat verify.txt)"
expect_error "data.resolution: found 4 with data.buckets" \
  "$trireme" train sized.textproto --set data.resolution=4 --out other
# One that is held out is a square, one lies.
"$trireme" train sized.textproto --set 'validation={every: 3}' --out measured \
  --set data.held_out=2 > measured.txt || fail "$(cat measured.txt)"
for size in 4x4 2x6; do
  expect_in measured.txt "on 1 of $size"
done
expect_in measured/metrics.jsonl '"validation_loss_by_size":{"2x6":'

echo "== views of meshes, as they are and as latents"
python3 - <<'PYTHON'
import os
from meshes import box, write_obj

os.makedirs("meshes")
for i in range(4):
    write_obj(f"meshes/box_{i}.obj", *box(height=1 + i))
PYTHON
"$trireme" data meshes views --shapes --points 64 --shell_cells 36 --views 3 \
  --view_resolution 8 > data.txt
"$trireme" data --latents sd views view_latents --shapes --views 3 > data.txt
expect_in data.txt "latents of 4 shapes in 1 shards in view_latents; 0 skipped"
expect_in view_latents/latents.json '"views": 3'
expect_in view_latents/latents.json '"extra_channels": 6'
expect_in view_latents/latents.json '"channels": 10'
views() { # views DATA
  cat <<JOB
model {
  mmdit {
    hidden: 24 dual_layers: 2 single_layers: 0 heads: 2 positions: SINCOS
    text { tokens: 8 bytes {} }
  }
}
objective { rectified_flow { loss: OF_CLEAN } }
data { $1 }
global_batch: 4
steps: 3
sample { steps: 2 }
precision: FP32
JOB
}
views 'latents { path: "view_latents" }' > view_latents.textproto
"$trireme" train view_latents.textproto --out view_latents_run > train.txt
expect_in view_latents_run/job.textproto "views: 3"
expect_in train.txt "3 views"
"$trireme" sample view_latents_run --out view_latents.png > sample.txt
[[ $(head -c 4 view_latents.png) == $'\x89PNG' ]] || fail "no picture of views"
"$trireme" verify view_latents.textproto --plan plan.textproto > verify.txt ||
  fail "$(cat verify.txt)"
views 'shapes { path: "views" views { count: 3 resolution: 8 } }' \
  > views.textproto
"$trireme" train views.textproto --out views_run > train.txt
"$trireme" sample views_run --out views.png > sample.txt
[[ $(head -c 4 views.png) == $'\x89PNG' ]] || fail "no picture of views"
# Planes that nothing here decodes, each a stream of its own.
cp -r view_latents planes
sed -i 's#"autoencoder": ".*"#"autoencoder": ""#' planes/latents.json
views 'latents { path: "planes" }' |
  sed 's/positions: SINCOS/& view_streams: true/' > planes.textproto
"$trireme" train planes.textproto --out planes_run > train.txt
expect_in train.txt "3 views in streams of their own"
"$trireme" sample planes_run --out planes.png > sample.txt
python3 - <<'PYTHON'
from weights_files import read

shape, values = read("planes.safetensors")["samples"]
assert shape[1:] == [10, 12, 4], shape
assert all(abs(value) < 100 for value in values)
PYTHON
echo mine > mine.safetensors
expect_error "did not write where drawn samples are to go" \
  "$trireme" sample planes_run --out mine.png
expect_error "found 3 views a sample, expected one" \
  "$trireme" train job.textproto --out other \
  --set 'data={latents: {path: "view_latents"}}'
expect_error "data.shapes.views.count: found 4, expected 3" \
  "$trireme" data --latents sd views other --shapes --views 4
expect_error "found an autoencoder of 3 channels, expected a divisor of 4" \
  "$trireme" sample view_latents_run --out other.png --vae flux

echo "== mistakes"
expect_error "--device: found without --latents, expected with it" \
  "$trireme" data pictures other --device cpu
expect_error "--convolution_kernels: found 'cudn', expected cudnn or own" \
  "${encode[@]}" other --convolution_kernels cudn
expect_error "size 7x7: found a side of 7, expected a multiple of 2" \
  "$trireme" data --latents sd pictures other --resolution 7
expect_error "height: found 4, expected 6: the latents are of other pictures" \
  "$trireme" data --latents sd pictures latents --resolution 12 \
  --samples_per_shard 4
expect_error "channels: found 2, expected 3: the latents are of other" \
  "$trireme" data --latents flux pictures latents --resolution 8 \
  --samples_per_shard 4
# Those of two sizes do not go on with one.
expect_error "expected none: the latents are of other pictures" \
  "$trireme" data --latents sd shapes sized --size 8x8
# Nor do those without small pictures go on with them.
expect_error "skips_smaller: found true, expected none" \
  "$trireme" data --latents sd shapes sized --size 4x12 --size 8x8 --enlarge
expect_error "found an autoencoder of 3 channels, expected 2" \
  "$trireme" sample whole --out other.png --vae flux
expect_error "data.resolution: found 8, expected 4, as the latents have" \
  "$trireme" train job.textproto --set data.resolution=8 --out other
mv sd elsewhere
expect_error "no autoencoder to draw with" \
  "$trireme" train job.textproto --out other
"$trireme" sample whole --out drawn.png --vae elsewhere > sample.txt
expect_in sample.txt "4 pictures from whole"
rm latents/shard-000002.tar
expect_error "latents: found 2 of 3 shards, expected all" \
  "$trireme" train job.textproto --out other

echo "passed"
