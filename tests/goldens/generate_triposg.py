"""Writes triposg.safetensors: a tiny TripoSG transformer with its loss and
gradients.

  python3 generate_triposg.py [OUTPUT]

Needs PyTorch alone: the published class is in no package, so that the network is
written here once more, from its description (Li et al., "TripoSG", 2025, and the
names and places of its published weights). `weights.NAME` are those of
TripoSGDiTModel's state, `y` is its prediction, x0 − noise, of the tokens `x` at
the times 1000·`sigmas` and the features `features`; `loss` is the mean squared
error of −y, `grad.NAME` its gradients. `experts.NAME` are those of the same network
with mixtures of experts in its last blocks, whose class has not been published:
their weights, in our names, come in place of those of the MLPs, the balance loss
of hidream.safetensors is part of `loss`, and gradients of what is not there are
zeros. Everything runs in fp64.
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
EXPERTS, TOP_K, EXPERT_HIDDEN, SHARED_HIDDEN = 3, 2, 7, 8
EXPERT_BLOCKS, ALPHA = 2, 0.5
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


def make_experts():
    weights = Weights(normal)

    def matrices(name, *shape):
        weights[f"{name}.weight"] = normal(*shape, stddev=shape[-1]**-0.5)

    for i in range(LAYERS - EXPERT_BLOCKS, LAYERS):
        name = f"blocks.{i}.moe"
        weights.linear(f"{name}.router", HIDDEN, EXPERTS, bias=False)
        matrices(f"{name}.experts.in", EXPERTS, 2, EXPERT_HIDDEN, HIDDEN)
        matrices(f"{name}.experts.out", EXPERTS, HIDDEN, EXPERT_HIDDEN)
        matrices(f"{name}.shared.in", 2, SHARED_HIDDEN, HIDDEN)
        weights.linear(f"{name}.shared.out", SHARED_HIDDEN, HIDDEN, bias=False)
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

    def mixture(self, name, x):
        """Two experts of each token, the time's too, and the shared one."""
        scores = self.linear(f"{name}.router", x).softmax(-1)
        chosen = scores.topk(TOP_K).indices
        picks = torch.zeros_like(scores).scatter(-1, chosen, 1)
        gate, up = torch.einsum("bth,ekfh->kbtef", x,
                                self.weights[f"{name}.experts.in.weight"])
        y = torch.einsum("btef,ehf,bte->bth", F.silu(gate) * up,
                         self.weights[f"{name}.experts.out.weight"],
                         picks * scores)
        gate, up = torch.einsum("bth,kfh->kbtf", x,
                                self.weights[f"{name}.shared.in.weight"])
        shares = picks.mean(1) / (TOP_K / EXPERTS)
        self.balance = self.balance + \
            ALPHA * (shares * scores.mean(1)).sum(1).mean()
        return y + self.linear(f"{name}.shared.out", F.silu(gate) * up)

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
        n = self.layer_norm(f"{name}.norm3", x)
        if f"{name}.moe.router.weight" in self.weights:
            return x + self.mixture(f"{name}.moe", n)
        inner = F.gelu(self.linear(f"{name}.ff.net.0.proj", n))
        return x + self.linear(f"{name}.ff.net.2", inner)

    def __call__(self, x, times, features):
        self.balance = 0
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
    experts = make_experts()
    store("inputs", x=x, sigmas=sigmas, features=features, target=target)
    store("triposg.weights", **weights)
    store("experts.weights", **experts)
    for name, parts in (("triposg", weights),
                        ("experts", {**weights, **experts})):
        for weight in parts.values():
            weight.grad = torch.zeros_like(weight)
        model = Model(parts)
        y = model(x, 1000 * sigmas, features)
        loss = F.mse_loss(-y, target) + model.balance
        loss.backward()
        store(name, y=y, loss=loss.reshape(1))
        store(f"{name}.grad", **{key: w.grad for key, w in parts.items()})
    here = pathlib.Path(__file__).parent
    write(pathlib.Path(sys.argv[1]) if sys.argv[1:] else here /
          "triposg.safetensors")


if __name__ == "__main__":
    main()
