"""A DiT in PyTorch: adaLN-zero, RMS-normalised queries and keys, 2-D RoPE, class
and time conditioning. As //tools/bench trains it, DiT-S/2: 32x32x4 latents in
patches of 2."""

import math
import typing


class Sizes(typing.NamedTuple):
    hidden: int = 384
    layers: int = 12
    heads: int = 6
    # Patches along a side, and pixels of one.
    grid: int = 16
    patch: int = 2
    channels: int = 4
    batch: int = 8
    classes: int = 1000


def batch(sizes):
    """Samples, and what conditions them."""
    import torch
    side = sizes.grid * sizes.patch
    return (torch.randn(sizes.batch, sizes.channels, side, side),
            torch.randint(sizes.classes, (sizes.batch,)))


def predict(model, noisy, t, classes):
    return model(noisy, t, classes)


def build(sizes):
    import torch
    from torch import nn
    from torch.nn import functional as F

    hidden, layers, heads, grid, patch, channels, _, classes = sizes
    head_dim = hidden // heads

    def rope_table():
        # Half of a head's channels turn with the row, half with the column.
        frequencies = 10000.0**(-torch.arange(0, head_dim // 2, 2) /
                                (head_dim // 2))
        position = torch.arange(grid)
        angle = position[:, None] * frequencies
        rows = angle[:, None].expand(grid, grid, -1)
        columns = angle[None].expand(grid, grid, -1)
        angles = torch.cat([rows, columns], -1).reshape(grid * grid, -1)
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
            self.norm1 = nn.LayerNorm(hidden, 1e-6, elementwise_affine=False)
            self.norm2 = nn.LayerNorm(hidden, 1e-6, elementwise_affine=False)
            self.modulation = nn.Linear(hidden, 6 * hidden)
            self.qkv = nn.Linear(hidden, 3 * hidden)
            self.q_norm = nn.Parameter(torch.ones(head_dim))
            self.k_norm = nn.Parameter(torch.ones(head_dim))
            self.proj = nn.Linear(hidden, hidden)
            self.up = nn.Linear(hidden, 4 * hidden)
            self.down = nn.Linear(4 * hidden, hidden)

        def forward(self, x, c, cos, sin):
            parts = self.modulation(c)[:, None].chunk(6, -1)
            shift1, scale1, gate1, shift2, scale2, gate2 = parts
            h = self.norm1(x) * (1 + scale1) + shift1
            q, k, v = self.qkv(h).unflatten(-1, (3, heads, head_dim)).transpose(
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
            features = patch * patch * channels
            self.embed = nn.Linear(features, hidden)
            self.classes = nn.Embedding(classes + 1, hidden)
            self.time = nn.Sequential(nn.Linear(256, hidden), nn.SiLU(),
                                      nn.Linear(hidden, hidden))
            self.blocks = nn.ModuleList(Block() for _ in range(layers))
            self.norm = nn.LayerNorm(hidden, 1e-6, elementwise_affine=False)
            self.modulation = nn.Linear(hidden, 2 * hidden)
            self.out = nn.Linear(hidden, features)
            cos, sin = rope_table()
            self.register_buffer("cos", cos, persistent=False)
            self.register_buffer("sin", sin, persistent=False)

        def forward(self, x, t, y):
            x = x.unflatten(2, (grid, patch)).unflatten(4, (grid, patch))
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
            x = x.unflatten(1, (grid, grid)).unflatten(3, (patch, patch, -1))
            return x.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)

    return DiT()
