"""Jobs under a real Slurm: slurm_test.py TRIREME.

Each is submitted by `trireme launch --slurm`, disturbed as clusters disturb
jobs, and has to end with the bits of one that nothing happened to. Skipped where
Slurm is not installed.
"""

import json
import os
import signal
import sys
import tempfile
import unittest

TESTS = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
sys.path.insert(0, TESTS)
import slurm_cluster  # pylint: disable=wrong-import-position
import test_cases  # pylint: disable=wrong-import-position

TRIREME = os.path.abspath(sys.argv[1])
STEPS = 300
JOB = f"""
name: "job"
model {{ dit {{ hidden: 32 layers: 2 heads: 4 patch: 7 }} }}
data {{ idx {{ folder: "/usr/share/datasets/fashion-mnist" }} resolution: 28 }}
global_batch: 8
steps: {STEPS}
checkpoint {{ every: 25 keep: 2 }}
sample {{ at_end: false }}
precision: FP32
"""


class SlurmTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        reason = slurm_cluster.why_not()
        if reason:
            raise unittest.SkipTest(reason)
        cls.work = cls.enterClassContext(
            tempfile.TemporaryDirectory(prefix="trireme."))
        cls.cluster = cls.enterClassContext(slurm_cluster.Cluster(nodes=3))
        with open(f"{cls.work}/job.textproto", "w", encoding="utf-8") as file:
            file.write(JOB)
        cls.cluster.run(TRIREME, "launch", "job.textproto", "--ranks", "2",
                        "--out", "whole", cwd=cls.work)

    def submit(self, out):
        """Has two ranks on two nodes train; the number of Slurm's job."""
        printed = self.cluster.run(
            TRIREME, "launch", "job.textproto", "--slurm", "--nodes", "2",
            "--ranks", "2", "--out", out, "--sbatch=--time=60", cwd=self.work)
        number = printed.split()[-1]
        self.assertTrue(number.isdigit(), printed)
        return number

    def printed(self, number):
        try:
            with open(f"{self.work}/job-{number}.txt", encoding="utf-8",
                      errors="replace") as file:
                return file.read()
        except FileNotFoundError:
            return ""

    def losses(self, out):
        try:
            with open(f"{self.work}/{out}/metrics.jsonl",
                      encoding="utf-8") as file:
                return [json.loads(line)["loss"] for line in file
                        if line.endswith("\n")]
        except FileNotFoundError:
            return []

    def await_steps(self, number, out, steps):
        def reached():
            state = self.cluster.job(number)["JobState"]
            self.assertIn(state, ("PENDING", "CONFIGURING", "RUNNING"),
                          self.printed(number))
            return len(self.losses(out)) >= steps
        self.cluster.await_that(reached, f"{steps} steps of {out}")

    def await_state(self, number, state):
        def reached():
            found = self.cluster.job(number)["JobState"]
            if found != state:
                self.assertNotIn(found, ("COMPLETED", "FAILED", "TIMEOUT"),
                                 self.printed(number))
            return found == state
        self.cluster.await_that(reached, f"job {number} to be {state}")

    def checkpoint(self, out):
        folder = f"{self.work}/{out}/checkpoints/step_{STEPS:08}"
        found = {}
        for entry in os.scandir(folder):
            with open(entry.path, "rb") as file:
                found[entry.name] = file.read()
        return found

    def expect_as_whole(self, number, out):
        self.await_state(number, "COMPLETED")
        self.assertEqual(self.losses(out), self.losses("whole"),
                         self.printed(number))
        self.assertEqual(self.checkpoint(out), self.checkpoint("whole"))

    def rank_process(self, number, rank):
        wanted = {f"SLURM_JOB_ID={number}".encode(),
                  f"PMIX_RANK={rank}".encode()}
        for process in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{process}/environ", "rb") as file:
                    environment = set(file.read().split(b"\0"))
            except OSError:
                continue  # It has ended.
            if wanted <= environment:
                return int(process)
        return self.fail(f"no rank {rank}: {self.printed(number)}")

    def test_a_job_trains_to_its_end(self):
        number = self.submit("plain")
        self.expect_as_whole(number, "plain")
        self.assertEqual(self.cluster.job(number)["NodeList"], "n[1-2]")

    def test_a_rank_that_is_killed_starts_again_in_the_allocation(self):
        number = self.submit("rank")
        self.await_steps(number, "rank", 60)
        os.kill(self.rank_process(number, 1), signal.SIGKILL)
        self.expect_as_whole(number, "rank")
        self.assertIn("starts again from the newest checkpoint",
                      self.printed(number))
        self.assertEqual(self.cluster.job(number)["Restarts"], "0")

    # What Slurm sends two minutes before the time is up.
    def test_a_job_whose_time_is_up_saves_and_is_queued_again(self):
        number = self.submit("time")
        self.await_steps(number, "time", 60)
        self.cluster.run("scancel", "--signal=USR1", "--batch", number)
        self.expect_as_whole(number, "time")
        printed = self.printed(number)
        self.assertIn("the time is up: the job is to be queued again", printed)
        self.assertIn("resumed after step", printed)
        self.assertEqual(self.cluster.job(number)["Restarts"], "1")

    def test_a_cancelled_job_saves_and_is_not_queued_again(self):
        number = self.submit("cancelled")
        self.await_steps(number, "cancelled", 60)
        self.cluster.run("scancel", number)
        self.await_state(number, "CANCELLED")
        self.cluster.await_that(
            lambda: "the newest checkpoint is" in self.printed(number),
            "the launch to end")
        steps = len(self.losses("cancelled"))
        self.assertTrue(os.path.isdir(
            f"{self.work}/cancelled/checkpoints/step_{steps:08}"))
        self.assertEqual(self.cluster.job(number)["Restarts"], "0")

    # Who maintains a node lets what runs there go on, or queues it again.
    def test_a_job_goes_on_elsewhere_when_a_node_is_drained(self):
        number = self.submit("drained")
        self.await_steps(number, "drained", 60)
        node = self.cluster.nodes_of(number)[-1]
        self.cluster.run("scontrol", "update", f"nodename={node}",
                         "state=drain", "reason=test")
        try:
            self.assertEqual(self.cluster.states()[node], "draining")
            self.await_steps(number, "drained", 90)
            self.assertEqual(self.cluster.job(number)["Restarts"], "0")
            self.cluster.run("scontrol", "requeue", number)
            self.expect_as_whole(number, "drained")
            self.assertNotIn(node, self.cluster.nodes_of(number))
        finally:
            self.cluster.resume_node(node)

    def test_a_job_goes_on_elsewhere_when_a_node_dies(self):
        number = self.submit("dead")
        self.await_steps(number, "dead", 60)
        node = self.cluster.nodes_of(number)[-1]
        self.cluster.kill_node(node)
        try:
            self.expect_as_whole(number, "dead")
            self.assertNotIn(node, self.cluster.nodes_of(number))
            self.assertEqual(self.cluster.job(number)["Restarts"], "1")
        finally:
            self.cluster.resume_node(node)


if __name__ == "__main__":
    sys.exit(test_cases.run(SlurmTest))
