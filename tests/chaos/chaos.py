"""A run that is hurt again and again, by a seed, and the bits that it ends with.

  chaos.py TRIREME FAULTY_DISK [--seed N] [--faults N] [--only KIND,...]

Two ranks train a small model on this machine. Faults strike at steps, and after
pauses, that the seed draws, inside of saves too (there is one every fourth step,
and a copy in memory after each other one): ranks, mpirun or the launch are killed or stopped, ranks are slowed, the
disk is full, broken or slow, a write is torn, ranks are killed while they
recover. The run must end with the checkpoint and the losses of one that nobody
touched. Prints how long it took until a fault was noticed and until there was
a new step, and how many steps were repeated.
"""

import argparse
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time

JOB = """
model {{ dit {{ hidden: 32 layers: 2 heads: 4 patch: 7 }} }}
data {{ webdataset {{ paths: "{work}/shards" }} resolution: 28 channels: 1 }}
global_batch: 8
steps: {steps}
checkpoint {{ every: 4 keep: 3 memory_every: 1 memory_folder: "{memory}" }}
sample {{ at_end: false }}
precision: FP32
"""
STEPS_PER_FAULT = 25
# A fault that the run survives without a new start is over after so long.
DISK_FAULT_S = 1.0
PATIENCE_S = 240

KINDS = ["kill_rank", "kill_ranks", "kill_mpirun", "kill_launch", "kill_twice",
         "stop_rank", "stop_mpirun", "stop_launch", "slow_rank", "disk_full",
         "disk_broken", "disk_slow", "torn_write"]


class Run:
    """A launched run in a folder, and what can be done to it."""

    def __init__(self, arguments, work, name, steps):
        self.arguments = arguments
        self.work = work
        self.name = name
        self.fault_file = os.path.join(work, f"{name}.fault")
        self.output = os.path.join(work, f"{name}.txt")
        self.job = os.path.join(work, "job.textproto")
        # The disk's faults strike what begins as the run's folder does.
        memory = os.path.join(work, f"{name}.memory")
        os.makedirs(memory)
        with open(self.job, "w", encoding="utf-8") as file:
            file.write(JOB.format(work=work, steps=steps, memory=memory))
        self.process = None

    def launch(self, *options):
        environment = dict(os.environ, LD_PRELOAD=self.arguments.faulty_disk,
                           CHAOS_FOLDER=os.path.join(self.work, self.name),
                           CHAOS_FAULT=self.fault_file)
        with open(self.output, "a", encoding="utf-8") as output:
            self.process = subprocess.Popen(
                [self.arguments.trireme, "launch", self.job, "--ranks", "2",
                 "--restarts", "20", "--out", self.name, *options],
                cwd=self.work, stdout=output, stderr=subprocess.STDOUT,
                env=environment)

    def printed(self):
        with open(self.output, encoding="utf-8", errors="replace") as file:
            return file.read()

    def losses(self):
        """Of each step that is told whole, in order."""
        try:
            with open(os.path.join(self.work, self.name, "metrics.jsonl"),
                      encoding="utf-8") as file:
                lines = [json.loads(line) for line in file
                         if line.endswith("\n")]
        except FileNotFoundError:
            return []
        return [(line["step"], line["loss"]) for line in lines]

    def last_step(self):
        losses = self.losses()
        return losses[-1][0] if losses else 0

    def rank(self, rank):
        """The process of a rank; None while there is none."""
        wanted = {f"OMPI_COMM_WORLD_RANK={rank}".encode(),
                  f"CHAOS_FAULT={self.fault_file}".encode()}
        for process in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{process}/environ", "rb") as file:
                    if not wanted <= set(file.read().split(b"\0")):
                        continue
                with open(f"/proc/{process}/cmdline", "rb") as file:
                    if b"train" not in file.read().split(b"\0"):
                        continue
                with open(f"/proc/{process}/stat", encoding="utf-8") as file:
                    if file.read().rsplit(")", 1)[1].split()[0] not in "XZ":
                        return int(process)
            except OSError:
                pass  # It has ended.
        return None

    def ranks(self):
        return [self.await_that(lambda rank=rank: self.rank(rank),
                                f"rank {rank}") for rank in (0, 1)]

    def mpirun(self):
        with open(f"/proc/{self.ranks()[0]}/stat", encoding="utf-8") as file:
            return int(file.read().rsplit(")", 1)[1].split()[1])

    def await_that(self, condition, what):
        deadline = time.monotonic() + PATIENCE_S
        while True:
            result = condition()
            if result:
                return result
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"waited {PATIENCE_S} s for {what}:\n{self.printed()}")
            time.sleep(0.02)

    def checkpoint(self, step):
        """The files of a checkpoint, by name."""
        path = os.path.join(self.work, self.name, "checkpoints",
                            f"step_{step:08}")
        found = {}
        for entry in os.scandir(path):
            with open(entry.path, "rb") as file:
                found[entry.name] = file.read()
        return found


class Chaos:
    def __init__(self, run, seed):
        self.run = run
        self.random = random.Random(seed)
        self.noticed, self.recovered, self.repeated = [], [], []

    def strike(self, kind):
        """One fault; returns when there is a new step after it."""
        run = self.run
        starts = run.printed().count("starts again")
        resumes = len(self.resumed())
        began = time.monotonic()
        restarts = getattr(self, kind)()
        reached = run.last_step()
        if restarts:
            run.await_that(
                lambda: run.printed().count("starts again") > starts,
                f"the launch to notice {kind}")
            self.noticed.append(time.monotonic() - began)
            # What the log tells before that is of the ranks that were lost.
            reached = max(reached, run.last_step())
            run.await_that(lambda: len(self.resumed()) > resumes,
                           f"ranks to resume after {kind}")
            resumed = self.resumed()[-1]
            self.repeated.append(max(0, reached - resumed))
            reached = resumed
        run.await_that(
            lambda: run.last_step() > reached or run.process.poll() is not None,
            f"a new step after {kind}")
        self.recovered.append(time.monotonic() - began)

    def resumed(self):
        """The steps after which ranks went on, one a start."""
        return [int(step) for step in
                re.findall(r"resumed after step (\d+)", self.run.printed())]

    @staticmethod
    def send(signal_number, *processes):
        for process in processes:
            try:
                os.kill(process, signal_number)
            except ProcessLookupError:
                pass  # The fault before it was faster.

    def kill_rank(self):
        self.send(signal.SIGKILL, self.random.choice(self.run.ranks()))
        return True

    def kill_ranks(self):
        self.send(signal.SIGKILL, *self.run.ranks())
        return True

    def kill_mpirun(self):
        self.send(signal.SIGKILL, self.run.mpirun())
        return True

    # The ranks go on, and another launch takes them up.
    def kill_launch(self):
        self.run.process.kill()
        self.run.process.wait()
        time.sleep(self.random.random())
        taken = self.run.printed().count("takes up the run")
        self.run.launch("--resume")
        self.run.await_that(
            lambda: self.run.printed().count("takes up the run") > taken,
            "the run to be taken up")
        return False

    # The second time while the ranks start again.
    def kill_twice(self):
        first = self.run.ranks()
        self.send(signal.SIGKILL, first[0])
        self.run.await_that(
            lambda: self.run.rank(1) not in (None, first[1]), "a new rank 1")
        time.sleep(self.random.random())
        self.send(signal.SIGKILL, *filter(None, [self.run.rank(1)]))
        return True

    def stop_rank(self):
        self.send(signal.SIGSTOP, self.random.choice(self.run.ranks()))
        return True

    def stop_mpirun(self):
        self.send(signal.SIGSTOP, self.run.mpirun())
        return True

    # As Ctrl-Z and fg: nobody is given up for what it did not hear.
    def stop_launch(self):
        self.send(signal.SIGSTOP, self.run.process.pid)
        time.sleep(4)
        self.send(signal.SIGCONT, self.run.process.pid)
        return False

    # It may be seen while it is stopped, and taken for lost: either is right.
    def slow_rank(self):
        rank = self.random.choice(self.run.ranks())
        for _ in range(10):
            self.send(signal.SIGSTOP, rank)
            time.sleep(0.02)
            self.send(signal.SIGCONT, rank)
            time.sleep(0.02)
        return False

    def disk(self, fault):
        with open(self.run.fault_file, "w", encoding="utf-8") as file:
            file.write(fault)
        time.sleep(DISK_FAULT_S)
        os.remove(self.run.fault_file)
        return False

    def disk_full(self):
        return self.disk("full")

    def disk_broken(self):
        return self.disk("broken")

    def disk_slow(self):
        return self.disk("slow")

    def torn_write(self):
        with open(self.run.fault_file, "w", encoding="utf-8") as file:
            file.write("torn")
        self.run.await_that(
            lambda: not os.path.exists(self.run.fault_file) or
            self.run.process.poll() is not None, "a write to be torn")
        return True


def describe(name, values, unit):
    if values:
        print(f"{name}: median {statistics.median(values):.2f} {unit}, worst "
              f"{max(values):.2f} {unit}, of {len(values)}")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("trireme", type=os.path.abspath)
    parser.add_argument("faulty_disk", type=os.path.abspath)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int, default=len(KINDS))
    parser.add_argument("--only", default=",".join(KINDS))
    arguments = parser.parse_args()
    only = arguments.only.split(",")
    steps = STEPS_PER_FAULT * (arguments.faults + 1)
    draw = random.Random(arguments.seed)
    # Each kind comes once before one comes again.
    faults = []
    while len(faults) < arguments.faults:
        faults += draw.sample(only, len(only))
    with tempfile.TemporaryDirectory(prefix="trireme.") as work:
        subprocess.run(
            [arguments.trireme, "data", "/usr/share/datasets/fashion-mnist",
             f"{work}/shards", "--idx", "--split", "test"], check=True,
            stdout=subprocess.DEVNULL)
        whole = Run(arguments, work, "whole", steps)
        whole.launch()
        if whole.process.wait() != 0:
            raise AssertionError(whole.printed())
        hurt = Run(arguments, work, "hurt", steps)
        hurt.launch()
        chaos = Chaos(hurt, draw.random())
        try:
            for number, kind in enumerate(faults[:arguments.faults]):
                at = STEPS_PER_FAULT * number + draw.randrange(
                    5, STEPS_PER_FAULT - 5)
                hurt.await_that(lambda at=at: hurt.last_step() >= at,
                                f"step {at}")
                time.sleep(0.2 * draw.random())
                print(f"{kind} at step {hurt.last_step()}", flush=True)
                chaos.strike(kind)
            status = hurt.process.wait(timeout=PATIENCE_S)
        finally:
            if hurt.process.poll() is None:
                hurt.process.terminate()
                time.sleep(1)
                hurt.process.terminate()  # at once
                hurt.process.wait()
        if status != 0:
            raise AssertionError(hurt.printed())
        if hurt.losses() != whole.losses():
            raise AssertionError(f"other steps or losses:\n{hurt.printed()}")
        if hurt.checkpoint(steps) != whole.checkpoint(steps):
            raise AssertionError(f"other bits:\n{hurt.printed()}")
        describe("noticed", chaos.noticed, "s")
        describe("a new step", chaos.recovered, "s")
        describe("repeated", chaos.repeated, "steps")
        print(hurt.printed().count("from copies in memory"),
              "times from copies in memory")
        left = os.listdir(os.path.join(work, "hurt.memory"))
        if left:
            raise AssertionError(f"copies that were not removed: {left}")
    print(f"PASSED: {arguments.faults} faults of seed {arguments.seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
