"""Writes dit.safetensors: a tiny DiT in PyTorch, with loss and gradients.

  python3 generate_dit.py [OUTPUT]

The model is written from the papers in plain ops and runs in fp64 on weights
and inputs that are exact in fp32. Five variants share their weights:

  class   class-conditional, rotary positions, norms of queries and keys
  sincos  the same with a fixed position table and without those norms
  set     class-conditional, of tokens without an order (Mosaic-SDF's)
  cross   class, and cross-attention to text after each self-attention
  joint   class, and text tokens in one attention with the picture's

`weights.NAME` are the parameters; `VARIANT.y` is the prediction,
`VARIANT.loss` its mean squared error and `VARIANT.grad.NAME` the gradients.
Results are rounded to fp32.
"""

import pathlib
import sys

import torch
import torch.nn.functional as F

from generate import gelu, store, write

BATCH, CHANNELS, HEIGHT, WIDTH, PATCH = 3, 2, 4, 6, 2
HIDDEN, LAYERS, HEADS, MLP, CLASSES = 16, 2, 2, 20, 5
TEXT_TOKENS, TEXT_WIDTH = 4, 6
TIME_CHANNELS = 256
HEAD_DIM = HIDDEN // HEADS
ROWS, COLUMNS = HEIGHT // PATCH, WIDTH // PATCH
EPS = 1e-6
GENERATOR = torch.Generator().manual_seed(20240301)


def exact(tensor):
    """fp64 with values that fp32 holds."""
    return tensor.float().double()


def normal(*shape, stddev=1.0):
    return exact(torch.randn(*shape, generator=GENERATOR) * stddev)


def weight_shapes():
    h = HIDDEN
    pixels = PATCH * PATCH * CHANNELS

    def linear(name, fan_in, fan_out, parts=1):
        lead = [] if parts == 1 else [parts]
        shapes[name + ".weight"] = lead + [fan_out, fan_in]
        shapes[name + ".bias"] = lead + [fan_out]

    def stream(name, last_text=False):
        linear(name + ".modulation", h, h, 2 if last_text else 6)
        linear(name + ".attention.qkv", h, h, 3)
        shapes[name + ".attention.q_norm.weight"] = [HEAD_DIM]
        shapes[name + ".attention.k_norm.weight"] = [HEAD_DIM]
        if last_text:
            return
        linear(name + ".attention.out", h, h)
        linear(name + ".mlp.in", h, MLP)
        linear(name + ".mlp.out", MLP, h)

    shapes = {}
    linear("patch_embedding", pixels, h)
    linear("time_embedding.in", TIME_CHANNELS, h)
    linear("time_embedding.out", h, h)
    shapes["class_embedding.table"] = [CLASSES + 1, h]
    linear("text_embedding", TEXT_WIDTH, h)
    for i in range(LAYERS):
        stream(f"blocks.{i}")
        stream(f"blocks.{i}.text", last_text=i + 1 == LAYERS)
        cross = f"blocks.{i}.cross"
        shapes[cross + ".norm.weight"] = [h]
        shapes[cross + ".norm.bias"] = [h]
        linear(cross + ".q", h, h)
        linear(cross + ".kv", h, h, 2)
        linear(cross + ".out", h, h)
        shapes[cross + ".q_norm.weight"] = [HEAD_DIM]
        shapes[cross + ".k_norm.weight"] = [HEAD_DIM]
    linear("final.modulation", h, h, 2)
    linear("final.linear", h, pixels)
    return shapes


def random_weights():
    """As far from their starts as training takes them: no zeros, no ones."""
    weights = {}
    for name, shape in weight_shapes().items():
        fan_in = shape[-1] if len(shape) > 1 else 1
        weights[name] = normal(*shape, stddev=min(0.5, fan_in**-0.5))
        if "norm.weight" in name:
            weights[name] = exact(1 + 0.3 * weights[name])
    return weights


class Dit:
    """One variant's forward pass; notes which weights it uses."""

    def __init__(self, weights, positions, qk_norm, text):
        self.weights, self.used = weights, {}
        self.positions, self.qk_norm, self.text = positions, qk_norm, text

    def w(self, name):
        self.used[name] = self.weights[name]
        return self.weights[name]

    def linear(self, name, x):
        """Of a weight [parts, out, in]: parts results."""
        weight, bias = self.w(name + ".weight"), self.w(name + ".bias")
        if weight.dim() == 2:
            return F.linear(x, weight, bias)
        return [F.linear(x, a, b) for a, b in zip(weight, bias)]

    def modulated(self, x, shift, scale):
        norm = F.layer_norm(x, (HIDDEN,), eps=EPS)
        return norm * (1 + scale[:, None]) + shift[:, None]

    def heads(self, x, norm_name):
        """[b, s, h] to [b, heads, s, head_dim], normed if there is a name."""
        x = x.unflatten(-1, (HEADS, HEAD_DIM)).transpose(1, 2)
        if norm_name is None or not self.qk_norm:
            return x
        return F.rms_norm(x, (HEAD_DIM,), self.w(norm_name + ".weight"), EPS)

    def rotated(self, x):
        """Two axes, half of the head's channels each, in adjacent pairs."""
        if self.positions != "rope":
            return x
        per_axis = HEAD_DIM // 2
        pairs = torch.arange(0, per_axis, 2).double()
        frequencies = 10000.0**(-pairs / per_axis)
        grid = torch.cartesian_prod(torch.arange(ROWS), torch.arange(COLUMNS))
        angle = (grid[:, :, None] * frequencies).flatten(1)
        even, odd = x[..., 0::2], x[..., 1::2]
        turned = (even * angle.cos() - odd * angle.sin(),
                  even * angle.sin() + odd * angle.cos())
        return torch.stack(turned, -1).flatten(-2)

    def attend(self, q, k, v, key_counts=None):
        weights = (q @ k.mT / HEAD_DIM**0.5).exp()
        if key_counts is not None:
            seen = torch.arange(k.shape[2])[None, :] < key_counts[:, None]
            weights = weights * seen[:, None, None, :]
        # Without keys the result is zero.
        weights = weights / weights.sum(-1, keepdim=True).clamp_min(1e-300)
        return (weights @ v).transpose(1, 2).flatten(2)

    def qkv(self, name, x, modulation, rotate):
        shift, scale = modulation[:2]
        q, k, v = self.linear(name + ".attention.qkv",
                              self.modulated(x, shift, scale))
        q = self.heads(q, name + ".attention.q_norm")
        k = self.heads(k, name + ".attention.k_norm")
        if rotate:
            q, k = self.rotated(q), self.rotated(k)
        return q, k, self.heads(v, None)

    def after_attention(self, name, x, attended, modulation):
        gate = modulation[2]
        return x + gate[:, None] * self.linear(name + ".attention.out",
                                               attended)

    def mlp(self, name, x, modulation):
        shift, scale, gate = modulation[3:]
        inner = gelu(self.linear(name + ".mlp.in",
                                 self.modulated(x, shift, scale)))
        return x + gate[:, None] * self.linear(name + ".mlp.out", inner)

    def cross(self, name, x, text, text_counts):
        norm = F.layer_norm(x, (HIDDEN,), self.w(name + ".norm.weight"),
                            self.w(name + ".norm.bias"), EPS)
        k, v = self.linear(name + ".kv", text)
        attended = self.attend(
            self.heads(self.linear(name + ".q", norm), name + ".q_norm"),
            self.heads(k, name + ".k_norm"), self.heads(v, None), text_counts)
        return x + self.linear(name + ".out", attended)

    def block(self, i, x, silu_c, text, text_counts):
        name = f"blocks.{i}"
        modulation = self.linear(name + ".modulation", silu_c)
        q, k, v = self.qkv(name, x, modulation, rotate=True)
        if self.text != "joint":
            x = self.after_attention(name, x, self.attend(q, k, v), modulation)
            if self.text == "cross":
                x = self.cross(name + ".cross", x, text, text_counts)
            return self.mlp(name, x, modulation), text
        stream = name + ".text"
        text_modulation = self.linear(stream + ".modulation", silu_c)
        text_qkv = self.qkv(stream, text, text_modulation, rotate=False)
        q, k, v = (torch.cat(both, 2) for both in zip((q, k, v), text_qkv))
        pixels = x.shape[1]
        attended = self.attend(q, k, v, pixels + text_counts)
        x = self.after_attention(name, x, attended[:, :pixels], modulation)
        x = self.mlp(name, x, modulation)
        if i + 1 == LAYERS:
            return x, None
        text = self.after_attention(stream, text, attended[:, pixels:],
                                    text_modulation)
        return x, self.mlp(stream, text, text_modulation)

    def forward(self, tokens, sigmas, labels, text, text_counts):
        x = self.linear("patch_embedding", tokens)
        if self.positions == "sincos":
            x = x + position_table()
        frequencies = 10000.0**(-torch.arange(TIME_CHANNELS // 2).double() /
                                (TIME_CHANNELS // 2))
        angles = 1000 * sigmas[:, None] * frequencies
        time = torch.cat([angles.cos(), angles.sin()], -1)
        c = self.linear("time_embedding.out",
                        F.silu(self.linear("time_embedding.in", time)))
        silu_c = F.silu(c + self.w("class_embedding.table")[labels])
        if self.text is not None:
            text = self.linear("text_embedding", text)
        for i in range(LAYERS):
            x, text = self.block(i, x, silu_c, text, text_counts)
        shift, scale = self.linear("final.modulation", silu_c)
        return self.linear("final.linear", self.modulated(x, shift, scale))


def position_table():
    """DiT's: columns, then rows; in each sines, then cosines. fp32."""
    grid = torch.cartesian_prod(torch.arange(ROWS), torch.arange(COLUMNS))
    omega = 10000.0**(-torch.arange(HIDDEN // 4).double() / (HIDDEN // 4))
    column, row = grid[:, 1, None] * omega, grid[:, 0, None] * omega
    return exact(torch.cat([column.sin(), column.cos(), row.sin(), row.cos()],
                           -1))


def main():
    pixels = PATCH * PATCH * CHANNELS
    tokens = normal(BATCH, ROWS * COLUMNS, pixels)
    target = normal(BATCH, ROWS * COLUMNS, pixels)
    sigmas = torch.tensor([0.125, 0.5, 0.96875]).double()
    # The last: a sample whose class was dropped.
    labels = torch.tensor([3, 0, CLASSES])
    text = normal(BATCH, TEXT_TOKENS, TEXT_WIDTH)
    text_counts = torch.tensor([4, 2, 0])
    weights = random_weights()
    for tensor in weights.values():
        tensor.requires_grad_()
    inputs = {"tokens": tokens, "target": target, "sigmas": sigmas,
              "labels": labels, "text": text, "text_counts": text_counts}
    store("inputs", **inputs)
    store("weights", **weights)
    variants = {
        "class": Dit(weights, "rope", True, None),
        "sincos": Dit(weights, "sincos", False, None),
        "set": Dit(weights, "none", True, None),
        "cross": Dit(weights, "rope", True, "cross"),
        "joint": Dit(weights, "rope", True, "joint"),
    }
    for variant, model in variants.items():
        y = model.forward(tokens, sigmas, labels, text, text_counts)
        loss = F.mse_loss(y, target)
        gradients = torch.autograd.grad(loss, list(model.used.values()))
        store(variant, y=y, loss=loss.reshape(1))
        store(f"{variant}.grad", **dict(zip(model.used, gradients)))
    here = pathlib.Path(__file__).parent
    write(pathlib.Path(sys.argv[1]) if sys.argv[1:] else here /
          "dit.safetensors")


if __name__ == "__main__":
    main()
