"""Writes mmdit_views.safetensors: a tiny MMDiT over several views of a thing,
which attend to each other, with loss and gradients, as SplatFlow has it.

  python3 generate_mmdit_views.py [OUTPUT]

Needs PyTorch and diffusers. Views one under another are a tall picture of
SD3Transformer2DModel, whose table of positions holds sines and cosines of a
patch's view, row and column. Names as in generate_mmdit.py.
"""

import pathlib
import sys

import torch
import torch.nn.functional as F
from diffusers import SD3Transformer2DModel

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
GENERATOR = torch.Generator().manual_seed(20240403)


def normal(*shape, stddev=1.0):
    """fp64 with values that fp32 holds."""
    values = torch.randn(*shape, generator=GENERATOR) * stddev
    return values.float().double()


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


def main():
    side = VIEWS * ROWS
    model = SD3Transformer2DModel(
        sample_size=PATCH * side, patch_size=PATCH, in_channels=CHANNELS,
        out_channels=CHANNELS, num_layers=2, attention_head_dim=HEAD_DIM,
        num_attention_heads=HEADS, joint_attention_dim=TEXT_WIDTH,
        caption_projection_dim=HEADS * HEAD_DIM,
        pooled_projection_dim=POOLED_WIDTH, pos_embed_max_size=side).double()
    model.time_text_embed.time_proj = Sinusoids()
    for name, parameter in model.named_parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
        parameter.data = normal(*parameter.shape,
                                stddev=min(0.5, fan_in**-0.5))
    # The columns that a picture of so few is cut from.
    table = torch.zeros(side, side, HEADS * HEAD_DIM).double()
    left = (side - COLUMNS) // 2
    table[:, left:left + COLUMNS] = positions()
    model.pos_embed.pos_embed = table.reshape(1, side * side, -1)
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
    here = pathlib.Path(__file__).parent
    write(pathlib.Path(sys.argv[1]) if sys.argv[1:] else here /
          "mmdit_views.safetensors")


if __name__ == "__main__":
    main()
