"""Writes swin.safetensors: a tiny Swin Transformer V2 with its loss and
gradients.

  python3 generate_swin.py [OUTPUT]

The network is written here once more, from the paper and the header of
models/swin, with windows rolled, cut and masked as the paper's code does it, and
Hugging Face's transformers (5.24) must find the same logits, loss and gradients
by their own names. `weights.NAME` are parameters by their names here, `logits` those of
`pixels`, `loss` the mean cross entropy with `labels`, a fifth of it that of all
classes alike, `grad.NAME` its gradients, `transformers.NAME` the weights as
transformers names and shapes them. Everything runs in fp64.
"""

import math
import pathlib
import sys

import torch
import torch.nn.functional as F

from drawn import Normal
from generate import store, write

CHANNELS, SIDE, PATCH, WINDOW, CLASSES = 2, 16, 2, 4, 5
HIDDEN, MLP = 6, 12
# Blocks and heads.
STAGES = ((2, 2), (1, 3))
# That biases were learnt in.
LEARNT_WINDOWS = (WINDOW, 7)
BIAS_HIDDEN = 512
SMOOTHING = 0.2
normal = Normal(20241130)


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
        linear(f"{block}.attention.qkv", width, width, parts=3, bias=False)
        # Of q and v.
        weights[f"{block}.attention.qkv.bias"] = normal(2, width, stddev=0.5)
        linear(f"{block}.attention.out", width, width)
        # One of them is beyond the bound: where windows are not shifted, since
        # -100 would not hide much from it.
        weights[f"{block}.attention.log_scales"] = torch.tensor(
            [1.5, 3.0] if heads == 2 else [1.5, 5.0, 2.0]).double()
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


def relative_distances(learnt):
    span = torch.arange(1 - WINDOW, WINDOW).double() / (learnt - 1) * 8
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

    def attention(name, x, heads, shift, learnt):
        b, h, w, c = x.shape
        windows = cut(x.roll((-shift, -shift), (1, 2)))
        of_q, of_v = weights[f"{name}.qkv.bias"]
        q, k, v = (F.linear(windows, weight, bias).unflatten(
            -1, (heads, c // heads)).transpose(1, 2)
                   for weight, bias in zip(weights[f"{name}.qkv.weight"],
                                           (of_q, None, of_v)))
        scores = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).mT
        scale = weights[f"{name}.log_scales"].clamp(max=math.log(100)).exp()
        table = linear(f"{name}.biases.out",
                       F.relu(linear(f"{name}.biases.in",
                                     relative_distances(learnt))))
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
                     attention(f"{block}.attention", x, heads, shift,
                               LEARNT_WINDOWS[stage]))
        inner = F.gelu(linear(f"{block}.mlp.in", x))
        x = x + norm(f"{block}.mlp.norm", linear(f"{block}.mlp.out", inner))
    return linear("final.linear", norm("final.norm", x).mean((1, 2)))


def by_their_names(tensors):
    """As Swinv2ForImageClassification names and shapes them."""
    theirs = {}

    def rename(ours, name, parts=("weight", "bias")):
        for part in parts:
            theirs[f"{name}.{part}"] = tensors[f"{ours}.{part}"]

    patch = tensors["patch_embedding.weight"].view(HIDDEN, PATCH, PATCH,
                                                   CHANNELS)
    embeddings = "swinv2.embeddings"
    projection = f"{embeddings}.patch_embeddings.projection"
    theirs[f"{projection}.weight"] = patch.permute(0, 3, 1, 2)
    theirs[f"{projection}.bias"] = tensors["patch_embedding.bias"]
    rename("patch_embedding.norm", f"{embeddings}.norm")
    for index, (stage, number, _) in enumerate(blocks()):
        ours = f"blocks.{index}"
        name = f"swinv2.encoder.layers.{stage}.blocks.{number}"
        if stage > 0 and number == 0:
            merging = f"swinv2.encoder.layers.{stage - 1}.downsample"
            rename(f"{ours}.merging.linear", f"{merging}.reduction",
                   ("weight",))
            rename(f"{ours}.merging.norm", f"{merging}.norm")
        attention = f"{name}.attention.self"
        for part, weight in zip(("query", "key", "value"),
                                tensors[f"{ours}.attention.qkv.weight"]):
            theirs[f"{attention}.{part}.weight"] = weight
        for part, bias in zip(("query", "value"),
                              tensors[f"{ours}.attention.qkv.bias"]):
            theirs[f"{attention}.{part}.bias"] = bias
        theirs[f"{attention}.logit_scale"] = tensors[
            f"{ours}.attention.log_scales"].view(-1, 1, 1)
        biases = f"{attention}.continuous_position_bias_mlp"
        rename(f"{ours}.attention.biases.in", f"{biases}.0")
        rename(f"{ours}.attention.biases.out", f"{biases}.2", ("weight",))
        rename(f"{ours}.attention.out", f"{name}.attention.output.dense")
        rename(f"{ours}.attention.norm", f"{name}.layernorm_before")
        rename(f"{ours}.mlp.in", f"{name}.intermediate.dense")
        rename(f"{ours}.mlp.out", f"{name}.output.dense")
        rename(f"{ours}.mlp.norm", f"{name}.layernorm_after")
    rename("final.norm", "swinv2.layernorm")
    rename("final.linear", "classifier")
    return theirs


def compare_with_transformers(weights, pixels, labels, logits):
    from transformers import Swinv2Config, Swinv2ForImageClassification
    theirs = Swinv2ForImageClassification(
        Swinv2Config(image_size=SIDE, patch_size=PATCH, num_channels=CHANNELS,
                     embed_dim=HIDDEN, depths=[n for n, _ in STAGES],
                     num_heads=[heads for _, heads in STAGES],
                     window_size=WINDOW, mlp_ratio=MLP / HIDDEN,
                     pretrained_window_sizes=[0, *LEARNT_WINDOWS[1:]],
                     drop_path_rate=0.0, num_labels=CLASSES)).double()
    with torch.no_grad():
        theirs.load_state_dict(
            by_their_names({name: w.data for name, w in weights.items()}))
    found = theirs(pixels).logits
    F.cross_entropy(found, labels, label_smoothing=SMOOTHING).backward()
    # Their table of distances has 32 bits.
    torch.testing.assert_close(found, logits, rtol=1e-7, atol=1e-7)
    gradients = by_their_names({name: w.grad for name, w in weights.items()})
    for name, parameter in theirs.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients.pop(name),
                                   rtol=1e-6, atol=1e-7, msg=name)
    assert not gradients, gradients.keys()


def main():
    weights = make_weights()
    pixels = normal(2, CHANNELS, SIDE, SIDE)
    labels = torch.tensor([3, 0])
    logits = model(weights, pixels)
    loss = F.cross_entropy(logits, labels, label_smoothing=SMOOTHING)
    loss.backward()
    compare_with_transformers(weights, pixels, labels, logits)
    store("inputs", pixels=pixels, labels=labels.double())
    store("swin", logits=logits, loss=loss.reshape(1))
    store("swin.weights", **weights)
    store("swin.grad", **{name: w.grad for name, w in weights.items()})
    store("swin.transformers", **by_their_names(weights))
    here = pathlib.Path(__file__).parent
    write(pathlib.Path(sys.argv[1]) if sys.argv[1:] else here /
          "swin.safetensors")


if __name__ == "__main__":
    main()
