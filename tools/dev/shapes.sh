#!/bin/bash
# ./dev shapes: from the meshes of Debian's sweethome3d-furniture to a generator
# of furniture by its kind, and what it draws beside real pieces.
# shapes.sh PATH_TO_TRIREME [OUT_DIR]
set -euo pipefail
trireme=$1
out=${2:-runs/shapes}

if [ -e "$out" ]; then
  echo "shapes: replacing $out"
  rm -rf "$out"
fi
mkdir -p "$(dirname "$out")"
cache=$out.cache
kinds=(--kind chair --kind table --kind lamp --kind sofa --kind bed
  --kind cabinet)
# A cache of the same shapes and options is taken as it is.
"$trireme" data /usr/share/sweethome3d/furniture "$cache" --shapes \
  "${kinds[@]}" --points 2048 --shell_cells 64 --volume_cells 32 \
  --picture "$cache.png" --overwrite
"$trireme" launch examples/furniture_volume.textproto --ranks 1 --out "$out" \
  --set "data.shapes.path=$cache" --set sample.at_end=false
"$trireme" sample "$out" --out "$out/drawn.png" --evaluate 18
"$trireme" inspect "$out" --plot "$out/loss.png"
echo
echo "drawn shapes: $out/drawn.png, as meshes in $out/drawn/"
echo "beside the nearest real ones, 18 others: $out/drawn_nearest.png"
echo "real ones:    $cache.png"
echo "loss curve:   $out/loss.png"
