#!/usr/bin/env python3
"""What a job's life costs its steps, by ratio within one run.

  job_life.py connections TRIREME JOB [--clients 1000] [--windows 120]
              [--window_s 2] [--ranks N] [--set F=V ...]
  job_life.py saves TRIREME JOB [--every 16] [--saves 40] [--ranks N]
              [--set F=V ...]

connections: windows without and with so many connections of strangers to the
coordinator (strangers.py) take turns; each window with them is held against
those before and after it. The strangers' own work is on this machine too, and
in the ratio. Many short windows say more than few long ones: what else happens
on the machine falls on neighbours alike.

saves: every so many steps there is a checkpoint. What a save costs is what the
first half of the steps after it take longer than as many of the median step of
the second half, by when it must have come to its end.

Of both the median of many ratios is what counts, with the interval in which it
lies in 95 of 100 cases: one wider than a percent says that the machine did other
work, or that the measurement was too short.

Steps are told apart by when the run's TensorBoard file says that they ended.
"""

import argparse
import contextlib
import glob
import json
import math
import os
import pathlib
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from tools.bench import strangers  # pylint: disable=wrong-import-position

WARM_UP_STEPS = 3
# What still happens because of the window before, which does not count.
SETTLING_S = 1.0
PATIENCE_S = 300
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def ends_of_steps(events):
    """By step, the time at which its last scalar was noted; of the bytes of a
    TensorBoard file, whose end may be missing."""
    ends, at = {}, 0
    while at + 12 <= len(events):
        length, = struct.unpack_from("<Q", events, at)
        event = events[at + 12:at + 12 + length]
        at += length + 16
        # Event.wall_time, then Event.step, as they are written.
        if len(event) < 11 or event[0] != 0x09 or event[9] != 0x10:
            continue
        step, shift = 0, 0
        for byte in event[10:]:
            step |= (byte & 0x7f) << shift
            shift += 7
            if byte < 0x80:
                break
        if step > 0:
            ends[step], = struct.unpack_from("<d", event, 1)
    return ends


def median_between(values):
    """The median, and the bounds between which that of what the values are drawn
    from lies in 95 of 100 cases, whatever its distribution: by how likely so few
    of them are below it (the sign test); of less than six, all that there are."""
    ordered = sorted(values)
    outside, below = 0, 0.0
    while outside < len(ordered):
        below += math.comb(len(ordered), outside) / 2 ** len(ordered)
        if below > 0.025:
            break
        outside += 1
    at = max(0, outside - 1)
    return statistics.median(ordered), ordered[at], ordered[-1 - at]


def compare_windows(ends, windows):
    """Of windows (begin, end, held) that take turns, the median steps without
    and with, and the ratio of each with to the mean of its neighbours."""
    steps = sorted(ends)
    medians = []
    for begin, end, held in windows:
        periods = [ends[step] - ends[before]
                   for before, step in zip(steps, steps[1:])
                   if begin <= ends[before] and ends[step] <= end]
        medians.append((statistics.median(periods), held) if periods else None)
    ratios = [own[0] / statistics.mean([before[0], after[0]])
              for before, own, after in zip(medians, medians[1:], medians[2:])
              if None not in (before, own, after) and own[1]]
    return ({held: statistics.median(own[0] for own in medians
                                     if own is not None and own[1] == held)
             for held in (False, True)}, ratios)


def costs_of_saves(ends, every):
    """Of each save after steps every, 2·every, ..: the seconds that it cost,
    and the median step of the quiet half after it."""
    costs = []
    for saved in range(every, max(ends) - every + 1, every):
        def took(step):
            return ends[step] - ends[step - 1]
        half = every // 2
        quiet = statistics.median(
            took(saved + step) for step in range(half + 1, every + 1))
        busy = sum(took(saved + step) for step in range(1, half + 1))
        costs.append((busy - half * quiet, quiet))
    return costs


def seconds_of_processor(process):
    with open(f"/proc/{process}/stat", encoding="utf-8") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


class Run:
    """A launched job in a folder of its own."""

    def __init__(self, options, folder, overrides):
        self.folder = folder / "run"
        self.output = folder / "output.txt"
        command = [options.trireme, "launch", options.job, "--ranks",
                   str(options.ranks), "--out", str(self.folder), "--set",
                   "sample.at_end=false", "--set", "log.every=1000000"]
        for override in overrides + options.set:
            command += ["--set", override]
        with open(self.output, "w", encoding="utf-8") as output:
            self.process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT)

    def ends(self):
        ends = {}
        for path in glob.glob(f"{self.folder}/tensorboard/events*"):
            ends.update(ends_of_steps(pathlib.Path(path).read_bytes()))
        return {step: end for step, end in ends.items()
                if step > WARM_UP_STEPS}

    def await_steps(self):
        deadline = time.monotonic() + PATIENCE_S
        while not self.ends():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"no step was trained:\n{self.printed()}")
            time.sleep(0.5)

    def printed(self):
        return self.output.read_text(encoding="utf-8", errors="replace")

    def end(self):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait()


def measure_connections(options, folder):
    run = Run(options, folder, ["steps=100000000", "checkpoint.every=0"])
    with contextlib.ExitStack() as stack:
        stack.callback(run.end)
        run.await_steps()
        record = json.loads((run.folder / "coordinator.json").read_text())
        host, port = record["endpoint"].rsplit(":", 1)
        siege = strangers.Siege((host, int(port)), options.clients)
        stack.callback(siege.end)
        windows, most = [], 0
        processor = {who: {False: 0.0, True: 0.0} for who in (run, siege)}
        for number in range(options.windows + 1):
            held = number % 2 == 1
            siege.hold(held)
            time.sleep(SETTLING_S)
            before = {who: seconds_of_processor(who.process.pid)
                      for who in processor}
            begin = time.time()
            time.sleep(options.window_s)
            windows.append((begin, time.time(), held))
            most = max(most, siege.open)
            for who, seconds in processor.items():
                seconds[held] += (seconds_of_processor(who.process.pid)
                                  - before[who]) / options.window_s
        siege.hold(False)
        # The last steps are in the file some seconds later.
        time.sleep(3)
        if run.process.poll() is not None:
            raise SystemExit(f"the run ended:\n{run.printed()}")
        medians, ratios = compare_windows(run.ends(), windows)
    middle, low, high = median_between(ratios)
    of_launch = {held: seconds / sum(window[2] == held for window in windows)
                 for held, seconds in processor[run].items()}
    print(f"step: {medians[False]:.4f} s without, {medians[True]:.4f} s with "
          f"{most} connections at once ({siege.connected} made, "
          f"{siege.refused} of them refused by name)")
    print(f"ratio: {middle:.4f} ({low:.4f} to {high:.4f}; "
          f"{len(ratios)} windows)")
    print(f"launch: {100 * of_launch[False]:.2f} % of a processor without, "
          f"{100 * of_launch[True]:.2f} % with; the strangers themselves "
          f"{200 * processor[siege][True] / options.windows:.1f} %")


def measure_saves(options, folder):
    steps = (options.saves + 1) * options.every
    run = Run(options, folder, [f"steps={steps}", f"checkpoint.every="
                                f"{options.every}", "checkpoint.keep=0"])
    with contextlib.ExitStack() as stack:
        stack.callback(run.end)
        if run.process.wait() != 0:
            raise SystemExit(f"the run failed:\n{run.printed()}")
    ends = run.ends()
    late = 0
    for saved in range(options.every, steps - options.every + 1, options.every):
        manifest = run.folder / f"checkpoints/step_{saved:08}/manifest.json"
        late += manifest.stat().st_mtime > ends[saved + options.every // 2]
    if late > 0:
        raise SystemExit(f"{late} saves were not over after half of --every "
                         f"{options.every} steps, expected more steps or "
                         "shorter saves")
    size = sum(path.stat().st_size for path in
               (run.folder / f"checkpoints/step_{options.every:08}").iterdir())
    costs = costs_of_saves(ends, options.every)
    step = statistics.median(quiet for _, quiet in costs)
    middle, low, high = median_between([cost / quiet for cost, quiet in costs])
    saves, waited = re.search(
        r"saved  (\d+) times.*; training waited ([0-9.e+-]+) s",
        run.printed()).groups()
    copied = float(waited) / (int(saves) - 1)
    print(f"step: {step:.4f} s; checkpoint: {size / 1e6:.1f} MB")
    print(f"training waits {100 * copied / step:.2f} % of a step for a save "
          f"({copied:.4f} s)")
    print(f"a save costs {100 * middle:.1f} % of a step in all "
          f"({100 * low:.1f} to {100 * high:.1f}; {len(costs)} saves)")
    print(f"that is {100 * middle / options.every:.2f} % of training with a "
          f"save every {options.every} steps")


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", choices=["connections", "saves"])
    parser.add_argument("trireme", type=os.path.abspath)
    parser.add_argument("job")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--windows", type=int, default=120)
    parser.add_argument("--window_s", type=float, default=2)
    parser.add_argument("--every", type=int, default=16)
    parser.add_argument("--saves", type=int, default=40)
    options = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="trireme."))
    try:
        {"connections": measure_connections,
         "saves": measure_saves}[options.measure](options, folder)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    main()
