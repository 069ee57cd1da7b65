"""A run that is hurt again and again, by a seed, and the bits that it ends with.

  chaos.py TRIREME FAULTY_DISK FAULTY_CLOCK [--hosts] [--seed N] [--faults N]
           [--quick N] [--only KIND,...] [--spares N] [--runs N]
           [--figures FILE]

Two ranks train a small model on this machine or, with --hosts, on a host each,
with a link between them that is cut and slowed (tests/lab; needs root). Faults
strike a few steps one after another, and after pauses, that the seed draws,
inside of saves too (there is one every fourth step, and a copy in memory after
each one): faults.py has them all. Then the run is stopped, and goes on to its
end, which must have the checkpoint and the losses of one that nobody touched.
Prints how long it took until a fault was noticed and until there was a new
step, and how many steps were repeated.

--runs: so many of them, by the seeds from --seed on. --figures: each run's are
kept in FILE, with the commit that it was run at, and printed together with what
it has already; runs that it has are not run again, and those that were ended
are, so that many faults can be struck in several calls.
"""

import argparse
import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time

import faults
from hurt_run import PATIENCE_S, SAVE_EVERY, Run

TESTS = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
sys.path[:0] = [TESTS, os.path.join(TESTS, "lab")]
# pylint: disable=wrong-import-position
import network
from tested_commit import tested_commit
# pylint: enable=wrong-import-position

# More than faults leave time for.
STEPS = 10_000_000
# From a fault's last step to the next fault: there is a new checkpoint between
# them.
STEPS_BETWEEN = (SAVE_EVERY + 1, 3 * SAVE_EVERY)
# That it does at the end without a fault.
STEPS_AT_END = 10
LINK_BYTES_PER_S = 1e8


def median_and_worst(values):
    return ({"median": statistics.median(values), "worst": max(values)}
            if values else None)


def summary(strikes):
    """What strikes led to, as JSON has it; None where nothing of the kind
    happened."""
    def of(name):
        return median_and_worst([strike[name] for strike in strikes
                                 if strike[name] is not None])
    return {"times": len(strikes), "noticed_s": of("noticed_s"),
            "recovered_s": of("recovered_s"),
            "steps_repeated": of("steps_repeated")}


def by_kind(strikes):
    """A summary of each kind, and of all."""
    found = {kind: summary([strike for strike in strikes
                            if strike["kind"] == kind])
             for kind in sorted({strike["kind"] for strike in strikes})}
    return dict(found, all=summary(strikes))


def table(summaries):
    """Markdown: a row a kind, and one of all."""
    def cell(value, digits):
        return (f"{value['median']:.{digits}f}, {value['worst']:.{digits}f}"
                if value else "")
    return ("| fault | times | noticed after s: median, worst | a new step "
            "after s | steps repeated |\n|---|---|---|---|---|\n") + "".join(
        f"| `{kind}` | {row['times']} | {cell(row['noticed_s'], 2)} | "
        f"{cell(row['recovered_s'], 2)} | {cell(row['steps_repeated'], 0)} |\n"
        for kind, row in summaries.items())


def strike(run, kind, striking):
    """One fault, and what it led to; returns when there is a new step after
    it."""
    starts, resumes = run.starts(), len(run.resumed())
    struck = {"kind": kind, "step": run.last_step(), "noticed_s": None,
              "steps_repeated": None}
    began = time.monotonic()
    follows = getattr(striking, kind)()
    reached = run.last_step()
    if follows == faults.START:
        run.await_that(lambda: run.starts() > starts,
                       f"the launch to notice {kind}")
        struck["noticed_s"] = time.monotonic() - began
        # What the log tells before that is of the ranks that were lost.
        reached = max(reached, run.last_step())
        run.await_that(lambda: len(run.resumed()) > resumes,
                       f"ranks to resume after {kind}")
        resumed = run.resumed()[-1]
        struck["steps_repeated"] = max(0, reached - resumed)
        reached = resumed
    run.await_that(
        lambda: run.last_step() > reached or run.process.poll() is not None,
        f"a new step after {kind}")
    struck["recovered_s"] = time.monotonic() - began
    if follows == faults.NONE and run.starts() > starts:
        raise AssertionError(f"ranks were lost by {kind}:\n{run.printed()}")
    return struck


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


def hurt_it(run, drawn, draw, strikes):
    """Launches a run, lets the faults strike, and stops it; how many steps it
    did."""
    run.launch()
    striking = faults.Faults(run, draw.random())
    try:
        for kind in drawn:
            at = run.last_step() + draw.randint(*STEPS_BETWEEN)
            run.await_that(
                lambda at=at: run.last_step() >= at or
                run.process.poll() is not None, f"step {at}")
            if run.process.poll() is not None:
                raise AssertionError(
                    f"it ended before {kind}:\n{run.printed()}")
            time.sleep(0.2 * draw.random())
            print(f"{kind} at step {run.last_step()}", flush=True)
            strikes.append(strike(run, kind, striking))
        status = run.stop()
        if status != 128 + signal.SIGTERM:
            raise AssertionError(f"stopped with {status}:\n{run.printed()}")
        return run.last_step()
    finally:
        run.end()


def train(run, *options):
    """To its end."""
    run.launch(*options)
    try:
        if run.process.wait() != 0:
            raise AssertionError(run.printed())
    finally:
        run.end()


def compare(whole, hurt, steps):
    """AssertionError unless the hurt run came to the end of the other one."""
    if hurt.losses() != whole.losses():
        raise AssertionError(f"other steps or losses:\n{hurt.printed()}")
    if hurt.checkpoint(steps) != whole.checkpoint(steps):
        raise AssertionError(f"other bits:\n{hurt.printed()}")


def try_all(arguments, seed, kinds, strikes):
    """A run of this seed; the steps that it did."""
    draw = random.Random(seed)
    drawn = draw_faults(draw, kinds, arguments.faults, arguments.quick,
                        arguments.spares)
    with contextlib.ExitStack() as stack:
        work = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="trireme."))
        net = None
        if arguments.hosts:
            net = stack.enter_context(network.Network(
                [1] * (2 + arguments.spares),
                lambda source, target: LINK_BYTES_PER_S))
        subprocess.run(
            [arguments.trireme, "data", "/usr/share/datasets/fashion-mnist",
             f"{work}/shards", "--idx", "--split", "test"], check=True,
            stdout=subprocess.DEVNULL)

        def new_run(name, steps, saves):
            return Run(arguments.trireme,
                       [arguments.faulty_disk, arguments.faulty_clock], work,
                       name, steps, saves, net)
        hurt = new_run("hurt", STEPS, True)
        steps = hurt_it(hurt, drawn, draw, strikes) + STEPS_AT_END
        train(hurt, "--resume", "--steps", str(steps))
        # Only a run that is never to be resumed has no need of saves.
        whole = new_run("whole", steps, False)
        whole.lost = hurt.lost
        train(whole)
        compare(whole, hurt, steps)
        print(hurt.printed().count("from copies in memory"),
              "times from copies in memory")
        # A spare that took a host's place leaves what that one had in its
        # memory.
        left = os.listdir(hurt.memory)
        if left and "goes on with" not in hurt.printed():
            raise AssertionError(f"copies that were not removed: {left}")
    return steps


class Record:
    """The figures of runs, in a file if there is one."""

    def __init__(self, path):
        self.path = path
        self.runs = {}
        if path and os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                self.runs = {run["seed"]: run for run in json.load(file)["runs"]}

    def has(self, setup):
        """Whether a run of this setup passed."""
        run = self.runs.get(setup["seed"])
        if run is None or not run["passed"]:
            return False
        differs = [name for name, value in setup.items() if run[name] != value]
        if differs:
            raise SystemExit(f"{self.path}: the run of seed {setup['seed']} "
                             f"has other {', '.join(differs)}; expected the "
                             "same options, or another file")
        return True

    def add(self, run):
        self.runs[run["seed"]] = run
        if not self.path:
            return
        runs = [self.runs[seed] for seed in sorted(self.runs)]
        with open(self.path + ".new", "w", encoding="utf-8") as file:
            json.dump({"kinds": by_kind(self.strikes()),
                       "runs_passed": sum(run["passed"] for run in runs),
                       "seconds": sum(run["seconds"] for run in runs),
                       "steps": sum(run["steps"] for run in runs),
                       "runs": runs}, file, indent=1)
        os.replace(self.path + ".new", self.path)

    def text(self):
        """What all runs so far came to, for people."""
        runs = self.runs.values()
        commits = sorted({run.get("commit", "unknown") for run in runs})
        return (table(by_kind(self.strikes()))
                + f"{len(self.strikes())} faults in {len(runs)} runs, of which "
                f"{sum(run['passed'] for run in runs)} came to the bits of one "
                f"that nobody touched; at {', '.join(commits)}\n")

    def strikes(self):
        return [struck for seed in sorted(self.runs)
                for struck in self.runs[seed]["strikes"]]


def run_of_seed(arguments, seed, kinds, record):
    """Hurts a run and records what came of it, its failure too."""
    setup = {"seed": seed, "faults": arguments.faults, "quick": arguments.quick,
             "hosts": arguments.hosts, "of_kinds": kinds}
    if record.has(setup):
        commit = record.runs[seed].get("commit", "unknown")
        print(f"seed {seed}: {record.path} has it, of {commit}")
        return
    strikes = []
    began = time.monotonic()

    def note(passed, steps):
        record.add(dict(setup, commit=tested_commit(), passed=passed,
                        steps=steps, seconds=time.monotonic() - began,
                        strikes=strikes))
        print(record.text(), end="", flush=True)
    try:
        steps = try_all(arguments, seed, kinds, strikes)
    except Exception:  # Whoever ends it has not seen it fail.
        note(passed=False, steps=0)
        raise
    note(passed=True, steps=steps)
    print(f"PASSED: {len(strikes)} faults of seed {seed} in "
          f"{time.monotonic() - began:.0f} s, {steps} steps", flush=True)


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
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--figures", type=os.path.abspath)
    arguments = parser.parse_args()
    kinds = faults.of_every_kind(arguments.hosts)
    if arguments.only:
        unknown = set(arguments.only.split(",")) - set(kinds)
        if unknown:
            parser.error(f"--only: {unknown}, expected some of {kinds}")
        kinds = arguments.only.split(",")
    if arguments.faults is None:
        arguments.faults = len(kinds)
    if arguments.hosts and network.why_not():
        print(f"no hosts can be set up here: {network.why_not()}")
        return 1
    record = Record(arguments.figures)
    for seed in range(arguments.seed, arguments.seed + arguments.runs):
        run_of_seed(arguments, seed, kinds, record)
    if arguments.runs > 1:
        print(record.text(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main())
