#!/bin/sh
# Makes the Python environment of `./dev bench --peer`: the newest PyTorch and
# diffusers that pip finds as it is configured on this machine. Where that is a build with GPU
# support it brings several GiB of libraries; a pip configured for CPU builds
# avoids them. Prints the environment's python.
set -eu

home="${XDG_CACHE_HOME:-$HOME/.cache}/trireme/peer-venv"
if ! "$home/bin/python" -c 'import diffusers, torch' >/dev/null 2>&1; then
  python3 -m venv "$home" >&2
  "$home/bin/python" -m pip install --quiet --upgrade diffusers torch numpy >&2
fi
echo "$home/bin/python"
