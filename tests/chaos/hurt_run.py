"""A launched run that can be hurt, on this machine or on hosts of a laboratory
(tests/lab/network.py)."""

import glob
import json
import os
import re
import subprocess
import time

JOB = """
model {{ dit {{ hidden: 32 layers: 2 heads: 4 patch: 7 }} }}
data {{ webdataset {{ paths: "{work}/shards" }} resolution: 28 channels: 1 }}
global_batch: 8
steps: {steps}
checkpoint {{ {saves} }}
sample {{ at_end: false }}
precision: FP32
"""
# Steps between two checkpoints on disk; there is a copy in memory after each.
SAVE_EVERY = 4
SAVES = f'every: {SAVE_EVERY} keep: 3 memory_every: 1 memory_folder: "%s"'
NO_SAVES = "every: 0 every_minutes: 0"
PATIENCE_S = 240
RANKS = 2
# Of metrics.jsonl, more than one step's line is long.
LAST_BYTES = 1 << 14


class Run:
    """Two ranks in the folder `name` of `work`.

    preloads: of what makes disk and clock fail. saves: whether there are
    checkpoints before the end. network: whose first two hosts have a rank each
    while the others are spares; None: this machine.
    """

    def __init__(self, trireme, preloads, work, name, steps, saves=True,
                 network=None):
        self.trireme = trireme
        self.preloads = preloads
        self.work = work
        self.name = name
        self.network = network
        self.fault_file = os.path.join(work, f"{name}.fault")
        self.clock_file = os.path.join(work, f"{name}.clock")
        # What is told of a disk must not be lost with it.
        self.output = os.path.join(work, f"told_by_{name}.txt")
        self.job = os.path.join(work, f"{name}.textproto")
        # The disk's faults strike what begins as the run's folder does.
        self.memory = os.path.join(work, f"{name}.memory")
        os.makedirs(self.memory)
        with open(self.job, "w", encoding="utf-8") as file:
            file.write(JOB.format(work=work, steps=steps, saves=(
                SAVES % self.memory if saves else NO_SAVES)))
        # faulty_clock.cc says what stands where.
        with open(self.clock_file, "wb") as file:
            file.write(bytes(8 * (RANKS + 1)))
        self.process = None
        # Hosts that never come back.
        self.lost = set()
        with open(self.output, "wb"):
            self._printed, self._read = "", 0

    def launch(self, *options):
        command = [self.trireme, "launch", self.job, "--restarts", "20",
                   "--out", self.name, *options]
        environment = {
            "LD_PRELOAD": ":".join(self.preloads),
            "CHAOS_FOLDER": os.path.join(self.work, self.name),
            "CHAOS_FAULT": self.fault_file,
            # The launch writes there, too, and is not to be torn.
            "CHAOS_RANKS": "1",
            "CHAOS_CLOCK": self.clock_file,
        }
        if self.network is None:
            command += ["--ranks", str(RANKS)]
            environment = dict(os.environ, **environment)
        else:
            names = self.network.hosts.split(",")
            used = self.hosts()
            spares = [name for host, name in enumerate(names)
                      if host not in used and host not in self.lost]
            command += ["--hosts", ",".join(names[host] for host in used),
                        "--listen", f"{self.network.address(0)}:0"]
            if spares:
                command += ["--spares", ",".join(spares)]
            command = self.network.inside(0, command)
            environment = self.network.environment(environment)
        with open(self.output, "a", encoding="utf-8") as output:
            self.process = subprocess.Popen(
                command, cwd=self.work, stdin=subprocess.DEVNULL,
                stdout=output, stderr=subprocess.STDOUT, env=environment)

    def stop(self):
        """Has it save and end; its exit status."""
        self.process.terminate()
        return self.process.wait(timeout=PATIENCE_S)

    def end(self):
        """Ends what still runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            time.sleep(1)
            self.process.terminate()  # at once
            self.process.wait()

    def printed(self):
        """All so far: what is new is read, as this is asked again and again."""
        with open(self.output, "rb") as file:
            file.seek(self._read)
            new = file.read()
        self._read += len(new)
        self._printed += new.decode("utf-8", errors="replace")
        return self._printed

    def starts(self):
        """How often ranks were started again."""
        return self.printed().count("starts again")

    def resumed(self):
        """The steps after which ranks went on, one a start."""
        return [int(step) for step in
                re.findall(r"resumed after step (\d+)", self.printed())]

    def not_saved(self, why):
        """How often it said that a checkpoint, or a copy in memory, was not
        written for this reason."""
        return len(re.findall(r"NO (?:CHECKPOINT|COPY) .*" + re.escape(why),
                              self.printed()))

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
        """The last one that is told whole; 0: none is."""
        try:
            with open(os.path.join(self.work, self.name, "metrics.jsonl"),
                      "rb") as file:
                size = file.seek(0, os.SEEK_END)
                file.seek(max(0, size - LAST_BYTES))
                whole = file.read().rpartition(b"\n")[0]
        except FileNotFoundError:
            return 0
        found = re.match(rb'{"step":(\d+),', whole.rpartition(b"\n")[2])
        return int(found[1]) if found else 0

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
                                f"rank {rank}") for rank in range(RANKS)]

    def parent(self, rank):
        """What started a rank: mpirun, or its daemon on another host."""
        with open(f"/proc/{self.ranks()[rank]}/stat",
                  encoding="utf-8") as file:
            return int(file.read().rsplit(")", 1)[1].split()[1])

    def hosts(self):
        """The network's hosts that have a rank each, in their order."""
        found = re.findall(r"goes on with (\S+)", self.printed())
        listed = (found[-1] if found else self.network.hosts).split(",")
        hosts = [int(host.split(":")[0].rsplit(".", 1)[1]) - 1
                 for host in listed]
        return [host for host in hosts if host not in self.lost][:RANKS]

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

    def newest_checkpoint(self, in_memory=False):
        """The folder of the newest one, on disk or on some host in memory; None
        where there is none."""
        folders = glob.glob(
            os.path.join(self.memory, "*", "step_*") if in_memory else
            os.path.join(self.work, self.name, "checkpoints", "step_*"))
        whole = [folder for folder in folders
                 if re.fullmatch(r"step_\d+", os.path.basename(folder))]
        return max(whole, key=os.path.basename, default=None)

    def checkpoint(self, step):
        """The files of a checkpoint, by name."""
        path = os.path.join(self.work, self.name, "checkpoints",
                            f"step_{step:08}")
        found = {}
        for entry in os.scandir(path):
            with open(entry.path, "rb") as file:
                found[entry.name] = file.read()
        return found
