#!/bin/bash
# Meshes into a cache of shapes: bad files, two processes at once, a second call.
# Usage: shapes_test.sh PATH_TO_TRIREME
source "$(dirname "$0")/testing.sh" "$1"

python3 - <<'PYTHON'
import os, struct
from meshes import box, torus, write_obj

os.makedirs("meshes/round")
os.makedirs("meshes/square")

corners, sides = box()
write_obj("meshes/square/box.obj", corners, sides)
write_obj("meshes/square/kilometres.obj", *box(height=3000, width=1000))
write_obj("meshes/square/lidless.obj", corners, sides[:3] + sides[4:])
write_obj("meshes/square/nan.obj", corners + [(float("nan"), 0, 0)],
          sides + [(0, 1, 8)])
for tube in (0.1, 0.2, 0.3):
    write_obj("meshes/round/torus_%.1f.obj" % tube, *torus(tube))
with open("meshes/points.obj", "w") as out:
    out.write("v 0 0 0\nv 1 0 0\n")
with open("meshes/claims.ply", "wb") as out:
    out.write(b"ply\nformat binary_little_endian 1.0\n"
              b"element vertex 100000000\nproperty float x\nproperty float y\n"
              b"property float z\nelement face 100000000\n"
              b"property list uchar int vertex_indices\nend_header\n0000")
node = b'{"asset":{"version":"2.0"},"scene":0,"scenes":[{"nodes":[0]}],' \
       b'"nodes":[{"children":[0]}]}'
node += b" " * (-len(node) % 4)
with open("meshes/circle.glb", "wb") as out:
    out.write(b"glTF" + struct.pack("<III", 2, 20 + len(node), len(node)) +
              b"JSON" + node)
with open("meshes/LICENSE", "w") as out:
    out.write("do as you like\n")
PYTHON

options=(--shapes --points 512 --shapes_per_shard 3 --shell_cells 48)
"$trireme" data meshes cache "${options[@]}" > first.txt &
first=$!
"$trireme" data meshes cache "${options[@]}" > second.txt
wait "$first"
# Whichever was last has written the index; a third finds all done.
"$trireme" data meshes cache "${options[@]}" --picture views.png > third.txt
expect_in third.txt "7 of 10 shapes in 4 shards in cache"
expect_in third.txt "6 with inside and outside by pseudo_normal"
expect_in third.txt "1 with inside and outside by flood_fill"
expect_in third.txt "1 repaired: 1 triangles that were none dropped"
expect_in third.txt "circle.glb: "
expect_in third.txt "claims.ply: "
expect_in third.txt "points.obj: "
expect_in cache/licenses/folder.txt "do as you like"
[[ $(head -c 4 views.png) == $'\x89PNG' ]] || fail "no picture"
[[ -z $(ls cache/.claims) ]] || fail "claims are left: $(ls cache/.claims)"

# One process alone: the same bytes.
"$trireme" data meshes alone "${options[@]}" > alone.txt
for file in index.json shapes-00000{0,1,2,3}.safetensors; do
  cmp "cache/$file" "alone/$file" || fail "$file differs"
done

expect_error "points: found 512, expected 256" \
  "$trireme" data meshes cache --shapes --points 256 --shapes_per_shard 3 \
  --shell_cells 48
"$trireme" data meshes/round/torus_0.3.obj mosaics --shapes --points 64 --shell_cells 48 \
  --mosaic_grids 64 --mosaic_resolution 5 > mosaics.txt
expect_in mosaics.txt "from the distance near the surface"
expect_error "found 64 and 1, expected 0 to 4096 and 2 to 16" \
  "$trireme" data meshes other --shapes --mosaic_grids 64 --mosaic_resolution 1
expect_error "--shell_cells: found 7" \
  "$trireme" data meshes other --shapes --shell_cells 7
expect_error "nowhere: expected a mesh, a zip archive or a folder" \
  "$trireme" data nowhere other --shapes
expect_error "--points: found without --shapes" \
  "$trireme" data meshes other --points 64
expect_error "--split: found with --shapes" \
  "$trireme" data meshes other --shapes --split test
# A shard that another process has: no index yet, and no picture.
mkdir -p partial/.claims/000000
flock partial/.claims/000000/.lock \
  "$trireme" data meshes partial "${options[@]}" --picture partial.png \
  > partial.txt
expect_in partial.txt "partial.png is not drawn"
mkdir empty
expect_error "empty: no mesh in it" "$trireme" data empty other --shapes
mkdir hopeless
cp meshes/points.obj hopeless
expect_error "none of 1 shapes can be used" \
  "$trireme" data hopeless other --shapes
expect_error "which is within meshes" \
  "$trireme" data meshes meshes/cache --shapes
echo "views" > mine.png
expect_error "did not draw" \
  "$trireme" data meshes cache "${options[@]}" --picture mine.png
