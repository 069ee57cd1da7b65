"""Writes sparse_vae.safetensors: a tiny autoencoder of sparse voxels with its
loss and gradients.

  python3 generate_sparse_vae.py [OUTPUT]

Needs PyTorch alone. The network is written here once more from its description
(models/sparse_vae/sparse_vae.h; Wu et al., "Direct3D-S2", 2025), on dense grids
with zeros where there are no cells: torch's dense convolution is what the sparse
one is compared with. `weights.NAME` are by our parameters' names;
of each sample `voxels` are its cells (x, y, z), `kinds` what each is to the
surface (0 beside it, 1 near, 2 at an edge), `features` what they have,
`noise` that of its latents; `moments` is what the encoder makes of them, `values`
what the decoder gives before tanh; `vae.loss` is the weighted sum of the losses,
`grad.NAME` its gradients. Everything runs in fp64.
"""

import math
import pathlib
import sys

import torch
import torch.nn.functional as F

from drawn import Layers, Normal, Weights
from generate import store, write

RESOLUTION, LEVELS, HIDDEN, HEADS, CHANNELS = 22, 2, 16, 2, 3
ENCODER, DECODER = 2, 1
LIMIT, DIVERGENCE, EDGES, BESIDE = 2.0, 0.5, 0.75, 0.25
WIDTHS = (2, 4, HIDDEN)
normal = Normal(20250517)


def make_weights():
    weights = Weights(normal)
    linear, norm = weights.linear, weights.norm

    def convolution(name, inputs, outputs):
        weights[f"{name}.weight"] = normal(outputs, 27, inputs,
                                           stddev=(9 * inputs)**-0.5)
        weights[f"{name}.bias"] = normal(outputs, stddev=0.5)

    linear("embedding", 1, WIDTHS[0])
    for level in range(LEVELS):
        name, (low, high) = f"blocks.{level}", WIDTHS[level:level + 2]
        norm(f"{name}.fine_norm", low)
        convolution(f"{name}.first", low, high)
        norm(f"{name}.coarse_norm", high)
        convolution(f"{name}.second", high, high)
        linear(f"{name}.skip", low, high)
    for i in range(LEVELS, LEVELS + ENCODER + DECODER):
        name = f"blocks.{i}"
        norm(f"{name}.attention.norm", HIDDEN)
        weights[f"{name}.attention.qkv.weight"] = normal(
            3, HIDDEN, HIDDEN, stddev=HIDDEN**-0.5)
        linear(f"{name}.attention.out", HIDDEN, HIDDEN)
        norm(f"{name}.mlp.norm", HIDDEN)
        linear(f"{name}.mlp.in", HIDDEN, 4 * HIDDEN)
        linear(f"{name}.mlp.out", 4 * HIDDEN, HIDDEN)
    norm("moments.norm", HIDDEN)
    linear("moments.linear", HIDDEN, 2 * CHANNELS)
    linear("latent_embedding", CHANNELS, HIDDEN)
    for level in reversed(range(LEVELS)):
        name = f"blocks.{2 * LEVELS + ENCODER + DECODER - 1 - level}"
        convolution(f"{name}.coarse", WIDTHS[level + 1], WIDTHS[level])
        convolution(f"{name}.fine", WIDTHS[level], WIDTHS[level])
    linear("final", WIDTHS[0], 1)
    return weights.learnt()


def rank(cell, resolution):
    blocks = (resolution + 7) // 8
    x, y, z = cell
    block = (z // 8 * blocks + y // 8) * blocks + x // 8
    return block * 512 + (z % 8 * 8 + y % 8) * 8 + x % 8


class Level:

    def __init__(self, cells, resolution):
        self.cells = sorted(cells, key=lambda cell: rank(cell, resolution))
        self.resolution = resolution
        x, y, z = torch.tensor(self.cells).T
        self.places = (z, y, x)

    def coarser(self):
        cells = {(x // 2, y // 2, z // 2) for x, y, z in self.cells}
        level = Level(cells, (self.resolution + 1) // 2)
        row = {cell: i for i, cell in enumerate(level.cells)}
        self.parents = torch.tensor(
            [row[(x // 2, y // 2, z // 2)] for x, y, z in self.cells])
        return level

    def pool(self, x, coarse):
        sums = torch.zeros(len(coarse.cells), x.shape[1], dtype=x.dtype)
        counts = torch.zeros(len(coarse.cells), 1, dtype=x.dtype)
        return (sums.index_add(0, self.parents, x) / counts.index_add(
            0, self.parents, torch.ones(len(x), 1, dtype=x.dtype)))

    def positions(self):
        frequencies = HIDDEN // 6
        scales = 10000.0**(-torch.arange(frequencies).double() / frequencies)
        angles = torch.tensor(self.cells).double()[..., None] * scales
        table = torch.cat([angles.sin(), angles.cos()], -1).flatten(1)
        return F.pad(table, (0, HIDDEN - table.shape[1]))


class Model(Layers):

    def group_norm(self, name, x):
        channels = x.shape[1]
        return F.group_norm(x.T[None], math.gcd(channels, 32),
                            self.weights[f"{name}.weight"],
                            self.weights[f"{name}.bias"], 1e-5)[0].T

    def convolve(self, name, x, level):
        side = level.resolution
        dense = torch.zeros(side, side, side, x.shape[1],
                            dtype=x.dtype).index_put(level.places, x)
        weight = self.weights[f"{name}.weight"]
        weight = weight.unflatten(1, (3, 3, 3)).permute(0, 4, 1, 2, 3)
        y = F.conv3d(dense.permute(3, 0, 1, 2)[None], weight, padding=1)[0]
        return y.permute(1, 2, 3, 0)[level.places] + self.weights[
            f"{name}.bias"]

    def attend(self, name, x, level, shifted):
        n = self.layer_norm(f"{name}.attention.norm", x)
        q, k, v = (F.linear(n, part).unflatten(-1, (HEADS, -1)).transpose(0, 1)
                   for part in self.weights[f"{name}.attention.qkv.weight"])
        scores = q @ k.transpose(-1, -2) / q.shape[-1]**0.5
        windows = (torch.tensor(level.cells) + (4 if shifted else 0)) // 8
        together = (windows[:, None] == windows).all(-1)
        scores = scores.masked_fill(~together, -math.inf)
        attended = (scores.softmax(-1) @ v).transpose(0, 1).flatten(1)
        x = x + self.linear(f"{name}.attention.out", attended)
        inner = F.gelu(
            self.linear(f"{name}.mlp.in",
                        self.layer_norm(f"{name}.mlp.norm", x)))
        return x + self.linear(f"{name}.mlp.out", inner)

    def encode(self, levels, features):
        x = self.linear("embedding", features)
        for i in range(LEVELS):
            name, fine, coarse = f"blocks.{i}", levels[i], levels[i + 1]
            h = fine.pool(F.silu(self.group_norm(f"{name}.fine_norm", x)),
                          coarse)
            h = self.convolve(f"{name}.first", h, coarse)
            h = F.silu(self.group_norm(f"{name}.coarse_norm", h))
            h = self.convolve(f"{name}.second", h, coarse)
            x = h + self.linear(f"{name}.skip", fine.pool(x, coarse))
        x = x + levels[-1].positions()
        for i in range(ENCODER):
            x = self.attend(f"blocks.{LEVELS + i}", x, levels[-1], i % 2 == 1)
        return self.linear("moments.linear", self.layer_norm("moments.norm",
                                                             x))

    def decode(self, levels, z):
        x = self.linear("latent_embedding", z) + levels[-1].positions()
        for i in range(DECODER):
            x = self.attend(f"blocks.{LEVELS + ENCODER + i}", x, levels[-1],
                            i % 2 == 1)
        for level in reversed(range(LEVELS)):
            name = f"blocks.{2 * LEVELS + ENCODER + DECODER - 1 - level}"
            h = F.silu(self.convolve(f"{name}.coarse", x, levels[level + 1]))
            h = h[levels[level].parents]
            x = F.silu(self.convolve(f"{name}.fine", h, levels[level]))
        return self.linear("final", x)


def levels_of(cells):
    levels = [Level(cells, RESOLUTION)]
    while len(levels) <= LEVELS:
        levels.append(levels[-1].coarser())
    return levels


def evaluate(model, levels, features, noise, kinds):
    """Moments, values and the loss of a sample."""
    moments = model.encode(levels, features)
    mean, log_variance = moments.chunk(2, -1)
    z = mean + (log_variance / 2).exp() * noise
    values = model.decode(levels, z)
    squares = (LIMIT * values.tanh() - features)**2
    distance = (squares[kinds > 0].mean() +
                EDGES * squares[kinds == 2].mean() +
                BESIDE * squares[kinds == 0].mean())
    divergence = (mean**2 + log_variance.exp() - 1 - log_variance).mean() / 2
    return moments, values, distance + DIVERGENCE * divergence


def main():
    model = Model(make_weights())
    every = [(x, y, z) for x in range(RESOLUTION) for y in range(RESOLUTION)
             for z in range(RESOLUTION)]
    samples = ([c for c in every if abs(c[0] - c[1]) < 2 and c[2] % 9 in (3, 4)],
               [c for c in every if c[2] < 2 and c[0] + c[1] < 6])
    loss = 0
    for i, cells in enumerate(samples):
        levels = levels_of(cells)
        features = normal(len(cells), 1)
        noise = normal(len(levels[-1].cells), CHANNELS)
        kinds = torch.tensor([sum(cell) % 3 for cell in levels[0].cells])
        moments, values, of_sample = evaluate(model, levels, features, noise,
                                              kinds)
        loss = loss + of_sample / len(samples)
        store(f"sample{i}", voxels=torch.tensor(levels[0].cells).double(),
              kinds=kinds.double(), features=features, noise=noise, moments=moments, values=values)
    loss.backward()
    store("vae", loss=loss.reshape(1))
    store("weights", **model.weights)
    store("grad", **{n: w.grad for n, w in model.weights.items()})
    here = pathlib.Path(__file__).parent
    write(pathlib.Path(sys.argv[1]) if sys.argv[1:] else here /
          "sparse_vae.safetensors")


if __name__ == "__main__":
    main()
