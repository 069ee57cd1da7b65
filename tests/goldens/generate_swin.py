"""Writes swin.safetensors: a tiny Swin Transformer V2 with its loss and
gradients.

  python3 generate_swin.py [OUTPUT]

Needs PyTorch alone: the network is written here once more, from the paper and
the header of models/swin, with windows rolled, cut and masked as the paper's
code does it. `weights.NAME` are parameters by their names here, `logits` those of
`pixels`, `loss` the mean cross entropy with `labels`, a fifth of it that of all
classes alike, `grad.NAME` its gradients. Everything runs in fp64.
"""

import math
import pathlib
import sys

import torch
import torch.nn.functional as F

from generate import store, write

CHANNELS, SIDE, PATCH, WINDOW, CLASSES = 2, 16, 2, 4, 5
HIDDEN, MLP = 6, 12
# Blocks and heads.
STAGES = ((2, 2), (1, 3))
BIAS_HIDDEN = 512
SMOOTHING = 0.2
GENERATOR = torch.Generator().manual_seed(20241130)


def normal(*shape, stddev=1.0):
    """fp64 with values that fp32 holds."""
    values = torch.randn(*shape, generator=GENERATOR) * stddev
    return values.float().double()


def blocks():
    """Of each block its stage, number in the stage and heads."""
    return [(stage, i, heads) for stage, (count, heads) in enumerate(STAGES)
            for i in range(count)]


def make_weights():
    weights = {}

    def linear(name, inputs, outputs, parts=1, bias=True):
        shape = (parts, outputs, inputs) if parts > 1 else (outputs, inputs)
        weights[f"{name}.weight"] = normal(*shape, stddev=inputs**-0.5)
        if bias:
            weights[f"{name}.bias"] = normal(*shape[:-1], stddev=0.5)

    def norm(name, width):
        weights[f"{name}.weight"] = (1 + normal(width) / 3).float().double()
        weights[f"{name}.bias"] = normal(width, stddev=0.5)

    linear("patch_embedding", CHANNELS * PATCH**2, HIDDEN)
    norm("patch_embedding.norm", HIDDEN)
    for index, (stage, number, heads) in enumerate(blocks()):
        block, width = f"blocks.{index}", HIDDEN << stage
        if stage > 0 and number == 0:
            linear(f"{block}.merging.linear", 2 * width, width, bias=False)
            norm(f"{block}.merging.norm", width)
        linear(f"{block}.attention.qkv", width, width, parts=3)
        linear(f"{block}.attention.out", width, width)
        # One of them is beyond the bound.
        weights[f"{block}.attention.log_scales"] = torch.tensor(
            [1.5, 5.0, 2.0][:heads]).double()
        linear(f"{block}.attention.biases.in", 2, BIAS_HIDDEN)
        linear(f"{block}.attention.biases.out", BIAS_HIDDEN, heads, bias=False)
        norm(f"{block}.attention.norm", width)
        linear(f"{block}.mlp.in", width, MLP << stage)
        linear(f"{block}.mlp.out", MLP << stage, width)
        norm(f"{block}.mlp.norm", width)
    width = HIDDEN << (len(STAGES) - 1)
    norm("final.norm", width)
    linear("final.linear", width, CLASSES)
    return {name: w.requires_grad_() for name, w in weights.items()}


def cut(x):
    """[b, h, w, c] to windows [b·windows, window², c]."""
    b, h, w, c = x.shape
    x = x.view(b, h // WINDOW, WINDOW, w // WINDOW, WINDOW, c)
    return x.transpose(2, 3).reshape(-1, WINDOW * WINDOW, c)


def join(windows, b, h, w):
    x = windows.view(b, h // WINDOW, w // WINDOW, WINDOW, WINDOW, -1)
    return x.transpose(2, 3).reshape(b, h, w, -1)


def mask_of(h, w, shift):
    regions = torch.zeros(1, h, w, 1).double()
    spans = (slice(0, -WINDOW), slice(-WINDOW, -shift), slice(-shift, None))
    for i, rows in enumerate(spans):
        for j, columns in enumerate(spans):
            regions[:, rows, columns] = 3 * i + j
    of_windows = cut(regions).squeeze(-1)
    unlike = of_windows[:, None] != of_windows[:, :, None]
    return unlike.double() * -100


def relative_distances():
    span = torch.arange(1 - WINDOW, WINDOW).double() / (WINDOW - 1) * 8
    span = span.sign() * (span.abs() + 1).log2() / math.log2(8)
    return torch.stack(torch.meshgrid(span, span, indexing="ij"),
                       -1).view(-1, 2)


def relative_index():
    places = torch.stack(torch.meshgrid(torch.arange(WINDOW),
                                        torch.arange(WINDOW), indexing="ij"))
    places = places.flatten(1)
    apart = places[:, :, None] - places[:, None, :] + WINDOW - 1
    return apart[0] * (2 * WINDOW - 1) + apart[1]


def model(weights, pixels):

    def linear(name, x):
        return F.linear(x, weights[f"{name}.weight"],
                        weights.get(f"{name}.bias"))

    def norm(name, x):
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"],
                            weights[f"{name}.bias"], 1e-5)

    def attention(name, x, heads, shift):
        b, h, w, c = x.shape
        windows = cut(x.roll((-shift, -shift), (1, 2)))
        q, k, v = (F.linear(windows, weight, bias).unflatten(
            -1, (heads, c // heads)).transpose(1, 2)
                   for weight, bias in zip(weights[f"{name}.qkv.weight"],
                                           weights[f"{name}.qkv.bias"]))
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT
        scale = weights[f"{name}.log_scales"].clamp(max=math.log(100)).exp()
        table = linear(f"{name}.biases.out",
                       F.relu(linear(f"{name}.biases.in",
                                     relative_distances())))
        bias = 16 * table[relative_index()].permute(2, 0, 1).sigmoid()
        scores = scores * scale[:, None, None] + bias
        if shift > 0:
            mask = mask_of(h, w, shift)
            scores = scores.unflatten(0, (b, -1)) + mask[None, :, None]
            scores = scores.flatten(0, 1)
        y = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        y = join(linear(f"{name}.out", y), b, h, w)
        return y.roll((shift, shift), (1, 2))

    side = SIDE // PATCH
    b = pixels.shape[0]
    patches = pixels.view(b, CHANNELS, side, PATCH, side, PATCH)
    # Channels of a patch: rows, columns, then those of the picture.
    patches = patches.permute(0, 2, 4, 3, 5, 1).flatten(3)
    x = norm("patch_embedding.norm", linear("patch_embedding", patches))
    for index, (stage, number, heads) in enumerate(blocks()):
        block = f"blocks.{index}"
        if stage > 0 and number == 0:
            x = torch.cat([x[:, 0::2, 0::2], x[:, 1::2, 0::2],
                           x[:, 0::2, 1::2], x[:, 1::2, 1::2]], -1)
            x = norm(f"{block}.merging.norm",
                     linear(f"{block}.merging.linear", x))
        shift = WINDOW // 2 if number % 2 == 1 and x.shape[1] > WINDOW else 0
        x = x + norm(f"{block}.attention.norm",
                     attention(f"{block}.attention", x, heads, shift))
        inner = F.gelu(linear(f"{block}.mlp.in", x))
        x = x + norm(f"{block}.mlp.norm", linear(f"{block}.mlp.out", inner))
    return linear("final.linear", norm("final.norm", x).mean((1, 2)))


def main():
    weights = make_weights()
    pixels = normal(2, CHANNELS, SIDE, SIDE)
    labels = torch.tensor([3, 0])
    logits = model(weights, pixels)
    loss = F.cross_entropy(logits, labels, label_smoothing=SMOOTHING)
    loss.backward()
    store("inputs", pixels=pixels, labels=labels.double())
    store("swin", logits=logits, loss=loss.reshape(1))
    store("swin.weights", **weights)
    store("swin.grad", **{name: w.grad for name, w in weights.items()})
    here = pathlib.Path(__file__).parent
    write(pathlib.Path(sys.argv[1]) if sys.argv[1:] else here /
          "swin.safetensors")


if __name__ == "__main__":
    main()
