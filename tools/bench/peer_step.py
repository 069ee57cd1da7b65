"""The training steps of //tools/bench in PyTorch, to compare Trireme's with.

    peer_step.py [--models dit_s2,mmdit_h512] [--device cpu] [--threads 1,2]
                 [--dtypes bf16,fp32] [--seconds 10] [--budget 60]

Prints one JSON object: for each model, dtype and thread count the median
seconds of a step in each of the ways a PyTorch user has (eager or
torch.compile, and for bf16 autocast or bf16 weights with fp32 masters), and in
the fastest of them. Each way has --budget seconds, and torch.compile as many
times more as the model says, of which it measures --seconds: on a processor
without bf16 instructions a step can take minutes, and so can compiling.
"not_measured" says why of those that did no step in that time. SIGTERM ends it
with what was measured until then. A step is a
rectified-flow loss, AdamW and gradients clipped to norm 1; the models are in
peer_dit.py and peer_mmdit.py. Those of gpu_speed.sh (dit_xl2, mmdit_flux) are for
GPUs, --device cuda.
"""

import argparse
import importlib
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

# Of each, its module, how much longer torch.compile may take, and its sizes
# where they are not the module's own.
MODELS = {
    "dit_s2": ("peer_dit", 1, {}),
    "mmdit_h512": ("peer_mmdit", 3, {}),
    # As gpu_speed.sh trains them.
    "dit_xl2": ("peer_dit", 2, {
        "hidden": 1152, "layers": 28, "heads": 16, "grid": 32, "patch": 8,
        "channels": 1, "batch": 16, "classes": 1}),
    "mmdit_flux": ("peer_mmdit", 2, {
        "hidden": 3072, "heads": 24, "dual": 4, "single": 8, "grid": 32,
        "channels": 64, "text_tokens": 512, "text_width": 4096,
        "pooled_width": 768, "rope_axes": (16, 56, 56), "batch": 4}),
}
CPU_MODELS = ("dit_s2", "mmdit_h512")
VARIANTS = {
    "fp32": ["eager", "compile"],
    "bf16": [
        "autocast", "autocast compile", "masters", "masters compile"
    ],
}
WARM_UP = 3


def measure(name, variant, device, threads, seconds):
    """Prints the seconds of each step, those that warm up included."""
    import torch
    from torch.nn import functional as F
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    torch.set_default_device(device)
    module = importlib.import_module(MODELS[name][0])
    sizes = module.Sizes(**MODELS[name][2])
    model = module.build(sizes)
    if "masters" in variant:
        masters = [p.detach().clone().requires_grad_()
                   for p in model.parameters()]
        model.bfloat16()
    else:
        masters = list(model.parameters())
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(masters, lr=1e-4, fused=True)
    dtype = torch.bfloat16 if "masters" in variant else torch.float32

    def loss_of(x, noise, t, *conditions):
        at = t.reshape(-1, *(1,) * (x.dim() - 1))
        noisy = ((1 - at) * x + at * noise).to(dtype)
        with torch.autocast(device, torch.bfloat16, "autocast" in variant):
            v = module.predict(model, noisy, t, *conditions)
        return F.mse_loss(v.float(), noise - x)

    if "compile" in variant:
        loss_of = torch.compile(loss_of)

    def step():
        x, *conditions = module.batch(sizes)
        noise = torch.randn_like(x)
        t = torch.sigmoid(torch.randn(len(x)))
        loss_of(x, noise, t, *conditions).backward()
        if "masters" in variant:
            for master, p in zip(masters, parameters):
                master.grad = p.grad.float()
                p.grad = None
        torch.nn.utils.clip_grad_norm_(masters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if "masters" in variant:
            with torch.no_grad():
                torch._foreach_copy_(parameters, masters)
        if device == "cuda":
            torch.cuda.synchronize()

    done = 0
    until = math.inf
    while time.perf_counter() < until or done < 2 * WARM_UP:
        if done == WARM_UP:
            until = time.perf_counter() + seconds
        begin = time.perf_counter()
        step()
        print(time.perf_counter() - begin, flush=True)
        done += 1


class Ended(Exception):
    """By SIGTERM, as where the time of whoever calls is over."""


def times_of(command, budget):
    """The numbers that a command prints, a line each, within so many seconds,
    and why there are no more."""
    with tempfile.TemporaryFile("w+") as output, \
            tempfile.TemporaryFile("w+") as errors:
        # Compilers that it starts end with it.
        child = subprocess.Popen(command, stdout=output, stderr=errors,
                                 start_new_session=True)
        reason = ""
        try:
            if child.wait(budget) != 0:
                errors.seek(0)
                lines = errors.read().strip().splitlines()
                reason = (f"status {child.returncode}: "
                          f"{lines[-1] if lines else 'no message'}")
        except subprocess.TimeoutExpired:
            reason = f"ended after {budget:g} s"
        finally:
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            child.wait()
        output.seek(0)
        return [float(line) for line in output.read().split()], reason


def median_of(times):
    """Of the steps that do not warm up; with fewer, the last."""
    return statistics.median(times[WARM_UP:] or times[-1:])


def compare(name, dtype, threads, options, result, not_measured):
    """Measures each way of a model at a dtype and a number of threads."""
    key = f"{name}.{dtype}.threads{threads}"
    best = None
    for variant in VARIANTS[dtype]:
        budget = options.budget
        if "compile" in variant:
            budget *= MODELS[name][1]
        times, reason = times_of(
            [sys.executable, __file__, "--models", name, "--variant", variant,
             "--device", options.device, "--threads", threads, "--seconds",
             str(options.seconds)], budget)
        way = f"{key}.{variant.replace(' ', '_')}"
        told = f"{name}, {dtype}, {threads} threads, {variant}"
        if not times:
            not_measured[way] = reason or "no step"
            print(f"{told}: NOT MEASURED ({reason})", file=sys.stderr,
                  flush=True)
            continue
        median = median_of(times)
        print(f"{told}: {median:.3f} s ({len(times)} steps"
              f"{', ' * bool(reason)}{reason})", file=sys.stderr, flush=True)
        result[f"{way}.step_s"] = median
        if best is None or median < best[0]:
            best = median, variant
            result[f"{key}.step_s"], result[f"{key}.variant"] = best


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default=",".join(CPU_MODELS))
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--dtypes", default="bf16,fp32")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--budget", type=float, default=60)
    parser.add_argument("--variant", help="measure only this, in this process")
    options = parser.parse_args()
    if options.variant:
        measure(options.models, options.variant, options.device,
                int(options.threads), options.seconds)
        return
    result, not_measured = {}, {}

    def end(*_):
        raise Ended
    signal.signal(signal.SIGTERM, end)
    try:
        for name in options.models.split(","):
            for dtype in options.dtypes.split(","):
                for threads in options.threads.split(","):
                    compare(name, dtype, threads, options, result,
                            not_measured)
    except Ended:
        print("ended before all was measured", file=sys.stderr)
    print(json.dumps({**result, "not_measured": not_measured}))


if __name__ == "__main__":
    main()
