"""Writes mesh_tokens.safetensors: a tiny model of meshes' tokens with its loss
and gradients.

  python3 generate_mesh_tokens.py [OUTPUT]

Needs PyTorch alone: the network is written here once more, from the header of
models/mesh_tokens. `weights.NAME` are parameters by their names here, `logits`
what follows the class and each of the `tokens` but the last one, `loss` the mean
cross entropy with `next_tokens`, of which those that are negative are padding,
`grad.NAME` its gradients. Everything runs in fp64.
"""

import pathlib
import sys

import torch
import torch.nn.functional as F

from drawn import Normal
from generate import store, write

TOKENS, CLASSES = 7, 3
HIDDEN, HEADS, LAYERS = 12, 3, 2
HEAD = HIDDEN // HEADS
# Two bits of a coordinate, one of them the block's: 8 offsets, twice 8 blocks
# and the end.
VOCABULARY = 25
LENGTHS = (7, 4)
normal = Normal(20241112)


def make_weights():
    weights = {}

    def linear(name, inputs, outputs, parts=1, bias=True):
        shape = (parts, outputs, inputs) if parts > 1 else (outputs, inputs)
        weights[f"{name}.weight"] = normal(*shape, stddev=inputs**-0.5)
        if bias:
            weights[f"{name}.bias"] = normal(outputs, stddev=0.5)

    def norm(name):
        weights[f"{name}.weight"] = (1 + normal(HIDDEN) / 3).float().double()
        weights[f"{name}.bias"] = normal(HIDDEN, stddev=0.5)

    weights["token_embedding.table"] = normal(VOCABULARY, HIDDEN)
    weights["class_embedding.table"] = normal(CLASSES, HIDDEN)
    for i in range(LAYERS):
        block = f"blocks.{i}"
        norm(f"{block}.attention.norm")
        linear(f"{block}.attention.qkv", HIDDEN, HIDDEN, parts=3, bias=False)
        linear(f"{block}.attention.out", HIDDEN, HIDDEN)
        norm(f"{block}.mlp.norm")
        linear(f"{block}.mlp.in", HIDDEN, 4 * HIDDEN)
        linear(f"{block}.mlp.out", 4 * HIDDEN, HIDDEN)
    norm("final.norm")
    linear("final.linear", HIDDEN, VOCABULARY)
    return {name: w.requires_grad_() for name, w in weights.items()}


def rotate(x):
    """Pairs of channels by place · 10000^(−2i/HEAD); x is [b, heads, s, HEAD]."""
    frequencies = 10000.0**(-torch.arange(0, HEAD, 2).double() / HEAD)
    angles = torch.arange(x.shape[2]).double()[:, None] * frequencies
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack([even * angles.cos() - odd * angles.sin(),
                        even * angles.sin() + odd * angles.cos()],
                       -1).flatten(-2)


def model(weights, tokens, labels):

    def linear(name, x):
        return F.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])

    def norm(name, x):
        return F.layer_norm(x, (HIDDEN,), weights[f"{name}.weight"],
                            weights[f"{name}.bias"], 1e-5)

    def attention(name, x):
        q, k, v = ((x @ w.T).unflatten(-1, (HEADS, HEAD)).transpose(1, 2)
                   for w in weights[f"{name}.qkv.weight"])
        scores = rotate(q) @ rotate(k).transpose(-1, -2) / HEAD**0.5
        later = torch.ones(TOKENS, TOKENS).triu(1).bool()
        y = scores.masked_fill(later, -torch.inf).softmax(-1) @ v
        return linear(f"{name}.out", y.transpose(1, 2).flatten(2))

    x = torch.cat([weights["class_embedding.table"][labels][:, None],
                   weights["token_embedding.table"][tokens[:, :-1]]], 1)
    for i in range(LAYERS):
        block = f"blocks.{i}"
        x = x + attention(f"{block}.attention", norm(f"{block}.attention.norm",
                                                     x))
        x = x + linear(f"{block}.mlp.out",
                       F.gelu(linear(f"{block}.mlp.in",
                                     norm(f"{block}.mlp.norm", x))))
    return linear("final.linear", norm("final.norm", x))


def main():
    weights = make_weights()
    tokens = torch.randint(VOCABULARY, (len(LENGTHS), TOKENS),
                           generator=normal.generator)
    next_tokens = tokens.clone()
    for row, length in enumerate(LENGTHS):
        next_tokens[row, length:] = -1
        tokens[row, length:] = VOCABULARY - 1
    labels = torch.tensor([2, 0])
    logits = model(weights, tokens, labels)
    loss = F.cross_entropy(logits.flatten(0, 1), next_tokens.flatten(),
                           ignore_index=-1)
    loss.backward()
    store("inputs", tokens=tokens.double(), next_tokens=next_tokens.double(),
          labels=labels.double())
    store("mesh_tokens", logits=logits, loss=loss.reshape(1))
    store("mesh_tokens.weights", **weights)
    store("mesh_tokens.grad", **{name: w.grad for name, w in weights.items()})
    here = pathlib.Path(__file__).parent
    write(pathlib.Path(sys.argv[1]) if sys.argv[1:] else here /
          "mesh_tokens.safetensors")


if __name__ == "__main__":
    main()
