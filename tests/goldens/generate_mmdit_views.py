"""Writes mmdit_views.safetensors: tiny MMDiTs over several views of a thing,
which attend to each other, with loss and gradients.

  python3 generate_mmdit_views.py [OUTPUT]

Needs PyTorch and diffusers. Two variants:

  views    as SplatFlow has it. Views one under another are a tall picture of
           SD3Transformer2DModel, whose table of positions holds sines and
           cosines of a patch's view, row and column
  streams  the same with weights of its own for each view in attention and MLP,
           and norms of queries and keys, as TriFlow has it for a triplane's
           planes; written here, with this program's names of parameters

Names as in generate_mmdit.py.
"""

import pathlib
import sys

import torch
import torch.nn.functional as F
from diffusers import SD3Transformer2DModel

from drawn import Normal
from generate import store, write
from sinusoids import Sinusoids

BATCH, CHANNELS, VIEWS, PATCH = 2, 3, 3, 2
ROWS, COLUMNS = 2, 3
# The published table of one view: patches along its side, and the last
# coordinate.
TABLE, BASE = 6, 4
# Its six parts leave two channels over.
HEADS, HEAD_DIM = 2, 10
TEXT_TOKENS, TEXT_WIDTH, POOLED_WIDTH = 3, 6, 5
normal = Normal(20240403)


def waves(coordinates, each):
    """Sines and cosines [n, 2·each] of coordinates [n]."""
    angles = coordinates[:, None] * 10000.0**(
        -torch.arange(each).double() / each)
    return torch.cat([angles.sin(), angles.cos()], -1)


def positions():
    """[views·rows, columns, width]; the column first, the view last."""
    view, row, column = torch.meshgrid(
        torch.arange(VIEWS), torch.arange(ROWS), torch.arange(COLUMNS),
        indexing="ij")
    # Of the middle of the table, in fp32 as diffusers makes them.
    unit = torch.tensor(TABLE / BASE)
    row = ((row + (TABLE - ROWS) // 2) / unit).double()
    column = ((column + (TABLE - COLUMNS) // 2) / unit).double()
    each = HEADS * HEAD_DIM // 6
    table = torch.cat([waves(x.flatten().double(), each)
                       for x in (column, row, view)], -1)
    table = F.pad(table, (0, HEADS * HEAD_DIM - table.shape[-1]))
    return table.reshape(VIEWS * ROWS, COLUMNS, -1)


class Streams:
    """Parameters by name, those that are not given made when they are asked for
    first."""

    def __init__(self, parameters=None):
        self.parameters = parameters or {}

    def get(self, name, *shape):
        if name not in self.parameters:
            fan_in = shape[-1] if len(shape) > 1 else 1
            self.parameters[name] = normal(
                *shape, stddev=min(0.5, fan_in**-0.5)).requires_grad_()
        return self.parameters[name]

    def linear(self, name, x, out):
        return F.linear(x, self.get(name + ".weight", out, x.shape[-1]),
                        self.get(name + ".bias", out))

    def parts(self, name, x, parts):
        """Several linears side by side: [parts, h, h]."""
        h = x.shape[-1]
        weight = self.get(name + ".weight", parts, h, h)
        bias = self.get(name + ".bias", parts, h)
        return [F.linear(x, weight[i], bias[i]) for i in range(parts)]

    def mlp(self, name, x):
        h = HEADS * HEAD_DIM
        return self.linear(name + ".out",
                           F.silu(self.linear(name + ".in", x, h)), h)

    def heads(self, name, x, shift, scale):
        """Queries, keys and values [b, heads, tokens, head_dim]."""
        q, k, v = (part.unflatten(-1, (HEADS, HEAD_DIM)).transpose(1, 2)
                   for part in self.parts(name + ".attention.qkv",
                                          modulated(x, shift, scale), 3))
        for norm in ("q_norm", "k_norm"):
            weight = self.get(f"{name}.attention.{norm}.weight", HEAD_DIM)
            if norm == "q_norm":
                q = F.rms_norm(q, (HEAD_DIM,), weight, 1e-6)
            else:
                k = F.rms_norm(k, (HEAD_DIM,), weight, 1e-6)
        return q, k, v

    def forward(self, x, sigmas, text, pooled):
        """x [b, views, tokens, channels], likewise the result."""
        h = HEADS * HEAD_DIM
        table = positions().reshape(VIEWS, ROWS * COLUMNS, h)
        tokens = self.linear("patch_embedding", x, h) + table
        streams = list(tokens.unbind(1))
        c = self.mlp("time_embedding", Sinusoids()(1000 * sigmas))
        c = F.silu(c + self.mlp("pooled_embedding", pooled))
        words = self.linear("text_embedding", text, h)
        names = [f"views.{v}" for v in range(VIEWS)] + ["text"]
        for i in range(2):
            last = i == 1
            streams.append(words)
            modulations, attended = [], []
            for name, stream in zip(names, streams):
                parts = 2 if last and name == "text" else 6
                own = self.parts(f"blocks.{i}.{name}.modulation", c, parts)
                modulations.append([part[:, None] for part in own])
                attended.append(self.heads(f"blocks.{i}.{name}", stream,
                                           *modulations[-1][:2]))
            out = F.scaled_dot_product_attention(
                *(torch.cat(part, 2) for part in zip(*attended)))
            out = out.transpose(1, 2).flatten(2)
            out = out.split([s.shape[1] for s in streams], 1)
            for s, name in enumerate(names):
                if last and name == "text":
                    continue
                _, _, gate, shift, scale, mlp_gate = modulations[s]
                name = f"blocks.{i}.{name}"
                y = streams[s] + gate * self.linear(name + ".attention.out",
                                                    out[s], h)
                inner = self.linear(name + ".mlp.in",
                                    modulated(y, shift, scale), 4 * h)
                streams[s] = y + mlp_gate * self.linear(
                    name + ".mlp.out", F.gelu(inner, approximate="tanh"), h)
            words = streams.pop()
        shift, scale = self.parts("final.modulation", c, 2)
        y = modulated(torch.stack(streams, 1).flatten(1, 2), shift[:, None],
                      scale[:, None])
        return self.linear("final.linear", y, x.shape[-1]).unflatten(
            1, (VIEWS, -1))


def modulated(x, shift, scale):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift


def patches(x):
    """[b, views, tokens, row·column·channel] of [b, c, views·h, w]."""
    x = x.reshape(BATCH, CHANNELS, VIEWS, ROWS, PATCH, COLUMNS, PATCH)
    return x.permute(0, 2, 3, 5, 4, 6, 1).reshape(BATCH, VIEWS, ROWS * COLUMNS,
                                                  -1)


def pictures(tokens):
    x = tokens.reshape(BATCH, VIEWS, ROWS, COLUMNS, PATCH, PATCH, CHANNELS)
    return x.permute(0, 6, 1, 2, 4, 3, 5).reshape(
        BATCH, CHANNELS, VIEWS * ROWS * PATCH, COLUMNS * PATCH)


def make_model():
    """The variant `views`, with the weights of its class."""
    side = VIEWS * ROWS
    model = SD3Transformer2DModel(
        sample_size=PATCH * side, patch_size=PATCH, in_channels=CHANNELS,
        out_channels=CHANNELS, num_layers=2, attention_head_dim=HEAD_DIM,
        num_attention_heads=HEADS, joint_attention_dim=TEXT_WIDTH,
        caption_projection_dim=HEADS * HEAD_DIM,
        pooled_projection_dim=POOLED_WIDTH, pos_embed_max_size=side).double()
    model.time_text_embed.time_proj = Sinusoids()
    # The columns that a picture of so few is cut from.
    table = torch.zeros(side, side, HEADS * HEAD_DIM).double()
    left = (side - COLUMNS) // 2
    table[:, left:left + COLUMNS] = positions()
    model.pos_embed.pos_embed = table.reshape(1, side * side, -1)
    return model


def main():
    model = make_model()
    side = VIEWS * ROWS
    for name, parameter in model.named_parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
        parameter.data = normal(*parameter.shape,
                                stddev=min(0.5, fan_in**-0.5))
    x, target = (normal(BATCH, CHANNELS, PATCH * side, PATCH * COLUMNS)
                 for _ in range(2))
    sigmas = torch.tensor([0.125, 0.96875]).double()
    text = normal(BATCH, TEXT_TOKENS, TEXT_WIDTH)
    pooled = normal(BATCH, POOLED_WIDTH)
    y = model(hidden_states=x, encoder_hidden_states=text,
              pooled_projections=pooled, timestep=1000 * sigmas).sample
    loss = F.mse_loss(y, target)
    loss.backward()
    store("inputs", x=x, sigmas=sigmas, text=text, pooled=pooled,
          target=target)
    store("views", y=y, loss=loss.reshape(1))
    store("views.weights", **dict(model.named_parameters()))
    store("views.grad",
          **{name: torch.zeros_like(p) if p.grad is None else p.grad
             for name, p in model.named_parameters()})
    streams = Streams()
    y = pictures(streams.forward(patches(x), sigmas, text, pooled))
    loss = F.mse_loss(y, target)
    loss.backward()
    store("streams", y=y, loss=loss.reshape(1))
    store("streams.weights", **streams.parameters)
    store("streams.grad",
          **{name: p.grad for name, p in streams.parameters.items()})
    here = pathlib.Path(__file__).parent
    write(pathlib.Path(sys.argv[1]) if sys.argv[1:] else here /
          "mmdit_views.safetensors")


if __name__ == "__main__":
    main()
