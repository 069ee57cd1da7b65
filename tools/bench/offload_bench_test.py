"""Tests of how offload_bench.py measures; they train nothing."""

import io
import pathlib
import tempfile
import types
import unittest
from contextlib import redirect_stdout

from tools.bench import offload_bench

DRY_RUN = """model  DiT: 24 layers
rank        peak  at the peak
   0    1.50 GiB  activations 494.0 MiB, gradients 479.9 MiB
rank   host peak  at the peak
   0    28.5 GiB  optimizer 20.7 GiB
"""
# Stands in for trireme: one plan has a dry run, none trains.
TRIREME = """#!/bin/sh
echo "a message"
[ "$1" = train ] || exit 1
case "$*" in *--dry_run*) cat "$0.txt";; *) exit 1;; esac
"""


class OffloadBenchTest(unittest.TestCase):

    def test_the_devices_peak_is_read_from_a_dry_run_not_the_hosts(self):
        self.assertEqual(offload_bench.peak_bytes(DRY_RUN), 1.5 * 2**30)
        self.assertIsNone(offload_bench.peak_bytes("no table"))

    def test_what_takes_too_long_is_ended_and_says_so(self):
        text, reason = offload_bench.run(["sh", "-c", "echo begun; sleep 30"],
                                         1)
        self.assertEqual(text, "begun\n")
        self.assertEqual(reason, "ended after 1 s")

    def test_what_fails_is_in_the_tables_by_its_message(self):
        with tempfile.TemporaryDirectory() as folder:
            trireme = pathlib.Path(folder) / "trireme"
            trireme.write_text(TRIREME)
            trireme.chmod(0o755)
            pathlib.Path(f"{trireme}.txt").write_text(DRY_RUN)
            printed = io.StringIO()
            with redirect_stdout(printed):
                offload_bench.report(types.SimpleNamespace(
                    trireme=str(trireme), python="false", budget=60,
                    threads=1, precision="FP32", json=None))
        table = printed.getvalue()
        self.assertIn("| resident | 1.50 | 100.0 % |", table)
        self.assertIn("| resident | status 1: a message | |", table)
        self.assertIn("PyTorch, blocks at home | status 1: no message", table)


if __name__ == "__main__":
    unittest.main()
