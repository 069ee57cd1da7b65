#!/usr/bin/env python3
"""Trains a few steps under each parallel mode on this machine and prints, as
Markdown, the step time, what the simulator predicts from costs measured in
other steps, and the share of time that each cause exposes. Costs come from
every second step and are held against the steps between them, so that a machine
that slows down meanwhile does so for both.

    python3 tools/bench/parallel_modes.py PATH_TO_TRIREME JOB [--set F=V ...]
"""
import argparse
import json
import pathlib
import statistics
import subprocess
import tempfile

MODES = [
    (2, "tp 2", "grid { tp: 2 }"),
    (2, "tp 2, sequence parallel", "grid { tp: 2 } sequence_parallel: true"),
    (2, "cp 2, ring", "grid { cp: 2 }"),
    (2, "cp 2, head exchange", "grid { cp: 2 } ulysses: 2"),
    (2, "pp 2, GPipe", "grid { pp: 2 } schedule: GPIPE microbatches: 8"),
    (2, "pp 2, 1F1B", "grid { pp: 2 } microbatches: 8"),
    (2, "pp 2, interleaved",
     "grid { pp: 2 } schedule: INTERLEAVED microbatches: 8"),
    (2, "pp 2, ZB-H1", "grid { pp: 2 } schedule: ZB_H1 microbatches: 8"),
    (2, "pp 2, ZB-V", "grid { pp: 2 } schedule: ZB_V microbatches: 8"),
    (2, "dp 2", "grid { dp: 2 }"),
    (2, "dp 2, ZeRO-1", "grid { dp: 2 } sharding: OPTIMIZER"),
    (2, "dp 2, ZeRO-2", "grid { dp: 2 } sharding: GRADIENTS"),
    (2, "dp 2, ZeRO-3", "grid { dp: 2 } sharding: PARAMETERS"),
    (2, "dp 2, bf16 messages", "grid { dp: 2 } bf16_gradient_messages: true"),
    (4, "tp 2 x pp 2", "grid { tp: 2 pp: 2 } microbatches: 8"),
    (4, "tp 2 x cp 2", "grid { tp: 2 cp: 2 }"),
    (4, "cp 2 x dp 2, ZeRO-1", "grid { cp: 2 dp: 2 } sharding: OPTIMIZER"),
    (4, "pp 4, 1F1B", "grid { pp: 4 } microbatches: 16"),
    (4, "pp 4, ZB-V", "grid { pp: 4 } schedule: ZB_V microbatches: 16"),
    (4, "dp 4, ZeRO-3", "grid { dp: 4 } sharding: PARAMETERS"),
]
CAUSES = ("tp", "cp", "ep", "pp", "bubble", "dp", "optimizer")
STEPS, WARM_UP = 18, 2


def metrics_of(trireme, job, overrides, ranks, plan):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        (path / "plan.textproto").write_text(plan)
        command = [trireme, "launch", job, "--ranks", str(ranks), "--plan",
                   str(path / "plan.textproto"), "--steps", str(STEPS),
                   "--out", str(path / "run"), "--set", "log.every=1"]
        for override in overrides:
            command += ["--set", override]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        lines = (path / "run/metrics.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("trireme")
    parser.add_argument("job")
    parser.add_argument("--set", action="append", default=[])
    options = parser.parse_args()
    print("| ranks | mode | step, s | simulated, s | error | "
          + " | ".join(f"{cause}, %" for cause in CAUSES) + " |")
    print("|---" * (5 + len(CAUSES)) + "|")
    for ranks, name, plan in MODES:
        steps = metrics_of(options.trireme, options.job, options.set, ranks,
                           plan)
        # The simulator's step, each time with that step's measured costs.
        simulated = statistics.median(
            step["simulated_s"] for step in steps[WARM_UP::2])
        held_out = steps[WARM_UP + 1::2]
        measured = statistics.median(step["step_s"] for step in held_out)
        shares = (100 / measured * statistics.median(
            step["exposed_s"][cause] for step in held_out) for cause in CAUSES)
        print(f"| {ranks} | {name} | {measured:.3f} | {simulated:.3f} | "
              f"{100 * (simulated / measured - 1):+.1f} % | "
              + " | ".join(f"{share:.1f}" for share in shares) + " |",
              flush=True)


if __name__ == "__main__":
    main()
