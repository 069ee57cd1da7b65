#!/bin/bash
# ./dev demo: trains a small diffusion transformer on Fashion-MNIST with four
# ranks (tp 2 x pp 2) on this machine and shows what it draws.
# demo.sh PATH_TO_TRIREME [OUT_DIR]
set -euo pipefail
trireme=$1
out=${2:-runs/demo}

if [ -e "$out" ]; then
  echo "demo: replacing $out"
  rm -rf "$out"
fi
# Drawn once, below, where the pictures are also measured.
"$trireme" launch examples/fashion_mnist.textproto --ranks 4 --out "$out" \
  --set sample.at_end=false
"$trireme" sample "$out" --out "$out/samples.png" --evaluate 500
"$trireme" inspect "$out" --plot "$out/loss.png"
"$trireme" inspect "$out"
echo
echo "samples:    $out/samples.png"
echo "loss curve: $out/loss.png"
