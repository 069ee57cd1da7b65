#!/bin/sh
# Makes the Python environment of `./dev interop`: diffusers, the newest that
# pip finds as it is configured on this machine and no older than what the
# comparison knows, with PyTorch. Prints the environment's python.
set -eu

oldest=0.42
home="${XDG_CACHE_HOME:-$HOME/.cache}/trireme/interop-venv"
if ! "$home/bin/python" - "$oldest" > /dev/null 2>&1 << 'PYTHON'; then
import sys
import accelerate, diffusers, peft, safetensors, torch

def release(version):
    return [int(part) for part in version.split(".")[:2]]

sys.exit(release(diffusers.__version__) < release(sys.argv[1]))
PYTHON
  python3 -m venv "$home" >&2
  "$home/bin/python" -m pip install --quiet --upgrade \
    "diffusers>=$oldest" accelerate peft transformers safetensors torch \
    numpy >&2
fi
echo "$home/bin/python"
