"""How well the planner predicts training here: predicted_steps.py TRIREME.

Profiles this machine with two ranks and the pieces of a small DiT, predicts
plans for it (`trireme plan --plan`), trains a few steps under each, and prints
both as a Markdown table with mean absolute error and rank correlation. Some
minutes; whatever else runs on the machine is in the measured column.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile

STEPS = 13  # the first three do not count

JOB = """
model { dit { hidden: 384 layers: 6 heads: 6 patch: 4 } }
objective { rectified_flow { } }
data { idx { folder: "/usr/share/datasets/fashion-mnist" } resolution: 28 }
global_batch: 32
precision: FP32
sample { at_end: false }
"""

PLANS = {
    "data 2": "grid { dp: 2 } microbatch_size: 8",
    "data 2, ZeRO-1": "grid { dp: 2 } microbatch_size: 8 sharding: OPTIMIZER",
    "data 2, ZeRO-2": "grid { dp: 2 } microbatch_size: 8 sharding: GRADIENTS",
    "data 2, recompute": "grid { dp: 2 } microbatch_size: 8 recompute: FULL",
    "tensor 2": "grid { tp: 2 } microbatch_size: 8",
    "context 2": "grid { cp: 2 } microbatch_size: 8",
    "1F1B": "grid { pp: 2 } microbatch_size: 4",
    "GPipe, 4 microbatches": "grid { pp: 2 } microbatch_size: 8 "
                             "schedule: GPIPE",
    "ZB-H1": "grid { pp: 2 } microbatch_size: 4 schedule: ZB_H1",
}


def mean_error(predicted, measured):
    return statistics.mean(
        abs(p / m - 1) for p, m in zip(predicted, measured))


def rank_correlation(a, b):
    """Spearman's."""
    def ranks(values):
        order = sorted(range(len(values)), key=values.__getitem__)
        return [order.index(i) for i in range(len(values))]
    n = len(a)
    distance = sum((x - y)**2 for x, y in zip(ranks(a), ranks(b)))
    return 1 - 6 * distance / (n * (n * n - 1))


class Bench:
    def __init__(self, trireme, folder):
        self.trireme = os.path.abspath(trireme)
        self.folder = folder
        self.write("job.textproto", JOB + f"steps: {STEPS}\n")

    def write(self, name, text):
        with open(os.path.join(self.folder, name), "w",
                  encoding="utf-8") as file:
            file.write(text)

    def run(self, *arguments):
        done = subprocess.run([self.trireme, *arguments], cwd=self.folder,
                              stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(arguments)}:\n{done.stdout}")
        return done.stdout

    def predicted(self, plan):
        self.write("plan.textproto", plan)
        self.run("plan", "job.textproto", "--plan", "plan.textproto", "--out",
                 "predicted.textproto", "--overwrite")
        with open(os.path.join(self.folder, "predicted.textproto"),
                  encoding="utf-8") as file:
            return float(re.search(r"step_s: (\S+)", file.read()).group(1))

    def measured(self, plan, run):
        self.write("plan.textproto", plan)
        self.run("launch", "job.textproto", "--plan", "plan.textproto",
                 "--out", run)
        with open(os.path.join(self.folder, run, "metrics.jsonl"),
                  encoding="utf-8") as file:
            steps = [json.loads(line)["step_s"] for line in file]
        return statistics.median(steps[3:])


def main(trireme):
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(trireme, folder)
        bench.run("profile", "--ranks", "2", "--job", "job.textproto")
        print("| plan | predicted s | measured s | error |")
        print("|---|---|---|---|")
        predicted, measured = [], []
        for i, (name, plan) in enumerate(PLANS.items()):
            predicted.append(bench.predicted(plan))
            measured.append(bench.measured(plan, f"run{i}"))
            print(f"| {name} | {predicted[-1]:.3f} | {measured[-1]:.3f} "
                  f"| {100 * (predicted[-1] / measured[-1] - 1):+.1f} % |",
                  flush=True)
        print(f"\n{len(PLANS)} plans: mean absolute error "
              f"{100 * mean_error(predicted, measured):.1f} %, rank "
              f"correlation {rank_correlation(predicted, measured):.3f}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(sys.argv[1])
