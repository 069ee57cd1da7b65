#!/bin/sh
# Makes the Python environment of `./dev interop`: diffusers, the newest that
# pip finds as it is configured on this machine and no older than what the
# comparison knows, with PyTorch. Prints the environment's python.
set -eu

oldest=0.42
home="${XDG_CACHE_HOME:-$HOME/.cache}/trireme/interop-venv"
if ! "$home/bin/python" -c 'import diffusers, safetensors, torch' \
  > /dev/null 2>&1; then
  python3 -m venv "$home" >&2
  "$home/bin/python" -m pip install --quiet --upgrade \
    "diffusers>=$oldest" accelerate safetensors torch numpy >&2
fi
echo "$home/bin/python"
