#!/bin/bash
# Training with --device, where the GPU is emulated: it goes on from a GPU's
# checkpoint on the processor, draws, verifies, encodes pictures, and says what
# is not there.
# Usage: cuda_test.sh PATH_TO_TRIREME GOLDENS WEIGHTS_FILES_PY
goldens=$PWD/$2
files=$PWD/$3
source "$(dirname "$0")/testing.sh" "$1"
export PYTHONPATH=$PYTHONPATH:$(dirname "$files")

cat > job.textproto <<'JOB'
model { dit { hidden: 32 layers: 2 heads: 4 patch: 7 } }
data {
  idx { folder: "/usr/share/datasets/fashion-mnist" }
  resolution: 28
}
global_batch: 4
steps: 4
checkpoint { every: 2 }
sample { steps: 2 per_class: 1 at_end: false }
precision: FP32
JOB

echo "== the GPU is there, hence taken; the same losses as the processor's"
"$trireme" train job.textproto --out run > train.txt
expect_in train.txt "device cuda:0 (emulated GPU)"
expect_in train.txt "memory at most 0.00 % off the prediction"
"$trireme" train job.textproto --out cpu --device cpu > cpu.txt
expect_in cpu.txt "device cpu"
"$trireme" train job.textproto --out half --steps 2 --device cuda > half.txt
"$trireme" train job.textproto --out half --device cpu --resume \
  --allow steps > half.txt
expect_in half.txt "resumed after step 2"
OMP_NUM_THREADS=1 mpirun --allow-run-as-root --oversubscribe -n 2 \
  "$trireme" train job.textproto --out two --device cuda:0 > two.txt
expect_in two.txt "device cuda:0 (emulated GPU)"
python3 - <<'PYTHON'
import json
runs = {run: [json.loads(line)["loss"] for line in open(f"{run}/metrics.jsonl")]
        for run in ("run", "cpu", "half", "two")}
for run, losses in runs.items():
    assert len(losses) == 4, runs
    for loss, expected in zip(losses, runs["cpu"]):
        assert abs(loss - expected) < 1e-4 * expected, (run, runs)
PYTHON

echo "== draws and verifies"
"$trireme" sample run --out samples.png --rows 2 --device cuda > sample.txt
[[ $(head -c 4 samples.png | tail -c 3) == PNG ]] || fail "no PNG"
cat > tp.textproto <<'PLAN'
grid { tp: 2 }
PLAN
"$trireme" verify job.textproto --plan tp.textproto --steps 1 \
  --device cuda > verify.txt || fail "verify: $(cat verify.txt)"

echo "== an autoencoder of pictures encodes, by whose kernels it may be"
python3 - "$goldens" <<'PYTHON'
import os, sys
from pictures import png
from weights_files import write_autoencoder

write_autoencoder(sys.argv[1], "sd")
os.makedirs("pictures/all")
for k in range(3):
    open(f"pictures/all/{k}.png", "wb").write(png(80 * k, side=8))
PYTHON
encode=("$trireme" data --latents sd pictures --resolution 8)
"${encode[@]}" by_cpu --device cpu > data.txt
"${encode[@]}" by_cudnn > data.txt
"${encode[@]}" by_own --device cuda --convolution_kernels own > data.txt
python3 - <<'PYTHON'
import struct, tarfile

def latents(folder):
    with tarfile.open(f"{folder}/shard-000000.tar") as tar:
        return [value for k in range(3) for value in struct.unpack(
            "<64f", tar.extractfile(f"{k:09}.latents").read()[12:])]

expected = latents("by_cpu")
for folder in ("by_cudnn", "by_own"):
    found = latents(folder)
    assert all(abs(a - b) < 1e-4 * (1 + abs(b))
               for a, b in zip(found, expected)), folder
PYTHON

echo "== products in FP8, on GPUs that have them"
{ grep -v precision job.textproto; echo "fp8 {}"; } > fp8.textproto
"$trireme" train fp8.textproto --out fp8 --steps 1 --device cuda > fp8.txt
expect_in fp8.txt "products in FP8"
TRIREME_EMULATED_CAPABILITY=80 expect_error \
  "fp8: found with cuda:0 (emulated GPU), which has no products of FP8" \
  "$trireme" train fp8.textproto --out none --device cuda

echo "== mistakes"
expect_error "--device: found 'cuda:1', expected cuda:0 to cuda:0" \
  "$trireme" train job.textproto --out none --device cuda:1
expect_error "--device: found 'cuda:1', expected cuda:0 to cuda:0" \
  "$trireme" profile --out none.textproto --device cuda:1
expect_error "--device: found 'tpu', expected cpu, cuda or cuda:N" \
  "$trireme" train job.textproto --out none --device tpu
expect_error "of its limit of" \
  "$trireme" train job.textproto --out none --device cuda \
  --set memory_limit_bytes=100000
