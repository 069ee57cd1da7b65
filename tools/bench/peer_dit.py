"""The training step of DiT-S/2 in PyTorch, to compare Trireme's with.

    peer_dit.py [--threads 1,2] [--dtypes bf16,fp32] [--seconds 10]
                [--budget 60]

Prints one JSON object: for each dtype and thread count the median seconds of a
step in each of the ways a PyTorch user has (eager or torch.compile, and for
bf16 autocast or bf16 weights with fp32 masters), and in the fastest of them.
Each way has --budget seconds, of which it measures --seconds: on a processor
without bf16 instructions a step can take minutes. "not_measured" says why of
those that did no step in that time. The model is the one that //tools/bench
trains: hidden 384, 12 layers, 6 heads, 32x32x4 latents in patches of 2, batch
8, adaLN-zero, RMS-normalised queries and keys, 2-D RoPE, class and time
conditioning, rectified-flow loss, AdamW, gradients clipped to norm 1.
"""

import argparse
import json
import math
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HIDDEN, LAYERS, HEADS, GRID, PATCH, CHANNELS = 384, 12, 6, 16, 2, 4
BATCH, CLASSES = 8, 1000
VARIANTS = {
    "fp32": ["eager", "compile"],
    "bf16": [
        "autocast", "autocast compile", "masters", "masters compile"
    ],
}
WARM_UP = 3


def build():
    import torch
    from torch import nn
    from torch.nn import functional as F

    head_dim = HIDDEN // HEADS

    def rope_table():
        # Half of a head's channels turn with the row, half with the column.
        frequencies = 10000.0**(-torch.arange(0, head_dim // 2, 2) /
                                (head_dim // 2))
        position = torch.arange(GRID)
        angle = position[:, None] * frequencies
        rows = angle[:, None].expand(GRID, GRID, -1)
        columns = angle[None].expand(GRID, GRID, -1)
        angles = torch.cat([rows, columns], -1).reshape(GRID * GRID, -1)
        return angles.cos(), angles.sin()

    def rotate(x, cos, sin):
        a, b = x.unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack([a * cos - b * sin, a * sin + b * cos],
                           -1).flatten(-2)

    def head_norm(x, weight):
        # The fused kernel wants one dtype.
        return F.rms_norm(x, (head_dim,), weight.to(x.dtype), 1e-6)

    class Block(nn.Module):

        def __init__(self):
            super().__init__()
            self.norm1 = nn.LayerNorm(HIDDEN, 1e-6, elementwise_affine=False)
            self.norm2 = nn.LayerNorm(HIDDEN, 1e-6, elementwise_affine=False)
            self.modulation = nn.Linear(HIDDEN, 6 * HIDDEN)
            self.qkv = nn.Linear(HIDDEN, 3 * HIDDEN)
            self.q_norm = nn.Parameter(torch.ones(head_dim))
            self.k_norm = nn.Parameter(torch.ones(head_dim))
            self.proj = nn.Linear(HIDDEN, HIDDEN)
            self.up = nn.Linear(HIDDEN, 4 * HIDDEN)
            self.down = nn.Linear(4 * HIDDEN, HIDDEN)

        def forward(self, x, c, cos, sin):
            parts = self.modulation(c)[:, None].chunk(6, -1)
            shift1, scale1, gate1, shift2, scale2, gate2 = parts
            h = self.norm1(x) * (1 + scale1) + shift1
            q, k, v = self.qkv(h).unflatten(-1, (3, HEADS, head_dim)).transpose(
                1, 3).unbind(2)
            q = rotate(head_norm(q, self.q_norm), cos, sin).to(v.dtype)
            k = rotate(head_norm(k, self.k_norm), cos, sin).to(v.dtype)
            h = F.scaled_dot_product_attention(q, k, v)
            x = x + gate1 * self.proj(h.transpose(1, 2).flatten(2))
            h = self.norm2(x) * (1 + scale2) + shift2
            h = self.down(F.gelu(self.up(h), approximate="tanh"))
            return x + gate2 * h

    class DiT(nn.Module):

        def __init__(self):
            super().__init__()
            features = PATCH * PATCH * CHANNELS
            self.embed = nn.Linear(features, HIDDEN)
            self.classes = nn.Embedding(CLASSES + 1, HIDDEN)
            self.time = nn.Sequential(nn.Linear(256, HIDDEN), nn.SiLU(),
                                      nn.Linear(HIDDEN, HIDDEN))
            self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))
            self.norm = nn.LayerNorm(HIDDEN, 1e-6, elementwise_affine=False)
            self.modulation = nn.Linear(HIDDEN, 2 * HIDDEN)
            self.out = nn.Linear(HIDDEN, features)
            cos, sin = rope_table()
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)

        def forward(self, x, t, y):
            x = x.unflatten(2, (GRID, PATCH)).unflatten(4, (GRID, PATCH))
            x = self.embed(x.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2))
            frequencies = torch.exp(-math.log(10000.0) / 128 *
                                    torch.arange(128))
            angles = 1000 * t[:, None].float() * frequencies
            waves = torch.cat([angles.cos(), angles.sin()], -1).to(x.dtype)
            c = F.silu(self.time(waves) + self.classes(y))
            for block in self.blocks:
                x = block(x, c, self.cos, self.sin)
            shift, scale = self.modulation(c)[:, None].chunk(2, -1)
            x = self.out(self.norm(x) * (1 + scale) + shift)
            x = x.unflatten(1, (GRID, GRID)).unflatten(3, (PATCH, PATCH, -1))
            return x.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)

    return DiT()


def measure(variant, threads, seconds):
    """Prints the seconds of each step, those that warm up included."""
    import torch
    from torch.nn import functional as F
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = build()
    if "masters" in variant:
        masters = [p.detach().clone().requires_grad_()
                   for p in model.parameters()]
        model.bfloat16()
    else:
        masters = list(model.parameters())
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(masters, lr=1e-4, fused=True)
    dtype = torch.bfloat16 if "masters" in variant else torch.float32

    def loss_of(x, noise, t, y):
        at = t[:, None, None, None]
        noisy = ((1 - at) * x + at * noise).to(dtype)
        with torch.autocast("cpu", torch.bfloat16, "autocast" in variant):
            v = model(noisy, t, y)
        return F.mse_loss(v.float(), noise - x)

    if "compile" in variant:
        loss_of = torch.compile(loss_of)

    def step():
        x = torch.randn(BATCH, CHANNELS, GRID * PATCH, GRID * PATCH)
        noise = torch.randn_like(x)
        t = torch.sigmoid(torch.randn(BATCH))
        y = torch.randint(CLASSES, (BATCH,))
        loss_of(x, noise, t, y).backward()
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

    done = 0
    until = math.inf
    while time.perf_counter() < until or done < 2 * WARM_UP:
        if done == WARM_UP:
            until = time.perf_counter() + seconds
        begin = time.perf_counter()
        step()
        print(time.perf_counter() - begin, flush=True)
        done += 1


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


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--dtypes", default="bf16,fp32")
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--budget", type=float, default=60)
    parser.add_argument("--variant", help="measure only this, in this process")
    options = parser.parse_args()
    if options.variant:
        measure(options.variant, int(options.threads), options.seconds)
        return
    result, not_measured = {}, {}
    for dtype in options.dtypes.split(","):
        for threads in options.threads.split(","):
            key = f"{dtype}.threads{threads}"
            best = None
            for variant in VARIANTS[dtype]:
                times, reason = times_of(
                    [sys.executable, __file__, "--variant", variant,
                     "--threads", threads, "--seconds", str(options.seconds)],
                    options.budget)
                name = f"{key}.{variant.replace(' ', '_')}"
                if not times:
                    not_measured[name] = reason or "no step"
                    print(f"{dtype}, {threads} threads, {variant}: NOT MEASURED"
                          f" ({reason})", file=sys.stderr, flush=True)
                    continue
                median = median_of(times)
                print(f"{dtype}, {threads} threads, {variant}: {median:.3f} s"
                      f" ({len(times)} steps{', ' * bool(reason)}{reason})",
                      file=sys.stderr, flush=True)
                result[f"{name}.step_s"] = median
                if best is None or median < best[0]:
                    best = median, variant
            if best is not None:
                result[f"{key}.step_s"], result[f"{key}.variant"] = best
    print(json.dumps({**result, "not_measured": not_measured}))


if __name__ == "__main__":
    main()
