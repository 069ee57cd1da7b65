"""Layers with experts in PyTorch, at the shapes of //tools/bench's moe_bench.cc,
with even routing.

  peer_moe.py [--dtype bf16] [--threads 1] [--repetitions 5]

Prints a JSON object: of each shape and each way of computing it the median
seconds of a forward and of a step, which is a forward with a backward. `loop`
gathers each expert's tokens, as transformers' models do; `grouped` sorts the
rows and multiplies them by torch's grouped product, where it has one for this
processor and type.
"""

import argparse
import json
import statistics
import sys
import time

# Tokens, width, experts, experts of a token, channels of an expert, whether it
# is a SwiGLU.
SHAPES = {"hidream": (256, 2560, 4, 2, 6912, True),
          "tutel": (512, 2048, 2, 2, 2048, False)}


def build(shape, dtype):
    import torch
    from torch.nn import functional as F
    tokens, width, experts, top_k, hidden, gated = shape
    inner = 2 * hidden if gated else hidden
    generator = torch.Generator().manual_seed(0)

    def noise(*of):
        return (torch.rand(*of, generator=generator) * 2 - 1).mul_(
            of[-1]**-0.5).to(dtype)

    x = noise(tokens, width).requires_grad_()
    w_in = noise(experts, inner, width).requires_grad_()
    w_out = noise(experts, width, hidden).requires_grad_()
    weights = torch.full((tokens, top_k), 1 / top_k, dtype=dtype)
    routes = (torch.arange(tokens * top_k) % experts).view(tokens, top_k)

    def activate(h):
        if not gated:
            return F.gelu(h)
        gate, up = h.chunk(2, -1)
        return F.silu(gate) * up

    def loop():
        y = torch.zeros_like(x)
        for e in range(experts):
            token, choice = torch.where(routes == e)
            rows = activate(F.linear(x[token], w_in[e]))
            rows = F.linear(rows, w_out[e]) * weights[token, choice, None]
            y = y.index_add(0, token, rows)
        return y

    def grouped():
        order = routes.flatten().argsort(stable=True)
        ends = torch.bincount(routes.flatten(), minlength=experts).cumsum(
            0).to(torch.int32)
        token = order // top_k
        rows = activate(F.grouped_mm(x[token], w_in.mT, offs=ends))
        rows = F.grouped_mm(rows, w_out.mT, offs=ends)
        rows = rows * weights.flatten()[order, None]
        return torch.zeros_like(x).index_add(0, token, rows)

    return {"loop": loop, "grouped": grouped}, [x, w_in, w_out]


def seconds_of(run, repetitions):
    run()
    taken = []
    for _ in range(repetitions):
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def measure(forward, parameters, repetitions):
    import torch

    def step():
        for parameter in parameters:
            parameter.grad = None
        forward().backward(torch.ones_like(parameters[0]))

    with torch.no_grad():
        of_forward = seconds_of(forward, repetitions)
    return {"forward": of_forward, "step": seconds_of(step, repetitions)}


def main():
    import torch
    parser = argparse.ArgumentParser()
    parser.add_argument("--dtype", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[options.dtype]
    result = {}
    for name, shape in SHAPES.items():
        ways, parameters = build(shape, dtype)
        result[name] = {}
        for way, forward in ways.items():
            try:
                result[name][way] = measure(forward, parameters,
                                            options.repetitions)
            except (AttributeError, RuntimeError) as error:
                print(f"peer_moe: {name}, {way}: {error}", file=sys.stderr)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
