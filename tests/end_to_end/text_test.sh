#!/bin/bash
# A job conditioned on text: shards with precomputed tokens, trained on one rank
# and on four, verified, sampled. Usage: text_test.sh PATH_TO_TRIREME
source "$(dirname "$0")/testing.sh" "$1"

# Pictures of one grey each, which their text alone tells: a sequence of one to
# four tokens of width 8.
python3 - <<'PYTHON'
import io, os, random, struct, tarfile
from pictures import png

random.seed(1)
os.mkdir("shards")
with tarfile.open("shards/shard-000000.tar", "w",
                  format=tarfile.USTAR_FORMAT) as tar:
    def add(name, content):
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    for i in range(256):
        level = i % 4
        tokens = 1 + i % 3
        values = [(2.0 if w == level else 0.0) for w in range(8)] * tokens
        # The first one cannot be read.
        add(f"{i:06}.png", png(20 + 70 * level) if i > 0 else b"damaged")
        add(f"{i:06}.txt", f"grey {level}".encode())
        add(f"{i:06}.tokens", struct.pack("<II", tokens, 8) +
            struct.pack(f"<{8 * tokens}f", *values))
PYTHON

job() { # job ATTENTION
  cat <<JOB
model {
  dit {
    hidden: 32 layers: 2 heads: 4 patch: 4 class_conditional: false
    text { tokens: 4 width: 8 attention: $1 }
  }
}
data {
  webdataset { paths: "shards" }
  resolution: 8
  channels: 1
}
global_batch: 32
steps: 60
optimizer { learning_rate: 5e-3 }
objective { rectified_flow { } }
sample { steps: 2 per_class: 1 }
precision: FP32
JOB
}
echo 'grid { tp: 2 pp: 2 } microbatch_size: 8' > plan.textproto
for attention in CROSS JOINT; do
  echo "== $attention"
  job $attention > $attention.textproto
  "$trireme" train $attention.textproto --out $attention-1 > one.txt
  "$trireme" launch $attention.textproto --ranks 4 --plan plan.textproto \
    --out $attention-4 > four.txt
  python3 - $attention <<'PYTHON'
import json, sys
one, four = ([json.loads(line)["loss"]
              for line in open(f"{sys.argv[1]}-{ranks}/metrics.jsonl")]
             for ranks in (1, 4))
for ranks in (1, 4):
    last = open(f"{sys.argv[1]}-{ranks}/metrics.jsonl").readlines()[-1]
    assert json.loads(last)["skipped_samples"] == 1, last
assert len(one) == len(four) == 60
for a, b in zip(one[:5], four[:5]):
    assert abs(a - b) < 1e-4 * a, (a, b)
first, last = sum(one[:10]) / 10, sum(one[-10:]) / 10
assert last < 0.7 * first, (first, last)
print(f"loss {first:.3f} to {last:.3f}")
PYTHON
  "$trireme" verify $attention.textproto --plan plan.textproto \
    --set precision=FP64 > verify.txt || fail "$(cat verify.txt)"
  grep -qF "1 samples could not be read" four.txt || fail "$(cat four.txt)"
  [[ -s $attention-4/samples/step_00000060.png ]] || fail "$(cat four.txt)"
  # A row a caption; measured with one each.
  "$trireme" sample $attention-4 --rows 4 --per_class 2 --out samples.png \
    --evaluate 100 > sample.txt
  grep -qF "8 pictures from" sample.txt || fail "$(cat sample.txt)"
  grep -qF "distance to 100 training pictures" sample.txt ||
    fail "$(cat sample.txt)"
done

echo "== captions without an encoder"
cat > bytes.textproto <<'JOB'
model {
  mmdit {
    hidden: 32 dual_layers: 1 single_layers: 1 heads: 4 patch: 4
    text { tokens: 8 bytes { } }
  }
}
data {
  webdataset { paths: "shards" }
  resolution: 8
  channels: 1
}
global_batch: 32
steps: 120
optimizer { learning_rate: 1e-2 }
objective { rectified_flow { } }
sample { steps: 8 guidance: 1 per_class: 4 prompts: "grey 0" prompts: "grey 3" }
precision: FP32
JOB
echo 'grid { tp: 2 }' > two.textproto
"$trireme" launch bytes.textproto --ranks 2 --plan two.textproto \
  --out bytes > bytes.txt || fail "$(cat bytes.txt)"
[[ -s bytes/samples/step_00000120.png ]] || fail "$(cat bytes.txt)"
for level in 0 3; do
  "$trireme" sample bytes --prompt "grey $level" --out grey-$level.png
done
# What the caption says is what is seen: dark, then bright.
python3 - <<'PYTHON'
import struct, zlib

def brightness(path):
    data, at, packed = open(path, "rb").read(), 8, b""
    while at < len(data):
        size, kind = struct.unpack(">I4s", data[at:at + 8])
        body = data[at + 8:at + 8 + size]
        if kind == b"IHDR":
            width, height, depth, color = struct.unpack(">IIBB", body[:10])
        if kind == b"IDAT":
            packed += body
        at += size + 12
    channels = {0: 1, 2: 3}[color]
    raw, stride = zlib.decompress(packed), width * channels
    total, above = 0, bytes(stride)
    for y in range(height):
        kind, *row = raw[y * (stride + 1):(y + 1) * (stride + 1)]
        for x in range(stride):
            left = row[x - channels] if x >= channels else 0
            corner = above[x - channels] if x >= channels else 0
            up = above[x]
            paeth = min((left, up, corner),
                        key=lambda v: abs(left + up - corner - v))
            row[x] = (row[x] + [0, left, up, (left + up) // 2, paeth][kind]) % 256
        total, above = total + sum(row), row
    return total / (height * stride)

dark, bright = brightness("grey-0.png"), brightness("grey-3.png")
print(f"grey 0 is {dark:.0f} bright, grey 3 {bright:.0f}")
assert bright > dark + 20, (dark, bright)
PYTHON
expect_error "prompts: found 1, expected none for a model that reads an encoder" \
  "$trireme" sample CROSS-1 --prompt "grey 1" --out refused.png
for command in train launch; do
  expect_error "sample.prompts: found 1, expected none for a model that reads an encoder" \
    "$trireme" $command CROSS.textproto --set sample.prompts=grey --out refused
done
[[ ! -e refused ]] || fail "a refused run left a folder"
expect_error "model.mmdit.text.width: found 8" \
  "$trireme" train bytes.textproto --set model.mmdit.text.width=8 --out refused

echo "== every kind of plan for two streams, on up to 8 ranks"
"$trireme" verify JOINT.textproto --ranks 8 --steps 2 --rows 1 \
  --set global_batch=8 > matrix.txt || fail "$(cat matrix.txt)"
plans=$(sed -n 's/^\([0-9]*\) equal, 0 different.*/\1/p' matrix.txt)
((${plans:-0} >= 60)) || fail "$(cat matrix.txt)"
echo "PASSED"
