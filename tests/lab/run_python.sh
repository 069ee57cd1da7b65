#!/bin/sh
# Runs a Python program where tc is found: Bazel's py_test wants a `python` that
# Debian does not have, and its PATH lacks the system's tools.
export PATH="$PATH:/usr/sbin:/sbin"
exec python3 -B "$@"
