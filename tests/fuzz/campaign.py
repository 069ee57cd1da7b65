"""Many inputs for each fuzz target, in processes of their own.

  campaign.py FOLDER [--inputs N] [--only NAME,...] [--processes N]
              [--memory_mib N] [--figures FILE]

FOLDER has the targets, as bazel-bin/tests/fuzz; built with --config=fuzz they
say how many blocks of the program they reached, and come further. A process
takes as many inputs as it does in about half a minute, by a seed that no other
one has, and --memory_mib at most (0: any, as AddressSanitizer wants). What ends
one is a finding: the input is kept beside FILE, and the others go on; a target
with as many as ten is left. FILE (JSON) has what was done, and at which commits:
the command goes on from there after it was ended.

Prints a table; the exit status is 1 where anything was found.
"""

import argparse
import ctypes
import glob
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

sys.path.insert(0, os.path.dirname(os.path.dirname(
    os.path.realpath(__file__))))
from tested_commit import tested_commit  # pylint: disable=wrong-import-position

SEEDS = os.path.join(os.path.dirname(os.path.realpath(__file__)), "seeds")
SECONDS_OF_PROCESS = 30
FIRST_INPUTS = 200
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)
MOST_FINDINGS = 10
SAID_BYTES = 2000
# Seconds of a processor, those of processes that a target starts included.
NEW = {"inputs": 0, "seconds": 0.0, "processes": 0, "blocks": 0,
       "peak_mib": 0.0, "findings": []}


class Campaign:
    """What was done, by target. `targets`: their programs, by name."""

    def __init__(self, targets, options):
        self.targets = targets
        self.options = options
        self.done = {}
        if os.path.exists(options.figures):
            with open(options.figures, encoding="utf-8") as file:
                self.done = json.load(file)
        for name in targets:
            self.done.setdefault(name, dict(NEW, findings=[]))
        self.commit = tested_commit()
        # Given to processes that have not ended.
        self.given = dict.fromkeys(targets, 0)
        self.lock = threading.Lock()

    def next(self):
        """A target that has inputs left, with how many, and a seed; None where
        none has."""
        with self.lock:
            for name in self.targets:
                done = self.done[name]
                left = (self.options.inputs - done["inputs"]
                        - self.given[name])
                if left <= 0 or len(done["findings"]) >= MOST_FINDINGS:
                    continue
                count = FIRST_INPUTS
                if done["seconds"] > 0:
                    count = max(count, int(SECONDS_OF_PROCESS * done["inputs"]
                                           / done["seconds"]))
                count = min(count, left)
                self.given[name] += count
                done["processes"] += 1
                return name, count, done["processes"]
        return None

    def note(self, name, count, result):
        """`result`: what else is to be added to what was done."""
        with self.lock:
            self.given[name] -= count
            done = self.done[name]
            done["inputs"] += result["inputs"]
            done["seconds"] += result["seconds"]
            for most in ("blocks", "peak_mib"):
                done[most] = max(done[most], result[most])
            done["findings"] += result["findings"]
            if self.commit not in done.setdefault("commits", []):
                done["commits"].append(self.commit)
            with open(self.options.figures + ".new", "w",
                      encoding="utf-8") as file:
                json.dump(self.done, file, indent=1)
            os.replace(self.options.figures + ".new", self.options.figures)

    def run(self, name, count, seed):
        """One process; its result."""
        def limit():
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if self.options.memory_mib > 0:
                size = self.options.memory_mib << 20
                resource.setrlimit(resource.RLIMIT_AS, (size, size))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        with tempfile.TemporaryDirectory(prefix="trireme.") as folder:
            with open(f"{folder}/said", "w+b") as said:
                process = subprocess.Popen(
                    [self.targets[name], f"--runs={count}", f"--seed={seed}",
                     os.path.join(SEEDS, name)], cwd=folder, stdout=said,
                    stderr=subprocess.STDOUT, preexec_fn=limit,
                    start_new_session=True,  # Ctrl-C is no finding.
                    env=dict(os.environ, TEST_UNDECLARED_OUTPUTS_DIR=folder))
                _, status, usage = os.wait4(process.pid, 0)
                process.returncode = os.waitstatus_to_exitcode(status)
                said.seek(0)
                text = said.read().decode(errors="replace")
            blocks = re.search(r"(\d+) blocks reached", text)
            result = {"inputs": 0, "seconds": usage.ru_utime + usage.ru_stime,
                      "blocks": int(blocks[1]) if blocks else 0,
                      "peak_mib": usage.ru_maxrss / 1024, "findings": []}
            if process.returncode == 0:
                result["inputs"] = count
            else:
                finding = {"seed": seed, "status": process.returncode,
                           "said": text[-SAID_BYTES:]}
                if os.path.exists(f"{folder}/fuzz_crash.bin"):
                    finding["input"] = (f"{self.options.figures}.{name}."
                                        f"{seed}.bin")
                    shutil.copy(f"{folder}/fuzz_crash.bin", finding["input"])
                result["findings"].append(finding)
        return result

    def work(self):
        """What each of the processes does that run at once."""
        while (piece := self.next()) is not None:
            name, count, seed = piece
            result = self.run(name, count, seed)
            self.note(name, count, result)
            for finding in result["findings"]:
                print(f"{name}, seed {seed}: ended with {finding['status']}; "
                      f"{finding.get('input', 'no input was kept')}",
                      flush=True)


def table(done):
    rows = ["| target | inputs | hours of a processor | inputs a second | "
            "blocks reached | MiB | findings |", "|---|---|---|---|---|---|---|"]
    for name, of_target in sorted(done.items()):
        seconds = of_target["seconds"]
        rows.append(
            f"| {name} | {of_target['inputs']:,} | {seconds / 3600:.2f} | "
            f"{of_target['inputs'] / seconds if seconds else 0:,.0f} | "
            f"{of_target['blocks'] or 'not told'} | "
            f"{of_target['peak_mib']:.0f} | {len(of_target['findings'])} |")
    commits = sorted({commit for of_target in done.values()
                      for commit in of_target.get("commits", ["unknown"])})
    return "\n".join(rows + [f"at {', '.join(commits)}"])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=os.path.abspath)
    parser.add_argument("--inputs", type=int, default=10_000_000)
    parser.add_argument("--only")
    parser.add_argument("--processes", type=int,
                        default=len(os.sched_getaffinity(0)))
    parser.add_argument("--memory_mib", type=int, default=4096)
    parser.add_argument("--figures", type=os.path.abspath,
                        default=os.path.abspath("fuzz.json"))
    options = parser.parse_args()
    targets = {os.path.basename(path)[:-len("_fuzz")]: path
               for path in sorted(glob.glob(f"{options.folder}/*_fuzz"))}
    names = options.only.split(",") if options.only else list(targets)
    unknown = set(names) - set(targets)
    if unknown or not names:
        parser.error(f"found no {', '.join(unknown) or 'targets'} in "
                     f"{options.folder}, which has {', '.join(targets)}")
    campaign = Campaign({name: targets[name] for name in names}, options)
    workers = [threading.Thread(target=campaign.work, daemon=True)
               for _ in range(options.processes)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print(table(campaign.done))
    return int(any(of_target["findings"]
                   for of_target in campaign.done.values()))


if __name__ == "__main__":
    sys.exit(main())
