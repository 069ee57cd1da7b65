#!/usr/bin/env python3
"""Measures layers with experts and prints the figures as Markdown: each phase
against its floor, PyTorch's layer in the same run, and what `trireme tune`
chooses on eight ranks over slow links against a second sweep of all ways.

    python3 tools/bench/moe_study.py TRIREME BENCH [--python PYTHON] [--json FILE]

BENCH is //tools/bench:bench, PYTHON one with PyTorch (without it there is no
peer). The links are the laboratory's (tests/lab/network.py), which needs root;
where it cannot be set up that part says why and is left out.
"""
import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
sys.path.append(str(HERE.parents[1] / "tests" / "lab"))

SHAPES = ("hidream", "tutel")
# A phase, and what its share of the floor is called.
PHASES = [*((phase, "of_memcpy") for phase in ("route", "permute", "combine")),
          ("products.forward", "of_floor"), ("products.backward", "of_floor"),
          *((f"{spread}.{what}", "of_floor")
            for spread in ("even", "natural", "zipf")
            for what in ("forward", "step"))]

# Two hosts of four ranks; four ranks share an expert, as at Tutel's widths.
HOSTS, RANKS_OF_HOST, EXPERTS = 2, 4, 2
MICROBATCH, TOKENS, WIDTH = 4, 196, 256
JOB = f"""
name: "moe-study"
model {{ dit {{ hidden: {WIDTH} layers: 2 heads: 4 patch: 2
               moe {{ experts: {EXPERTS} top_k: 1 expert_hidden: 512 }} }} }}
data {{ idx {{ folder: "/usr/share/datasets/fashion-mnist" }} resolution: 28 }}
global_batch: {HOSTS * RANKS_OF_HOST * MICROBATCH}
steps: 1
precision: BF16
"""
PLAN = f"""
grid {{ dp: {HOSTS * RANKS_OF_HOST} ep: {HOSTS * RANKS_OF_HOST} }}
microbatch_size: {MICROBATCH}
experts {{ node_ranks: {RANKS_OF_HOST} }}
"""


def sweep_of(printed):
    """What `trireme tune` printed: the ways' names and, by load, their
    milliseconds and the chosen one's name."""
    lines = printed.splitlines()
    start = next(i for i, line in enumerate(lines)
                 if line.split()[:1] == ["load"])
    names = re.split(r"\s{2,}", lines[start].strip())[1:]
    loads = {}
    for line in lines[start + 1:]:
        times = [float(ms) for ms in re.findall(r"([\d.]+) ms", line)]
        if len(times) != len(names):
            break
        loads[float(line.split()[0])] = (times, line.rsplit(" ms", 1)[1].strip())
    if not loads:
        raise ValueError(f"no loads in {printed!r}")
    return names, loads


def judge(chosen, measured):
    """The choices of one sweep by the times of another: by load the chosen
    way's time over the best one's, the best way for all loads together, and how
    much longer that takes than the choices."""
    names, loads = measured
    if names != chosen[0] or loads.keys() != chosen[1].keys():
        raise ValueError("sweeps of other ways or loads")
    own, over_best = 0, {}
    for load, (times, _) in loads.items():
        taken = times[names.index(chosen[1][load][1])]
        own += taken
        over_best[load] = taken / min(times)
    of_ways = [sum(times[i] for times, _ in loads.values())
               for i in range(len(names))]
    best = of_ways.index(min(of_ways))
    return {"over_best": over_best, "static": names[best],
            "static_over_tuned": of_ways[best] / own}


def link_floor_ms(name, rate):
    """Of rows that are routed evenly: what half of them, there and back, forward
    and backward, take from one host to the other; None of what moves weights."""
    sharers = HOSTS * RANKS_OF_HOST // EXPERTS
    match = re.match(r"rows(?: to (\d+))?", name)
    if not match:
        return None
    copies = int(match[1] or sharers)
    rows = RANKS_OF_HOST * MICROBATCH * TOKENS / HOSTS
    return 1e3 * 4 * rows * copies * WIDTH * 2 / rate


def measure_layer(bench, dtype, threads, folder):
    path = folder / "figures.json"
    prefix = f"moe.{dtype}.threads{threads}."
    shapes = "|".join(SHAPES)
    subprocess.run(
        [bench, f"--json={path}", f"--threads={threads}", f"--dtypes={dtype}",
         f"--benchmark_filter=^{re.escape(prefix)}({shapes})\\.",
         "--benchmark_repetitions=3"],
        check=True, stdout=sys.stderr)
    return {key[len(prefix):]: value
            for key, value in json.loads(path.read_text()).items()
            if key.startswith(prefix)}


def layer_table(figures):
    yield "| shape | phase | ms | GFLOP/s | GB/s | of its floor |"
    yield "|---|---|---|---|---|---|"

    def number(key, format_):
        return format(figures[key], format_) if key in figures else ""
    for shape in SHAPES:
        for phase, share in PHASES:
            key = f"{shape}.{phase}"
            milliseconds = 1e3 * figures[f"{key}.s"]
            yield (f"| {shape} | {phase} | {milliseconds:.3f} | "
                   f"{number(key + '.gflops', '.0f')} | "
                   f"{number(key + '.gb_per_s', '.1f')} | "
                   f"{number(f'{key}.{share}', '.2f')} |")
        yield (f"| {shape} | a fixed order of sums, of a step | "
               f"| | | {figures[shape + '.fixed_order.of_step']:+.1%} |")


def peer_table(figures, peer):
    yield "| shape | | ours, ms | PyTorch, ms | its way | ratio |"
    yield "|---|---|---|---|---|---|"
    for shape, ways in peer.items():
        for what in ("forward", "step"):
            way = min(ways, key=lambda name: ways[name][what])
            ours, theirs = figures[f"{shape}.even.{what}.s"], ways[way][what]
            yield (f"| {shape} | {what} | {1e3 * ours:.1f} | "
                   f"{1e3 * theirs:.1f} | {way} | {theirs / ours:.2f} |")


def measure_sweeps(trireme, rate, folder):
    """Two, or why there are none."""
    import network  # pylint: disable=import-outside-toplevel
    reason = network.why_not()
    if reason:
        return reason
    job, plan = folder / "job.textproto", folder / "plan.textproto"
    job.write_text(JOB)
    plan.write_text(PLAN)
    with network.Network([RANKS_OF_HOST] * HOSTS, lambda *_: rate) as net:
        return [sweep_of(net.run(
            [trireme, "tune", str(job), "--plan", str(plan), "--hosts",
             net.hosts, "--out", str(folder / "tuned.textproto"),
             "--overwrite"], 240)) for _ in range(2)]


def sweep_table(sweeps, rate):
    judged = judge(*sweeps)
    names, loads = sweeps[1]
    yield "| load | chosen | ms | best | ms | chosen over best |"
    yield "|---|---|---|---|---|---|"
    for load, (times, _) in loads.items():
        chosen = sweeps[0][1][load][1]
        best = times.index(min(times))
        yield (f"| {load} | {chosen} | {times[names.index(chosen)]:.1f} | "
               f"{names[best]} | {times[best]:.1f} | "
               f"{judged['over_best'][load]:.3f} |")
    yield ""
    yield (f"Best for all loads together: {judged['static']}, which takes "
           f"{judged['static_over_tuned']:.3f} times what the choices do.")
    yield ""
    yield "| rows, even routing | ms | the link alone, ms | of the link |"
    yield "|---|---|---|---|"
    for name, taken in zip(names, loads[min(loads)][0]):
        floor = link_floor_ms(name, rate)
        if floor is not None:
            yield f"| {name} | {taken:.1f} | {floor:.1f} | {floor / taken:.2f} |"


def verdicts(result):
    """What is asked of the figures in `result`: a name, what was measured,
    whether that is the least or the most, and the bound."""
    figures = result["layer"]
    for shape in SHAPES:
        for phase, share, least in (("permute", "of_memcpy", 0.7),
                                    ("combine", "of_memcpy", 0.7),
                                    ("even.forward", "of_floor", 0.8),
                                    ("even.step", "of_floor", 0.8)):
            yield (f"{shape}: {phase}, of its floor",
                   figures[f"{shape}.{phase}.{share}"], "least", least)
        yield (f"{shape}: a fixed order of sums, of a step",
               figures[f"{shape}.fixed_order.of_step"], "most", 0.03)
        for what in ("forward", "step") if "peer" in result else ():
            theirs = min(way[what] for way in result["peer"][shape].values())
            yield (f"{shape}: {what}, PyTorch's time over ours",
                   theirs / figures[f"{shape}.even.{what}.s"], "least", 2)
    for load, over in result.get("judged", {}).get("over_best", {}).items():
        yield (f"load {load}: the tuned way's time over the best one's", over,
               "most", 1.05)


def verdict_table(result):
    yield "| what | measured | asked for | |"
    yield "|---|---|---|---|"
    for what, measured, bound, asked in verdicts(result):
        reached = measured >= asked if bound == "least" else measured <= asked
        yield (f"| {what} | {measured:.3f} | at {bound} {asked} | "
               f"{'reached' if reached else 'MISSED'} |")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("trireme")
    parser.add_argument("bench")
    parser.add_argument("--python", help="one with PyTorch")
    parser.add_argument("--dtype", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rate", type=float, default=1e8,
                        help="bytes per second between hosts")
    parser.add_argument("--json", type=pathlib.Path, help="the figures")
    options = parser.parse_args()
    result = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        figures = measure_layer(os.path.abspath(options.bench), options.dtype,
                                options.threads, folder)
        result["layer"] = figures
        print("\n".join(layer_table(figures)), end="\n\n", flush=True)
        if options.python:
            peer = json.loads(subprocess.run(
                [options.python, str(HERE / "peer_moe.py"), "--dtype",
                 options.dtype, "--threads", str(options.threads)],
                check=True, stdout=subprocess.PIPE, text=True).stdout)
            result["peer"] = peer
            print("\n".join(peer_table(figures, peer)), end="\n\n", flush=True)
        sweeps = measure_sweeps(os.path.abspath(options.trireme), options.rate,
                                folder)
        if isinstance(sweeps, str):
            print(f"No sweeps over slow links: {sweeps}")
        else:
            result["sweeps"] = [{"ways": names, "loads": loads}
                                for names, loads in sweeps]
            result["judged"] = judge(*sweeps)
            print("\n".join(sweep_table(sweeps, options.rate)))
    print("", *verdict_table(result), sep="\n")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
