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
# Stands in for trireme: plans have a dry run and a rehearsal, and train if
# there is something to write of it.
TRIREME = """#!/bin/sh
[ "$1" = rehearse ] && cat "$0.rehearsal" && exit
echo "a message"
[ "$1" = train ] || exit 1
case "$*" in *--dry_run*) cat "$0.txt"; exit;; esac
while [ "$1" != --out ]; do shift; done
[ -e "$0.jsonl" ] && mkdir "$2" && cp "$0.jsonl" "$2/metrics.jsonl"
"""
METRICS = """{"step_s": 9}
{"step_s": 2.0, "offload": {"update_bytes_per_s": 9e9}}
{"step_s": 2.0, "offload": {"update_bytes_per_s": 9e9}}
"""
# Stands in for a python that measures others.
PYTHON = """#!/bin/sh
case "$*" in
*"--peer adam"*) echo '{"copy": 1e10, "PyTorch'"'"'s fused AdamW": 6e9}';;
*"--peer hooks"*) echo '{"step_s": 4.0}';;
*"--peer fsdp"*) echo '{"step_s": 3.0}';;
*) echo "no such module"; exit 1;;
esac
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

    def report(self, python=None, metrics=None):
        """What is printed where these stand in for what is measured."""
        with tempfile.TemporaryDirectory() as folder:
            trireme = pathlib.Path(folder) / "trireme"
            if python:
                peers = pathlib.Path(folder) / "python"
                peers.write_text(python)
                peers.chmod(0o755)
            trireme.write_text(TRIREME)
            trireme.chmod(0o755)
            pathlib.Path(f"{trireme}.txt").write_text(DRY_RUN)
            pathlib.Path(f"{trireme}.rehearsal").write_text(REHEARSAL)
            if metrics:
                pathlib.Path(f"{trireme}.jsonl").write_text(metrics)
            printed = io.StringIO()
            with redirect_stdout(printed):
                offload_bench.report(types.SimpleNamespace(
                    trireme=str(trireme), threads=1, precision="FP32",
                    python=str(peers) if python else "false", budget=60,
                    json=None))
        return printed.getvalue()

    def test_what_fails_is_in_the_tables_by_its_message(self):
        table = self.report()
        self.assertIn("| resident | 1.50 | 100.0 % |", table)
        # 0.9 s of backward, and 28 bytes of 1.39e9 parameters each.
        self.assertIn("| 8 | 50 | 1.677 | 2.200 | 1.31 | 1.10 |", table)
        self.assertIn("| resident | status 1: a message | |", table)
        for name in offload_bench.PEERS:
            self.assertIn(f"{name} | status 1: no message", table)
        self.assertIn("AdamW over a copy: at least 0.8 | not measured |", table)
        self.assertIn("at least 1.5 | not measured |", table)

    def test_aims_are_of_the_fastest_that_was_measured(self):
        table = self.report(PYTHON, METRICS)
        self.assertIn("| DeepSpeed, ZeRO-Offload | status 1: no such module |",
                      table)
        self.assertIn("| PyTorch, blocks at home | 4.000 | 2.00 |", table)
        worst = 2.2 / min(
            offload_bench.least_seconds(1.2, link, host)
            for link, host in offload_bench.LINKS)
        self.assertIn(f"at most 1.05 | {worst:.2f} |", table)
        self.assertIn("at most 0.2 | 1.00 |", table)
        self.assertIn("AdamW over a copy: at least 0.8 | 0.90 |", table)
        self.assertIn("AdamW over the fastest other: above 1 | 1.50 |", table)
        self.assertIn("over 2 places: at least 1.5 | 1.50 |", table)


if __name__ == "__main__":
    unittest.main()
