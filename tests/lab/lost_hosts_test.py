"""Hosts and links that are lost in mid-run: lost_hosts_test.py TRIREME.

Where no laboratory can be set up, every test is skipped with the reason. Writes
XML_OUTPUT_FILE as Bazel wants it.
"""

import json
import os
import sys
import tempfile
import time
import unittest

import network

TESTS = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
sys.path.insert(0, TESTS)
import test_cases  # pylint: disable=wrong-import-position

JOB = """
model { dit { hidden: 32 layers: 2 heads: 4 patch: 7 } }
data { idx { folder: "/usr/share/datasets/fashion-mnist" } resolution: 28 }
global_batch: 8
steps: 1000000
checkpoint { every_minutes: 0 }
sample { at_end: false }
precision: FP32
"""


# Someone's cluster, paid by the hour, while its link is down.
class LostLinkTest(unittest.TestCase):
    trireme = ""
    why_not = None

    def setUp(self):
        if self.why_not:
            self.skipTest(self.why_not)
        self.folder = self.enterContext(tempfile.TemporaryDirectory())
        self.net = self.enterContext(
            network.Network([1, 1], lambda source, target: 1e8))

    def await_that(self, condition, what):
        for _ in range(1800):
            if condition():
                return
            time.sleep(0.1)
        self.fail(f"waited 3 minutes for: {what}")

    def cut(self, name, options):
        run = os.path.join(self.folder, name)
        job = os.path.join(self.folder, "job.textproto")
        with open(job, "w", encoding="utf-8") as file:
            file.write(JOB)
        before = [self.net.processes(host) for host in range(2)]
        launch = self.net.start([self.trireme, "launch", job, "--hosts",
                                 self.net.hosts, "--out", run, "--restarts",
                                 "0", *options])
        self.addCleanup(launch.kill)
        metrics = os.path.join(run, "metrics.jsonl")
        self.await_that(
            lambda: launch.poll() is not None or
            (os.path.exists(metrics) and os.path.getsize(metrics) > 0),
            "a first step")
        self.net.set_link(1, "down")
        printed, _ = launch.communicate(timeout=180)
        self.assertGreater(launch.returncode, 0, printed)
        for host in range(2):
            self.await_that(
                lambda host=host: self.net.processes(host) <= before[host],
                f"host {host} to be left: {printed}")
        self.net.set_link(1, "up")
        return printed

    def test_a_launch_that_hears_its_ranks_names_who_is_gone(self):
        printed = self.cut("heard", ["--listen",
                                     f"{self.net.address(0)}:0"])
        self.assertIn("(host1, process ", printed)

    # The deadline of messages is 10 minutes.
    def test_without_that_the_daemons_find_out(self):
        self.cut("unheard", [])


# Someone's cluster that loses a machine in the night.
class LostHostTest(unittest.TestCase):
    trireme = ""
    why_not = None
    STEPS = 120

    def setUp(self):
        if self.why_not:
            self.skipTest(self.why_not)
        self.folder = self.enterContext(tempfile.TemporaryDirectory())
        self.net = self.enterContext(
            network.Network([1, 1, 1], lambda source, target: 1e8))
        self.job = os.path.join(self.folder, "job.textproto")
        with open(self.job, "w", encoding="utf-8") as file:
            file.write(JOB.replace("steps: 1000000", f"steps: {self.STEPS}")
                       .replace("checkpoint {", "checkpoint { every: 10"))

    def launch(self, name, *options):
        hosts = ",".join(f"{self.net.address(host)}:1" for host in (0, 1))
        return self.net.start([
            self.trireme, "launch", self.job, "--hosts", hosts, "--out",
            os.path.join(self.folder, name), "--listen",
            f"{self.net.address(0)}:0", *options])

    def run_whole(self, name):
        launch = self.launch(name)
        printed, _ = launch.communicate(timeout=300)
        self.assertEqual(launch.returncode, 0, printed)

    def lose_host(self, name, *options):
        """Takes the second host's card down in mid-run; what is printed."""
        launch = self.launch(name, *options)
        self.addCleanup(launch.kill)
        metrics = os.path.join(self.folder, name, "metrics.jsonl")
        deadline = time.monotonic() + 180
        while not os.path.exists(metrics) or len(self.losses(name)) < 20:
            self.assertIsNone(launch.poll())
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)
        self.net.set_link(1, "down")
        printed, _ = launch.communicate(timeout=300)
        self.assertEqual(launch.returncode, 0, printed)
        self.assertLess(printed.count("resumed after step"), 3, printed)
        return printed

    def losses(self, name):
        with open(os.path.join(self.folder, name, "metrics.jsonl"),
                  encoding="utf-8") as file:
            return [json.loads(line)["loss"] for line in file
                    if line.endswith("\n")]

    def last_checkpoint(self, name):
        path = os.path.join(self.folder, name, "checkpoints",
                            f"step_{self.STEPS:08}")
        found = {}
        for entry in os.scandir(path):
            with open(entry.path, "rb") as file:
                found[entry.name] = file.read()
        return found

    def test_a_spare_takes_its_place_to_the_same_bits(self):
        self.run_whole("whole")
        spare = self.net.address(2)
        printed = self.lose_host("hurt", "--spares", f"{spare}:1")
        self.assertIn(f"goes on with {self.net.address(0)}:1,{spare}:1",
                      printed)
        self.assertEqual(self.losses("hurt"), self.losses("whole"))
        self.assertEqual(self.last_checkpoint("hurt"),
                         self.last_checkpoint("whole"))

    def test_without_a_spare_fewer_ranks_go_on_with_the_same_batches(self):
        self.run_whole("whole")
        printed = self.lose_host("hurt")
        self.assertIn("1 of 1 ranks that are left", printed)
        whole, hurt = self.losses("whole"), self.losses("hurt")
        self.assertEqual(len(hurt), self.STEPS, printed)
        for step, (expected, found) in enumerate(zip(whole, hurt)):
            self.assertLess(abs(found / expected - 1), 1e-4, f"step {step}")


def main():
    for case in (LostLinkTest, LostHostTest):
        case.trireme = sys.argv[1]
        case.why_not = network.why_not()
    return test_cases.run(LostLinkTest, LostHostTest)


if __name__ == "__main__":
    sys.exit(main())
