"""A run that is hurt again and again, by a seed, and the bits that it ends with.

  chaos.py TRIREME FAULTY_DISK FAULTY_CLOCK [--hosts] [--seed N] [--faults N]
           [--quick N] [--only KIND,...] [--spares N] [--table FILE]

Two ranks train a small model on this machine or, with --hosts, on a host each,
with a link between them that is cut and slowed (tests/lab; needs root). Faults
strike at steps, and after pauses, that the seed draws, inside of saves too
(there is one every fourth step, and a copy in memory after each other one):
faults.py has them all. The run must end with the checkpoint and the losses of
one that nobody touched. Prints how long it took until a fault was noticed and
until there was a new step, and how many steps were repeated; --table writes
that for each kind.
"""

import argparse
import contextlib
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import faults
from hurt_run import PATIENCE_S, Run

TESTS = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
sys.path.insert(0, os.path.join(TESTS, "lab"))
import network  # pylint: disable=wrong-import-position

# That a run needs for a fault: as many as it does while that lasts.
STEPS_PER_FAULT = 100
STEPS_PER_QUICK_FAULT = 70
LINK_BYTES_PER_S = 1e8


class Figures:
    """What faults of a kind led to."""

    def __init__(self):
        self.struck = 0
        self.noticed, self.recovered, self.repeated = [], [], []

    def add(self, other):
        self.struck += other.struck
        self.noticed += other.noticed
        self.recovered += other.recovered
        self.repeated += other.repeated

    def row(self, name):
        def cell(values, digits):
            return (f"{statistics.median(values):.{digits}f}, "
                    f"{max(values):.{digits}f}" if values else "")
        return (f"| {name} | {self.struck} | {cell(self.noticed, 1)} | "
                f"{cell(self.recovered, 1)} | {cell(self.repeated, 0)} |\n")


def table(figures):
    """Markdown: a row a kind, and one of all."""
    text = ("| fault | times | noticed after s: median, worst | a new step "
            "after s | steps repeated |\n|---|---|---|---|---|\n")
    total = Figures()
    for kind, of_kind in sorted(figures.items()):
        text += of_kind.row(f"`{kind}`")
        total.add(of_kind)
    return text + total.row("all")


def strike(run, kind, striking, figures):
    """One fault; returns when there is a new step after it."""
    starts, resumes = run.starts(), len(run.resumed())
    began = time.monotonic()
    follows = getattr(striking, kind)()
    reached = run.last_step()
    figures.struck += 1
    if follows == faults.START:
        run.await_that(lambda: run.starts() > starts,
                       f"the launch to notice {kind}")
        figures.noticed.append(time.monotonic() - began)
        # What the log tells before that is of the ranks that were lost.
        reached = max(reached, run.last_step())
        run.await_that(lambda: len(run.resumed()) > resumes,
                       f"ranks to resume after {kind}")
        resumed = run.resumed()[-1]
        figures.repeated.append(max(0, reached - resumed))
        reached = resumed
    run.await_that(
        lambda: run.last_step() > reached or run.process.poll() is not None,
        f"a new step after {kind}")
    figures.recovered.append(time.monotonic() - began)
    if follows == faults.NONE and run.starts() > starts:
        raise AssertionError(f"ranks were lost by {kind}:\n{run.printed()}")


def draw_faults(draw, kinds, count, quick, spares):
    """Each kind comes once before one comes again, and then `quick` ones that
    are over in seconds; hosts are lost as long as there are spares, of which
    other faults may take some."""
    if kinds == ["lose_host"]:
        count = min(count, (spares + 1) // 2)
    drawn, lost = [], 0
    while len(drawn) < count:
        for kind in draw.sample(kinds, len(kinds)):
            lost += kind == "lose_host"
            if kind != "lose_host" or lost <= (spares + 1) // 2:
                drawn.append(kind)
    quick_ones = [kind for kind in kinds if kind in faults.QUICK]
    return drawn[:count] + draw.choices(quick_ones or kinds, k=quick)


def steps_of(kind):
    return (STEPS_PER_QUICK_FAULT if kind in faults.QUICK else
            STEPS_PER_FAULT)


def hurt_it(run, drawn, draw, figures):
    """Launches a run and lets the faults strike; its exit status."""
    run.launch()
    striking = faults.Faults(run, draw.random())
    begin = 0
    try:
        for kind in drawn:
            at = begin + draw.randrange(5, steps_of(kind) - 5)
            begin += steps_of(kind)
            run.await_that(lambda at=at: run.last_step() >= at, f"step {at}")
            if run.process.poll() is not None:
                raise AssertionError(
                    f"it ended before {kind}:\n{run.printed()}")
            time.sleep(0.2 * draw.random())
            print(f"{kind} at step {run.last_step()}", flush=True)
            strike(run, kind, striking,
                   figures.setdefault(kind, Figures()))
        return run.process.wait(timeout=PATIENCE_S)
    finally:
        run.end()


def compare(whole, hurt, status, steps):
    """AssertionError unless the hurt run came to the end of the other one."""
    if status != 0:
        raise AssertionError(hurt.printed())
    if hurt.losses() != whole.losses():
        raise AssertionError(f"other steps or losses:\n{hurt.printed()}")
    if hurt.checkpoint(steps) != whole.checkpoint(steps):
        raise AssertionError(f"other bits:\n{hurt.printed()}")


def try_all(arguments, kinds, work, net):
    draw = random.Random(arguments.seed)
    drawn = draw_faults(draw, kinds, arguments.faults, arguments.quick,
                        arguments.spares)
    steps = sum(map(steps_of, drawn)) + STEPS_PER_FAULT
    subprocess.run(
        [arguments.trireme, "data", "/usr/share/datasets/fashion-mnist",
         f"{work}/shards", "--idx", "--split", "test"], check=True,
        stdout=subprocess.DEVNULL)

    def new_run(name):
        return Run(arguments.trireme,
                   [arguments.faulty_disk, arguments.faulty_clock], work, name,
                   steps, net)
    whole, hurt = new_run("whole"), new_run("hurt")
    whole.launch()
    try:
        if whole.process.wait() != 0:
            raise AssertionError(whole.printed())
    finally:
        whole.end()
    figures = {}
    try:
        status = hurt_it(hurt, drawn, draw, figures)
    finally:
        print(table(figures), end="")
        if arguments.table:
            with open(arguments.table, "w", encoding="utf-8") as file:
                file.write(table(figures))
    compare(whole, hurt, status, steps)
    print(hurt.printed().count("from copies in memory"),
          "times from copies in memory")
    # A spare that took a host's place leaves what that one had in its memory.
    left = os.listdir(os.path.join(work, "hurt.memory"))
    if left and "lose_host" not in figures:
        raise AssertionError(f"copies that were not removed: {left}")


def interrupt(*_):
    raise KeyboardInterrupt


def main():
    # What runs is ended then, too.
    signal.signal(signal.SIGTERM, interrupt)
    parser = argparse.ArgumentParser()
    parser.add_argument("trireme", type=os.path.abspath)
    parser.add_argument("faulty_disk", type=os.path.abspath)
    parser.add_argument("faulty_clock", type=os.path.abspath)
    parser.add_argument("--hosts", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--faults", type=int)
    # Beside these, of the kinds that take little time.
    parser.add_argument("--quick", type=int, default=0)
    parser.add_argument("--only")
    # Beside the two hosts that have a rank.
    parser.add_argument("--spares", type=int, default=2)
    parser.add_argument("--table", type=os.path.abspath)
    arguments = parser.parse_args()
    kinds = faults.of_every_kind(arguments.hosts)
    if arguments.only:
        unknown = set(arguments.only.split(",")) - set(kinds)
        if unknown:
            parser.error(f"--only: {unknown}, expected some of {kinds}")
        kinds = arguments.only.split(",")
    if arguments.faults is None:
        arguments.faults = len(kinds)
    with contextlib.ExitStack() as stack:
        work = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="trireme."))
        net = None
        if arguments.hosts:
            reason = network.why_not()
            if reason:
                print(f"no hosts can be set up here: {reason}")
                return 1
            net = stack.enter_context(network.Network(
                [1] * (2 + arguments.spares),
                lambda source, target: LINK_BYTES_PER_S))
        try_all(arguments, kinds, work, net)
    print(f"PASSED: {arguments.faults + arguments.quick} faults of seed "
          f"{arguments.seed}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
