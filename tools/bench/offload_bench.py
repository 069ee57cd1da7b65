#!/usr/bin/env python3
"""What training with offload takes on this machine, beside the same training
with everything on the device and beside PyTorch's and DeepSpeed's offload.

    offload_bench.py TRIREME [--python PYTHON] [--budget 460] [--threads 2]
                     [--precision FP32] [--json FILE]

TRIREME is bazel-bin/tools/trireme, PYTHON has PyTorch and, if they are to be
measured, what of DeepSpeed runs on processors: `pip install --no-deps --target
SITE deepspeed einops hjson msgpack ninja packaging py-cpuinfo tqdm` beside
PyTorch, psutil and pydantic, and PYTHONPATH=SITE. That compiles its CPUAdam
when it is first used, for minutes (into TORCH_EXTENSIONS_DIR; the lock of a
compilation that was broken off is to be deleted there): `offload_bench.py
TRIREME --python PYTHON --peer zero` does it before, with no limit of time.
Prints Markdown:

- the device's peak for a DiT of 1.4 billion parameters, from dry steps: all
  resident, and with two places, with and without blocks' inputs on the host;
- the same DiT's step on devices of so many FLOP/s behind throttled links,
  rehearsed (`trireme rehearse`: the executor carries out its list, and copies,
  updates and computation take the time that they are said to take), over the
  least that it can take, T_b + max(T_f, T_A, copies), and over what was
  predicted;
- the seconds of a step of a DiT-B that trains, resident and offloaded, and of
  the same model in PyTorch with blocks at home in the host's memory by hooks,
  with FSDP2's CPUOffloadPolicy, and in DeepSpeed with ZeRO-Offload (stage 2,
  whose weights stay). All recompute blocks, keep fp32 masters and clip;
- bytes per second of the host's AdamW in those steps, of PyTorch's fused AdamW
  and of DeepSpeed's CPUAdam on as many parameters, and of a copy;
- of these what the aims say.

On a device of the host copies and computation take turns, so that what trains
here says nothing of a link that works beside a device: rehearsals do.
Each part has a share of --budget seconds and says so where it did not end.
"""
import argparse
import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
import tempfile
import time

DATA = "/usr/share/datasets/fashion-mnist"
PATCHES, BATCH, BLOCKS, HIDDEN, HEADS = 14, 4, 12, 768, 12
WARM_UP = 1
JOB = """
name: "offload_bench"
model {{ dit {{ hidden: {hidden} layers: {blocks} heads: {heads} patch: 2 }} }}
data {{ idx {{ folder: "{data}" }} resolution: 28 }}
global_batch: {batch}
steps: 1000
precision: {precision}
sample {{ at_end: false }}
log {{ every: 1 }}
{more}
"""
# 1.4e9 parameters.
LARGE = dict(hidden=1792, blocks=24, heads=28, batch=16, precision="BF16")
CLUSTER = """
devices {{
  name: "throttled"
  memory_bytes: 100000000000
  memory_bytes_per_s: 1e15
  peak_bf16_flops: {flops} peak_fp32_flops: {flops} achieved_bf16_flops: {flops}
  to_device_bytes_per_s: {link}
  to_host_bytes_per_s: {link}
}}
nodes {{ name: "here" device: "throttled" count: 1
        host_memory_bytes_per_s: {host} }}
"""
FLOPS = 2e13
# Bytes per second of the link in each direction, and of the host's memory: the
# optimizer is the longest under the forward, then the copies, then computation.
LINKS = [(8e9, 5e10), (4e9, 1e12), (3.2e10, 1e12)]
PLANS = {
    "resident": "recompute: FULL",
    "2 places": "recompute: FULL offload { resident_units: 2 }",
    "2 places, inputs on the host":
        "recompute: FULL offload { resident_units: 2 activations: true }",
}
# How what else trains is called here, and as --peer.
PEERS = {
    "PyTorch, blocks at home": "hooks",
    "PyTorch, FSDP2 with CPU offload": "fsdp",
    "DeepSpeed, ZeRO-Offload": "zero",
}
OUR_ADAM = "Trireme's AdamW in those steps"
ADAMS = ["PyTorch's fused AdamW", "DeepSpeed's CPUAdam"]
UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


def write_job(folder, plan, more="", **sizes):
    (folder / "job.textproto").write_text(
        JOB.format(data=DATA, more=more, **sizes))
    (folder / "plan.textproto").write_text(plan)
    return [str(folder / "job.textproto"), "--plan",
            str(folder / "plan.textproto")]


def run(command, seconds):
    """What it prints within so many seconds, and why there is no more."""
    try:
        done = subprocess.run(command, timeout=max(1, seconds), text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    except subprocess.TimeoutExpired as error:
        text = error.stdout or b""
        return (text.decode() if isinstance(text, bytes) else text,
                f"ended after {seconds:.0f} s")
    last = (done.stdout.strip().splitlines() or ["no message"])[-1]
    return done.stdout, (f"status {done.returncode}: {last}"
                         if done.returncode else "")


def peak_bytes(text):
    """Of rank 0 in the first table of a dry run."""
    found = re.search(r"^ +0 +([0-9.]+) (\w+)  ", text, re.MULTILINE)
    return float(found[1]) * UNITS[found[2]] if found else None


def measure_memory(trireme, seconds):
    peaks = {}
    for name, plan in PLANS.items():
        with tempfile.TemporaryDirectory() as folder:
            arguments = write_job(pathlib.Path(folder), plan, **LARGE)
            text, reason = run([trireme, "train", *arguments, "--dry_run"],
                               seconds / len(PLANS))
            peaks[name] = peak_bytes(text) or reason
    return peaks


def rehearse(trireme, plan, link, host, seconds):
    """Seconds of a step and of its computation, predicted and rehearsed."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        arguments = write_job(path, plan, more="optimizer { ema_decay: 0 }",
                              **LARGE)
        (path / "cluster.textproto").write_text(
            CLUSTER.format(flops=FLOPS, link=link, host=host))
        text, reason = run([trireme, "rehearse", *arguments, "--cluster",
                            str(path / "cluster.textproto"), "--steps", "3"],
                           seconds)
    rows = {name: (float(predicted), float(rehearsed))
            for name, predicted, rehearsed in re.findall(
                r"^(step|compute) +([0-9.]+) +([0-9.]+)$", text, re.MULTILINE)}
    return rows, "" if len(rows) == 2 else reason or "no table"


def least_seconds(computation, link, host):
    """That a step of LARGE can take with its blocks at home: of `computation`
    a quarter is the forward, which the backward does again. Weights of 2 bytes
    come in for each direction, all but those that stay from one to the other;
    gradients of 4 leave under the backward; the optimizer moves 28 bytes a
    parameter of the host's memory under the forward."""
    parameters = 18 * LARGE["blocks"] * LARGE["hidden"]**2
    stay = 2 / LARGE["blocks"]
    forward = max(computation / 4, 28 * parameters / host,
                  2 * parameters / link)
    backward = max(3 * computation / 4, 2 * parameters * (1 - stay) / link,
                   4 * parameters / link)
    return forward + backward


def measure_links(trireme, seconds):
    rows = []
    for link, host in LINKS:
        figures, reason = rehearse(trireme, PLANS["2 places"], link, host,
                                   seconds / len(LINKS))
        if reason:
            rows.append({"link": link, "host": host, "reason": reason})
            continue
        predicted, rehearsed = figures["step"]
        rows.append({
            "link": link, "host": host, "predicted_s": predicted,
            "rehearsed_s": rehearsed,
            "least_s": least_seconds(figures["compute"][0], link, host)})
    return rows


def steps_of(trireme, plan, seconds, precision, threads):
    """The lines of metrics.jsonl that training writes in so many seconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        arguments = write_job(path, plan, hidden=HIDDEN, blocks=BLOCKS,
                              heads=HEADS, batch=BATCH, precision=precision)
        command = ["env", f"OMP_NUM_THREADS={threads}", trireme, "train",
                   *arguments, "--out", str(path / "run"), "--progress",
                   "lines"]
        text, reason = run(command, seconds)
        metrics = path / "run/metrics.jsonl"
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        steps = []
        for line in lines:
            try:
                steps.append(json.loads(line))
            except json.JSONDecodeError:
                pass  # It was ended while it wrote.
        return steps[WARM_UP:], reason if len(steps) <= WARM_UP else ""


def peer(program, seconds, *arguments):
    """The JSON object that this file prints for --peer."""
    text, reason = run([*program, "--seconds", str(0.7 * seconds), *arguments],
                       seconds)
    for line in reversed(text.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    return {"reason": reason or "no figures"}


def time_calls(call, seconds):
    times = []
    until = time.perf_counter() + seconds
    while len(times) <= WARM_UP or time.perf_counter() < until:
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return statistics.median(times[WARM_UP:])


def peer_adam(seconds, threads):
    """Bytes per second that AdamW reads and writes, and a copy."""
    import torch
    torch.set_num_threads(threads)
    elements = 64 << 20
    parameter = torch.nn.Parameter(torch.randn(elements))
    parameter.grad = torch.randn(elements)
    result = {}
    to = torch.empty_like(parameter)
    with torch.no_grad():
        result["copy"] = 8 * elements / time_calls(
            lambda: to.copy_(parameter), seconds / 4)
    # Gradient, weight and moments are read, all but the first are written.
    step_bytes = 28 * elements
    adam = torch.optim.AdamW([parameter], fused=True)
    result[ADAMS[0]] = step_bytes / time_calls(
        adam.step, seconds / 4)
    del adam
    os.environ["DS_ACCELERATOR"] = "cpu"
    try:
        from deepspeed.ops.adam import DeepSpeedCPUAdam
        adam = DeepSpeedCPUAdam([parameter], adamw_mode=True)
        result[ADAMS[1]] = step_bytes / time_calls(
            adam.step, seconds / 4)
    except Exception as error:
        result["reason"] = f"{ADAMS[1]}: {error}"
    return result


class Home:
    """A block whose weights are at home but while it computes, as its gradients
    are from its backward on."""
    backward = False

    def __init__(self, block, dtype):
        import torch
        self.parameters = list(block.parameters())
        self.masters = [torch.nn.Parameter(p.detach().float().clone())
                        for p in self.parameters]
        self.values = [m.detach().to(dtype) for m in self.masters]
        self.left = 0
        self.drop()
        block.register_forward_pre_hook(lambda *_: self.bring())
        block.register_forward_hook(
            lambda *_: None if Home.backward else self.drop())
        for p, master in zip(self.parameters, self.masters):
            p.register_post_accumulate_grad_hook(
                lambda p, master=master: self.save(p, master))

    def bring(self):
        self.left = len(self.parameters)
        for p, value in zip(self.parameters, self.values):
            p.data = value.clone()

    def drop(self):
        for p, value in zip(self.parameters, self.values):
            p.data = value.new_empty(0)

    def save(self, p, master):
        master.grad = p.grad.float().clone()
        p.grad = None
        self.left -= 1
        if self.left == 0:
            self.drop()

    def publish(self):
        for value, master in zip(self.values, self.masters):
            if value is not master:
                value.copy_(master.detach())


def recomputed(block):
    """The block, of which only the inputs are kept for backward."""
    from torch import nn
    from torch.utils.checkpoint import checkpoint

    class Module(nn.Module):

        def __init__(self):
            super().__init__()
            self.block = block

        def forward(self, *arguments):
            return checkpoint(self.block, *arguments, use_reentrant=False)

    return Module()


def peer_sizes():
    """Of the DiT-B that our own steps train."""
    sys.path.insert(0, str(pathlib.Path(__file__).parent))
    import peer_dit
    return peer_dit.Sizes(hidden=HIDDEN, layers=BLOCKS, heads=HEADS,
                          grid=PATCHES, channels=1, batch=BATCH, classes=10)


def peer_model(threads):
    """A DiT-B whose blocks compute again in backward, and those."""
    import torch
    sizes = peer_sizes()
    import peer_dit
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = peer_dit.build(sizes)
    blocks = list(model.blocks)
    for i, block in enumerate(blocks):
        model.blocks[i] = recomputed(block)
    return model, blocks


def loss_of(model, dtype):
    import torch
    import peer_dit
    x, classes = peer_dit.batch(peer_sizes())
    noise = torch.randn_like(x)
    t = torch.sigmoid(torch.randn(len(x)))
    at = t.reshape(-1, 1, 1, 1)
    v = peer_dit.predict(model, ((1 - at) * x + at * noise).to(dtype), t,
                         classes)
    return torch.nn.functional.mse_loss(v.float(), noise - x)


def join_alone():
    """What shards over ranks has this process alone."""
    import torch
    os.environ.update(RANK="0", LOCAL_RANK="0", WORLD_SIZE="1")
    torch.distributed.init_process_group(
        "gloo", store=torch.distributed.HashStore(), rank=0, world_size=1)


def hooks_step(threads, precision):
    """PyTorch's step with blocks at home."""
    import torch
    dtype = torch.bfloat16 if precision == "BF16" else torch.float32
    model, blocks = peer_model(threads)
    model = model.to(dtype)
    ids = {id(p) for block in blocks for p in block.parameters()}
    stays = [p for p in model.parameters() if id(p) not in ids]
    homes = [Home(block, dtype) for block in blocks]
    masters = [p.detach().float().clone().requires_grad_() for p in stays]
    of_blocks = [m for home in homes for m in home.masters]
    adam = torch.optim.AdamW(masters + of_blocks, lr=1e-4, fused=True)

    def step():
        loss = loss_of(model, dtype)
        Home.backward = True
        loss.backward()
        Home.backward = False
        for p, master in zip(stays, masters):
            master.grad = p.grad.float()
            p.grad = None
        torch.nn.utils.clip_grad_norm_(masters + of_blocks, 1.0)
        adam.step()
        adam.zero_grad()
        with torch.no_grad():
            torch._foreach_copy_(stays, masters)
            for home in homes:
                home.publish()

    return step


def fsdp_step(threads, precision):
    """PyTorch's step with its own offload: fp32 shards at home, which are cast
    and gathered for each block, gradients that leave, AdamW on the host."""
    import torch
    from torch.distributed import fsdp
    model, _ = peer_model(threads)
    join_alone()
    dtype = torch.bfloat16 if precision == "BF16" else torch.float32
    options = {
        "mesh": torch.distributed.init_device_mesh("cpu", (1,)),
        "mp_policy": fsdp.MixedPrecisionPolicy(param_dtype=dtype,
                                               reduce_dtype=torch.float32),
        "offload_policy": fsdp.CPUOffloadPolicy(pin_memory=False),
    }
    for block in model.blocks:
        fsdp.fully_shard(block, **options)
    fsdp.fully_shard(model, **options)
    adam = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step():
        loss_of(model, dtype).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad()

    return step


def zero_step(threads, precision):
    """DeepSpeed's step with ZeRO-Offload: gradients leave as they are made,
    CPUAdam on the host (Ren et al., 2021; one rank's stage 2)."""
    import torch
    os.environ["DS_ACCELERATOR"] = "cpu"
    model, _ = peer_model(threads)
    join_alone()
    import deepspeed
    engine, _, _, _ = deepspeed.initialize(
        model=model, model_parameters=model.parameters(), config={
            "train_batch_size": BATCH,
            "gradient_clipping": 1.0,
            "bf16": {"enabled": precision == "BF16"},
            "zero_optimization": {"stage": 2,
                                  "offload_optimizer": {"device": "cpu"}},
            "optimizer": {"type": "AdamW", "params": {"lr": 1e-4}},
        })
    # DeepSpeed may set its own.
    torch.set_num_threads(threads)
    dtype = torch.bfloat16 if precision == "BF16" else torch.float32

    def step():
        engine.backward(loss_of(engine, dtype))
        engine.step()

    return step


def gigabytes(bytes_per_s):
    return f"{bytes_per_s / 1e9:.1f}"


def over(numerator, denominators):
    """The number over the largest of those that are numbers."""
    numbers = [n for n in denominators if isinstance(n, float)]
    return (numerator / max(numbers) if isinstance(numerator, float) and numbers
            else "not measured")


def reached(figures):
    """What the aims speak of, by what they say."""
    peaks, rates = figures["peak_bytes"], figures["bytes_per_s"]
    steps = figures["step_s"]
    ours = rates.get(OUR_ADAM)
    peers = [step for step in (steps[name] for name in PEERS)
             if isinstance(step, float)]
    slowest = [row["rehearsed_s"] / row["least_s"] for row in figures["links"]
               if "rehearsed_s" in row]
    return {
        "device's peak with 2 places, of resident: at most 0.2":
            over(peaks["2 places"], [peaks["resident"]]),
        "with inputs on the host":
            over(peaks["2 places, inputs on the host"], [peaks["resident"]]),
        "step over the least, the worst of the links: at most 1.05":
            max(slowest) if len(slowest) == len(LINKS) else "not measured",
        "AdamW over a copy: at least 0.8": over(ours, [rates.get("copy")]),
        "AdamW over the fastest other: above 1":
            over(ours, [rates.get(name) for name in ADAMS]),
        "step of the fastest other over 2 places: at least 1.5":
            over(min(peers, default=None), [steps["2 places"]]),
    }


def report(options):
    budget = options.budget
    figures = {"peak_bytes": measure_memory(options.trireme, 0.1 * budget)}
    print("| DiT of 1.4e9 parameters, bf16 | device's peak, GiB | of resident |")
    print("|---|---|---|")
    resident = figures["peak_bytes"]["resident"]
    for name, peak in figures["peak_bytes"].items():
        if isinstance(peak, str) or isinstance(resident, str):
            print(f"| {name} | {peak} | |")
        else:
            print(f"| {name} | {peak / 2**30:.2f} | {100 * peak / resident:.1f} %"
                  " |")

    figures["links"] = measure_links(options.trireme, 0.12 * budget)
    print("\n| link, GB/s | host's memory, GB/s | the least, s | step, s "
          "| over the least | over what was predicted |\n"
          "|---|---|---|---|---|---|")
    for row in figures["links"]:
        ends = f"| {row['link'] / 1e9:g} | {row['host'] / 1e9:g} |"
        if "reason" in row:
            print(f"{ends} | {row['reason']} | | |")
        else:
            step, least = row["rehearsed_s"], row["least_s"]
            print(f"{ends} {least:.3f} | {step:.3f} | {step / least:.2f} | "
                  f"{step / row['predicted_s']:.2f} |")

    program = [options.python, __file__, options.trireme, "--threads",
               str(options.threads), "--precision", options.precision]
    steps, update_rates = {}, []
    for name, plan in PLANS.items():
        lines, reason = steps_of(options.trireme, plan, 0.12 * budget,
                                 options.precision, options.threads)
        times = [line["step_s"] for line in lines]
        steps[name] = statistics.median(times) if times else reason
        update_rates += [line["offload"]["update_bytes_per_s"] for line in lines
                         if "update_bytes_per_s" in line.get("offload", {})]
    for name, mode in PEERS.items():
        figure = peer(program, 0.09 * budget, "--peer", mode)
        steps[name] = figure.get("step_s", figure.get("reason"))
    figures["step_s"] = steps
    ours = steps["2 places"]
    print(f"\n| DiT-B, batch {BATCH}, {options.precision}, {options.threads} "
          "threads | step, s | over 2 places |\n|---|---|---|")
    for name, seconds in steps.items():
        if isinstance(seconds, str) or isinstance(ours, str):
            print(f"| {name} | {seconds} | |")
        else:
            print(f"| {name} | {seconds:.3f} | {seconds / ours:.2f} |")

    rates = peer(program, 0.12 * budget, "--peer", "adam")
    if update_rates:
        rates[OUR_ADAM] = statistics.median(update_rates)
    figures["bytes_per_s"] = rates
    print("\n| | GB/s | of a copy |\n|---|---|---|")
    for name, rate in rates.items():
        if isinstance(rate, str):
            print(f"| {rate} | | |")
        else:
            print(f"| {name} | {gigabytes(rate)} | "
                  f"{rate / rates.get('copy', float('nan')):.2f} |")
    print("\n| aim | reached |\n|---|---|")
    figures["reached"] = reached(figures)
    for aim, value in figures["reached"].items():
        print(f"| {aim} | "
              + (value if isinstance(value, str) else f"{value:.2f}") + " |")
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(figures, indent=1))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("trireme")
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--budget", type=float, default=460)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--precision", default="FP32", choices=["FP32", "BF16"])
    parser.add_argument("--json")
    parser.add_argument("--peer", choices=[*PEERS.values(), "adam"],
                        help="measure only this, in this process")
    parser.add_argument("--seconds", type=float, default=30,
                        help="with --peer")
    options = parser.parse_args()
    if options.peer in PEERS.values():
        make = {"hooks": hooks_step, "fsdp": fsdp_step, "zero": zero_step}
        step = make[options.peer](options.threads, options.precision)
        print(json.dumps({"step_s": time_calls(step, options.seconds)}))
    elif options.peer == "adam":
        print(json.dumps(peer_adam(options.seconds, options.threads)))
    else:
        report(options)


if __name__ == "__main__":
    main()
