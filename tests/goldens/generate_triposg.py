"""Writes triposg.safetensors: a tiny TripoSG transformer with its loss and
gradients.

  python3 generate_triposg.py [OUTPUT]

Needs PyTorch alone: the published class is in no package, so that the network is
written here once more, from its description (Li et al., "TripoSG", 2025, and the
names and places of its published weights). `weights.NAME` are those of
TripoSGDiTModel's state, `y` is its prediction, x0 − noise, of the tokens `x` at
the times 1000·`sigmas` and the features `features`; `loss` is the mean squared
error of −y, `grad.NAME` its gradients. Everything runs in fp64.
"""

import pathlib
import sys

import torch
import torch.nn.functional as F

from drawn import Layers, Normal, Weights
from generate import store, write

BATCH, TOKENS, CHANNELS = 2, 5, 3
HIDDEN, HEADS, LAYERS = 12, 3, 5
HEAD = HIDDEN // HEADS
FEATURES, WIDTH = 4, 6
normal = Normal(20250210)


def make_weights():
    weights = Weights(normal)
    linear, norm = weights.linear, weights.norm

    linear("time_proj.linear_1", HIDDEN, 4 * HIDDEN)
    linear("time_proj.linear_2", 4 * HIDDEN, HIDDEN)
    linear("proj_in", CHANNELS, HIDDEN)
    for i in range(LAYERS):
        block = f"blocks.{i}"
        for number in (1, 2, 3):
            norm(f"{block}.norm{number}", HIDDEN)
        for number, width in ((1, HIDDEN), (2, WIDTH)):
            attention = f"{block}.attn{number}"
            linear(f"{attention}.to_q", HIDDEN, HIDDEN, bias=False)
            linear(f"{attention}.to_k", width, HIDDEN, bias=False)
            linear(f"{attention}.to_v", width, HIDDEN, bias=False)
            norm(f"{attention}.norm_q", HEAD, bias=False)
            norm(f"{attention}.norm_k", HEAD, bias=False)
            linear(f"{attention}.to_out.0", HIDDEN, HIDDEN)
        linear(f"{block}.ff.net.0.proj", HIDDEN, 4 * HIDDEN)
        linear(f"{block}.ff.net.2", 4 * HIDDEN, HIDDEN)
        if i > LAYERS // 2:
            linear(f"{block}.skip_linear", 2 * HIDDEN, HIDDEN)
            norm(f"{block}.skip_norm", HIDDEN)
    norm("norm_out", HIDDEN)
    linear("proj_out", HIDDEN, CHANNELS)
    return weights.learnt()


class Model(Layers):

    def attention(self, name, x, context=None):
        if context is None:
            q, k, v = self.interleaved_heads(
                name, x, ("to_q", "to_k", "to_v"), HEADS)
        else:
            q, = self.interleaved_heads(name, x, ("to_q",), HEADS)
            k, v = self.interleaved_heads(name, context, ("to_k", "to_v"),
                                          HEADS)

        def head_norm(part, y):
            return y / (y.square().mean(-1, keepdim=True) + 1e-6).sqrt() \
                * self.weights[f"{name}.norm_{part}.weight"]

        q, k = head_norm("q", q), head_norm("k", k)
        scores = (q @ k.transpose(-1, -2)) / HEAD**0.5
        y = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        return self.linear(f"{name}.to_out.0", y)

    def block(self, name, x, features, skip):
        if skip is not None:
            x = self.layer_norm(f"{name}.skip_norm",
                                self.linear(f"{name}.skip_linear",
                                            torch.cat([skip, x], -1)))
        x = x + self.attention(f"{name}.attn1",
                               self.layer_norm(f"{name}.norm1", x))
        x = x + self.attention(f"{name}.attn2",
                               self.layer_norm(f"{name}.norm2", x),
                               features)
        inner = F.gelu(self.linear(f"{name}.ff.net.0.proj",
                                   self.layer_norm(f"{name}.norm3", x)))
        return x + self.linear(f"{name}.ff.net.2", inner)

    def __call__(self, x, times, features):
        half = HIDDEN // 2
        angles = times[:, None] * 10000.0**(-torch.arange(half).double() / half)
        time = torch.cat([angles.sin(), angles.cos()], -1)
        time = self.linear("time_proj.linear_2",
                           F.gelu(self.linear("time_proj.linear_1", time)))
        y = torch.cat([time[:, None], self.linear("proj_in", x)], 1)
        skips = []
        for i in range(LAYERS):
            skip = skips.pop() if i > LAYERS // 2 else None
            y = self.block(f"blocks.{i}", y, features, skip)
            if i < LAYERS // 2:
                skips.append(y)
        return self.linear("proj_out", self.layer_norm("norm_out", y)[:, 1:])


def main():
    weights = make_weights()
    x, target = (normal(BATCH, TOKENS, CHANNELS) for _ in range(2))
    sigmas = torch.tensor([0.125, 0.96875]).double()
    features = normal(BATCH, FEATURES, WIDTH)
    y = Model(weights)(x, 1000 * sigmas, features)
    loss = F.mse_loss(-y, target)
    loss.backward()
    store("inputs", x=x, sigmas=sigmas, features=features, target=target)
    store("triposg", y=y, loss=loss.reshape(1))
    store("triposg.weights", **weights)
    store("triposg.grad", **{name: w.grad for name, w in weights.items()})
    here = pathlib.Path(__file__).parent
    write(pathlib.Path(sys.argv[1]) if sys.argv[1:] else here /
          "triposg.safetensors")


if __name__ == "__main__":
    main()
