"""DiT-S/2 in PyTorch, as //tools/bench trains it: hidden 384, 12 layers, 6
heads, 32x32x4 latents in patches of 2, batch 8, adaLN-zero, RMS-normalised
queries and keys, 2-D RoPE, class and time conditioning."""

import math

HIDDEN, LAYERS, HEADS, GRID, PATCH, CHANNELS = 384, 12, 6, 16, 2, 4
BATCH, CLASSES = 8, 1000


def batch():
    """Samples, and what conditions them."""
    import torch
    return (torch.randn(BATCH, CHANNELS, GRID * PATCH, GRID * PATCH),
            torch.randint(CLASSES, (BATCH,)))


def predict(model, noisy, t, classes):
    return model(noisy, t, classes)


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
