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
REHEARSAL = """seconds      predicted   rehearsed
step            2.0000      2.2000
compute         1.2000      1.3000
copies          0.0632      0.3691
"""
# Stands in for trireme: plans have a dry run and a rehearsal, none trains.
TRIREME = """#!/bin/sh
[ "$1" = rehearse ] && cat "$0.rehearsal" && exit
echo "a message"
[ "$1" = train ] || exit 1
case "$*" in *--dry_run*) cat "$0.txt";; *) exit 1;; esac
"""


class OffloadBenchTest(unittest.TestCase):

    def test_the_devices_peak_is_read_from_a_dry_run_not_the_hosts(self):
        self.assertEqual(offload_bench.peak_bytes(DRY_RUN), 1.5 * 2**30)
        self.assertIsNone(offload_bench.peak_bytes("no table"))

    def test_the_slowest_of_those_that_run_at_once_is_the_least_time(self):
        parameters = 18 * 24 * 1792**2
        least = offload_bench.least_seconds
        self.assertAlmostEqual(least(4, 1e18, 1e18), 4)
        self.assertAlmostEqual(least(4, 1e18, parameters), 3 + 28)
        # Weights come in, gradients leave.
        self.assertAlmostEqual(least(4, parameters, 1e18), 2 + 4)

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
            pathlib.Path(f"{trireme}.rehearsal").write_text(REHEARSAL)
            printed = io.StringIO()
            with redirect_stdout(printed):
                offload_bench.report(types.SimpleNamespace(
                    trireme=str(trireme), python="false", budget=60,
                    threads=1, precision="FP32", json=None))
        table = printed.getvalue()
        self.assertIn("| resident | 1.50 | 100.0 % |", table)
        # 0.9 s of backward, and 28 bytes of 1.39e9 parameters each.
        self.assertIn("| 8 | 50 | 1.677 | 2.200 | 1.31 | 1.10 |", table)
        self.assertIn("| resident | status 1: a message | |", table)
        self.assertIn("PyTorch, blocks at home | status 1: no message", table)


if __name__ == "__main__":
    unittest.main()
