#!/bin/bash
# Runs a Python unit test in Bazel (whose py_test wants a `python` that Debian
# does not have): python_test.sh MODULE.
exec python3 -B -m unittest --verbose "$1"
