"""Writes sparse_dit.safetensors: a tiny sparse transformer over voxels with its
loss and gradients.

  python3 generate_sparse_dit.py [OUTPUT]

Needs PyTorch alone: the network is written here once more from its description
(Wu et al., "Direct3D-S2", section 3, and models/sparse_dit/), token by token
and with sets of Python for blocks. `weights.NAME` are the parameters by our
names, `y` is its prediction of the tokens `x` of `counts` voxels a sample at
the times `sigmas`; `loss` is the sum of squares of y - target over the tokens
that are no padding, by their elements, `grad.NAME` its gradients. Everything
runs in fp64.
"""

import pathlib
import sys

import torch
import torch.nn.functional as F

from drawn import Normal
from generate import store, write

BATCH, TOKENS, CHANNELS, RESOLUTION = 2, 12, 3, 16
HIDDEN, HEADS, KEY_HEADS, LAYERS, TOP_K = 24, 4, 2, 2, 2
HEAD = HIDDEN // HEADS
GROUP = HEADS // KEY_HEADS
FEATURES, WIDTH = 4, 5
normal = Normal(20250523)

# In several blocks of all sizes, on both sides of borders of windows.
VOXELS = [[(0, 0, 0), (1, 2, 0), (3, 3, 3), (5, 1, 2), (7, 7, 7), (8, 0, 1),
           (9, 1, 1), (12, 3, 2), (2, 9, 4), (15, 15, 0), (4, 4, 12),
           (14, 13, 15)],
          [(6, 2, 1), (6, 3, 1), (10, 2, 2), (1, 12, 3), (3, 14, 9)]]


def make_weights():
    weights = {}

    def linear(name, inputs, *outputs, bias=True):
        weights[f"{name}.weight"] = normal(*outputs, inputs,
                                           stddev=inputs**-0.5)
        if bias:
            weights[f"{name}.bias"] = normal(*outputs, stddev=0.5)

    def norm(name):
        weights[f"{name}.weight"] = (1 + normal(HIDDEN) / 3).float().double()
        weights[f"{name}.bias"] = normal(HIDDEN, stddev=0.5)

    def compression(name, places):
        width = KEY_HEADS * HEAD
        weights[f"{name}.weights"] = (1 + normal(64, width) / 3).float().double()
        if places:
            weights[f"{name}.places"] = normal(64, width, stddev=0.5)
        weights[f"{name}.mix"] = normal(KEY_HEADS, HEAD, HEAD,
                                        stddev=HEAD**-0.5)

    linear("token_embedding", CHANNELS, HIDDEN)
    linear("time_embedding.in", 256, HIDDEN)
    linear("time_embedding.out", HIDDEN, HIDDEN)
    for i in range(LAYERS):
        block = f"blocks.{i}"
        linear(f"{block}.modulation", HIDDEN, 6, HIDDEN)
        linear(f"{block}.attention.q", HIDDEN, HIDDEN)
        for part in "kv":
            linear(f"{block}.attention.{part}", HIDDEN, KEY_HEADS * HEAD)
            compression(f"{block}.attention.compressed_{part}", part == "k")
        linear(f"{block}.attention.gates", HIDDEN, 3, bias=False)
        linear(f"{block}.attention.out", HIDDEN, HIDDEN, bias=False)
        norm(f"{block}.cross.norm")
        linear(f"{block}.cross.q", HIDDEN, HIDDEN)
        linear(f"{block}.cross.kv", WIDTH, 2, HIDDEN)
        linear(f"{block}.cross.out", HIDDEN, HIDDEN)
        linear(f"{block}.mlp.in", HIDDEN, 4 * HIDDEN)
        linear(f"{block}.mlp.out", 4 * HIDDEN, HIDDEN)
    norm("final.norm")
    linear("final.linear", HIDDEN, CHANNELS)
    return {name: w.requires_grad_() for name, w in weights.items()}


def block_of(voxel, side, shift=0):
    return tuple((c + shift) // side for c in voxel)


def attend(q, k, v):
    """One query and some keys: its probabilities and its output."""
    p = (k @ q / HEAD**0.5).softmax(0)
    return p, p @ v


class Sample:
    """The network on one sample without padding, [tokens, channels]."""

    def __init__(self, weights, voxels):
        self.weights = weights
        self.voxels = voxels
        self.small = sorted({block_of(v, 4) for v in voxels})
        self.large = sorted({block_of(v, 8) for v in voxels})

    def linear(self, name, x):
        weight = self.weights[f"{name}.weight"]
        bias = self.weights.get(f"{name}.bias")
        return F.linear(x, weight.flatten(0, -2),
                        None if bias is None else bias.flatten())

    def norm(self, x, name=None):
        affine = (None, None) if name is None else (
            self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])
        return F.layer_norm(x, (HIDDEN,), *affine, 1e-6)

    def compress(self, name, x):
        """[tokens, key heads, HEAD] to those of small blocks."""
        cells = [(v[2] % 4 * 4 + v[1] % 4) * 4 + v[0] % 4 for v in self.voxels]
        table = self.weights.get(f"{name}.places")
        x = x.flatten(1)
        if table is not None:
            x = x + table[cells]
        x = (x * self.weights[f"{name}.weights"][cells]).unflatten(1, (-1, HEAD))
        means = torch.stack([
            x[[block_of(v, 4) == block for v in self.voxels]].mean(0)
            for block in self.small
        ])
        return means + torch.einsum("bhi,hoi->bho", F.silu(means),
                                    self.weights[f"{name}.mix"])

    def sparse_attention(self, name, x, shift):
        q = self.linear(f"{name}.q", x).unflatten(1, (HEADS, HEAD))
        k = self.linear(f"{name}.k", x).unflatten(1, (KEY_HEADS, HEAD))
        v = self.linear(f"{name}.v", x).unflatten(1, (KEY_HEADS, HEAD))
        small_k = self.compress(f"{name}.compressed_k", k)
        small_v = self.compress(f"{name}.compressed_v", v)
        gates = self.linear(f"{name}.gates", x).sigmoid()
        rows = []
        for i, voxel in enumerate(self.voxels):
            heads = []
            near = [block_of(other, 8, shift) == block_of(voxel, 8, shift)
                    for other in self.voxels]
            for key_head in range(KEY_HEADS):
                group = range(key_head * GROUP, (key_head + 1) * GROUP)
                dense = {h: attend(q[i, h], small_k[:, key_head],
                                   small_v[:, key_head]) for h in group}
                scores = {
                    block: sum(dense[h][0][n].item() for h in group
                               for n, small in enumerate(self.small)
                               if block_of([4 * c for c in small], 8) == block)
                    for block in self.large
                }
                chosen = sorted(scores, key=lambda b: -scores[b])[:TOP_K]
                selected = [block_of(other, 8) in chosen
                            for other in self.voxels]
                for h in group:
                    parts = [dense[h][1]] + [
                        attend(q[i, h], k[of, key_head], v[of, key_head])[1]
                        for of in (selected, near)
                    ]
                    heads.append(sum(gates[i, n] * part
                                     for n, part in enumerate(parts)))
            rows.append(torch.cat(heads))
        return self.linear(f"{name}.out", torch.stack(rows))

    def cross_attention(self, name, x, features):
        q = self.linear(f"{name}.q", self.norm(x, f"{name}.norm"))
        k, v = self.linear(f"{name}.kv", features).chunk(2, 1)
        q, k, v = (y.unflatten(1, (HEADS, HEAD)).transpose(0, 1)
                   for y in (q, k, v))
        p = (q @ k.transpose(1, 2) / HEAD**0.5).softmax(-1)
        return self.linear(f"{name}.out", (p @ v).transpose(0, 1).flatten(1))

    def places(self):
        n = HIDDEN // 6
        frequencies = 10000.0**(-torch.arange(n).double() / n)
        angles = torch.tensor(self.voxels).double()[:, :, None] * frequencies
        return torch.cat([angles.sin(), angles.cos()], -1).flatten(1)

    def __call__(self, x, sigma, features):
        angles = 1000 * sigma * 10000.0**(-torch.arange(128).double() / 128)
        time = self.linear("time_embedding.in",
                           torch.cat([angles.cos(), angles.sin()])[None])
        c = F.silu(self.linear("time_embedding.out", F.silu(time)))
        y = self.linear("token_embedding", x) + self.places()
        for i in range(LAYERS):
            block = f"blocks.{i}"
            m = self.linear(f"{block}.modulation", c).chunk(6, 1)
            n = self.norm(y) * (1 + m[1]) + m[0]
            y = y + m[2] * self.sparse_attention(f"{block}.attention", n,
                                                 4 * (i % 2))
            y = y + self.cross_attention(f"{block}.cross", y, features)
            n = self.norm(y) * (1 + m[4]) + m[3]
            inner = F.gelu(self.linear(f"{block}.mlp.in", n),
                           approximate="tanh")
            y = y + m[5] * self.linear(f"{block}.mlp.out", inner)
        return self.linear("final.linear", self.norm(y, "final.norm"))


def evaluate(weights, x, sigmas, features, target):
    """Predictions, zeros as padding, and the loss."""
    y, loss = torch.zeros_like(x), 0
    for b, places in enumerate(VOXELS):
        count = len(places)
        prediction = Sample(weights, places)(x[b, :count], sigmas[b],
                                             features[b])
        y[b, :count] = prediction.detach()
        loss = loss + (prediction - target[b, :count]).square().sum()
    return y, loss / (sum(map(len, VOXELS)) * CHANNELS)


def main():
    weights = make_weights()
    x, target = (normal(BATCH, TOKENS, CHANNELS) for _ in range(2))
    sigmas = torch.tensor([0.125, 0.96875]).double()
    features = normal(BATCH, FEATURES, WIDTH)
    voxels = torch.full((BATCH, TOKENS, 3), -1)
    for b, places in enumerate(VOXELS):
        count = len(places)
        voxels[b, :count] = torch.tensor(places)
        target[b, count:] = 0
    counts = torch.tensor([len(places) for places in VOXELS])
    y, loss = evaluate(weights, x, sigmas, features, target)
    loss.backward()
    store("inputs", x=x, sigmas=sigmas, features=features, target=target,
          voxels=voxels.double(), counts=counts.double())
    store("sparse_dit", y=y, loss=loss.reshape(1))
    store("sparse_dit.weights", **weights)
    store("sparse_dit.grad", **{name: w.grad for name, w in weights.items()})
    here = pathlib.Path(__file__).parent
    write(pathlib.Path(sys.argv[1]) if sys.argv[1:] else here /
          "sparse_dit.safetensors")


if __name__ == "__main__":
    main()
