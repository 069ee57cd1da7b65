"""How well the planner predicts: study.py TRIREME [PLAN...].

Runs plans on a laboratory of 4 hosts with 4 ranks each, links of 25 and
40 MB/s, and prints predicted and measured steps as a Markdown table, with their
rank correlation and mean absolute error; then what placing a pipeline around a
slow link gains, and what a partial pipeline gains on links that are all unlike,
predicted and measured. Takes some 12 minutes. The figures in docs/benchmarks
come from here. Fails where the predictions of a dozen plans or more are worse
than a planner may be: LEAST_CORRELATION, MOST_ERROR.
"""

import os
import sys
import tempfile

import laboratory
import network

# Of predicted and measured steps, over at least LEAST_PLANS plans.
LEAST_PLANS = 12
LEAST_CORRELATION = 0.9
MOST_ERROR = 0.10

PLANS = {
    "1F1B": "grid { pp: 4 dp: 4 }",
    "1F1B, ZeRO-1": "grid { pp: 4 dp: 4 } sharding: OPTIMIZER",
    "1F1B, deep": "grid { pp: 8 dp: 2 }",
    "GPipe, deep": "grid { pp: 8 dp: 2 } schedule: GPIPE",
    "interleaved": "grid { pp: 4 dp: 4 } schedule: INTERLEAVED "
                   "chunks_per_rank: 2",
    "ZB-H1, deep": "grid { pp: 8 dp: 2 } schedule: ZB_H1",
    "ZB-V": "grid { pp: 4 dp: 4 } schedule: ZB_V",
    "full recompute": "grid { pp: 4 dp: 4 } recompute: FULL",
    "tensor 2": "grid { tp: 2 pp: 4 dp: 2 }",
    "tensor 4": "grid { tp: 4 pp: 4 }",
    "tensor 2, sequence parallel": "grid { tp: 2 pp: 8 } "
                                   "sequence_parallel: true",
    "tensor 4, data 4": "grid { tp: 4 dp: 4 }",
    "context 2 (Ulysses)": "grid { cp: 2 pp: 4 dp: 2 } ulysses: 2",
    "data 16": "grid { dp: 16 }",
    "data 16, ZeRO-2": "grid { dp: 16 } sharding: GRADIENTS",
}


def ranks_of(values):
    order = sorted(range(len(values)), key=values.__getitem__)
    ranks = [0] * len(values)
    for rank, index in enumerate(order):
        ranks[index] = rank
    return ranks


def rank_correlation(a, b):
    """Spearman's."""
    n = len(a)
    distance = sum((x - y)**2 for x, y in zip(ranks_of(a), ranks_of(b)))
    return 1 - 6 * distance / (n * (n * n - 1))


def why_not_good(predicted, actual):
    """What is wrong with the predictions of enough plans; None if nothing."""
    if len(predicted) < LEAST_PLANS:
        return None
    found = []
    correlation = rank_correlation(predicted, actual)
    if correlation < LEAST_CORRELATION:
        found.append(f"rank correlation {correlation:.3f}, expected at least "
                     f"{LEAST_CORRELATION}")
    error = mean_error(predicted, actual)
    if error > MOST_ERROR:
        found.append(f"mean absolute error {100 * error:.1f} %, expected at "
                     f"most {100 * MOST_ERROR:.0f} %")
    return "; ".join(found) or None


def mean_error(predicted, actual):
    return sum(abs(p / m - 1)
               for p, m in zip(predicted, actual)) / len(actual)


def study_plans(trireme, chosen):
    """Returns predicted and measured steps."""
    def rate(source, target):
        return 25e6 if (source + target) % 2 else 40e6
    with tempfile.TemporaryDirectory() as folder, \
            network.Network([4] * 4, rate) as net:
        lab = laboratory.Laboratory(trireme, net, folder, global_batch=256)
        measured, printed = lab.profile()
        print(printed)
        cluster = lab.emulated(measured)
        print("| plan | grid | predicted s | measured s | error |")
        print("|---|---|---|---|---|")
        predicted, actual = [], []
        for name in chosen:
            text = PLANS[name] + " microbatch_size: 4"
            plan = lab.write("plan.textproto", text)
            p, m = lab.rehearse(cluster, plan)
            predicted.append(p)
            actual.append(m)
            grid = PLANS[name][len("grid { "):PLANS[name].index("}")].strip()
            print(f"| {name} | {grid} | {p:.3f} | {m:.3f} "
                  f"| {100 * (p / m - 1):+.1f} % |", flush=True)
        print(f"\n{len(chosen)} plans: mean absolute error "
              f"{100 * mean_error(predicted, actual):.1f} %", end="")
        if len(chosen) > 1:
            print(", rank correlation "
                  f"{rank_correlation(predicted, actual):.3f}", end="")
        print("\n")
        return predicted, actual


def study_slow_link(trireme):
    def rate(source, target):
        return 5e6 if {source, target} == {1, 2} else 50e6
    with tempfile.TemporaryDirectory() as folder, \
            network.Network([1] * 4, rate) as net:
        lab = laboratory.Laboratory(trireme, net, folder, global_batch=64)
        measured, _ = lab.profile()
        cluster = lab.emulated(measured)
        plan, printed = lab.plan(cluster)
        print(printed)
        with open(plan, encoding="utf-8") as file:
            lines = file.readlines()
        default = lab.write(
            "default.textproto",
            "".join(line for line in lines
                    if not line.startswith("placement")))
        placed = lab.rehearse(cluster, plan, steps=5)
        in_order = lab.rehearse(cluster, default, steps=5)
        print("| placement | predicted s | measured s |\n|---|---|---|")
        print(f"| the planner's | {placed[0]:.3f} | {placed[1]:.3f} |")
        print(f"| in order | {in_order[0]:.3f} | {in_order[1]:.3f} |")
        print(f"\nspeed-up {in_order[0] / placed[0]:.2f} predicted, "
              f"{in_order[1] / placed[1]:.2f} measured")


def study_partial_pipeline(trireme):
    """Two of six stages skipped, 4 hosts with 3 ranks each."""
    megabytes = [[0, 40, 8, 15], [40, 0, 20, 6], [8, 20, 0, 30],
                 [15, 6, 30, 0]]

    def rate(source, target):
        return megabytes[source][target] * 1e6
    with tempfile.TemporaryDirectory() as folder, \
            network.Network([3] * 4, rate) as net:
        lab = laboratory.Laboratory(trireme, net, folder, global_batch=120,
                                    layers=11)
        measured, _ = lab.profile()
        cluster = lab.emulated(measured)
        grid = "grid { pp: 6 dp: 2 } microbatch_size: 2 "
        skip = lab.write("skip.textproto",
                         grid + "skip { stages_per_microbatch: 4 swaps: true }")
        print(lab.run("plan", lab.job, "--cluster", cluster, "--route", skip,
                      "--out", os.path.join(folder, "routed.textproto")))
        plans = {
            "full": lab.write("full.textproto", grid),
            "4 of 6 stages, routed": os.path.join(folder, "routed.textproto"),
            "4 of 6 stages, not routed": skip,
        }
        print("| pipeline | predicted s | measured s |\n|---|---|---|")
        steps = {}
        for name, plan in plans.items():
            steps[name] = lab.rehearse(cluster, plan)
            print(f"| {name} | {steps[name][0]:.3f} | {steps[name][1]:.3f} |",
                  flush=True)
        full, routed = steps["full"], steps["4 of 6 stages, routed"]
        print(f"\nreduction {100 * (1 - routed[0] / full[0]):.0f} % predicted, "
              f"{100 * (1 - routed[1] / full[1]):.0f} % measured")


def main():
    reason = network.why_not()
    if reason:
        print(f"no laboratory here: {reason}", file=sys.stderr)
        return 1
    steps = study_plans(sys.argv[1], sys.argv[2:] or list(PLANS))
    if len(sys.argv) == 2:
        study_slow_link(sys.argv[1])
        study_partial_pipeline(sys.argv[1])
    wrong = why_not_good(*steps)
    if wrong:
        print(f"the predictions are not good enough: {wrong}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
