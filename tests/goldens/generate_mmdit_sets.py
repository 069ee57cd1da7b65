"""Writes mmdit_sets.safetensors: a tiny MMDiT over a set of tokens, with loss
and gradients, as Pandora3D's geometry has it.

  python3 generate_mmdit_sets.py [OUTPUT]

Needs PyTorch and diffusers. A set of tokens is a picture of one column and
patches of 1 of SD3Transformer2DModel, whose table of positions holds sines and
cosines of a token's number. Names as in generate_mmdit.py.
"""

import pathlib
import sys

import torch
import torch.nn.functional as F
from diffusers import SD3Transformer2DModel

from drawn import Normal
from generate import store, write
from sinusoids import Sinusoids

BATCH, CHANNELS, TOKENS = 2, 3, 6
HEADS, HEAD_DIM = 2, 8
TEXT_TOKENS, TEXT_WIDTH, POOLED_WIDTH = 3, 6, 5
normal = Normal(20240402)


def positions():
    half = HEADS * HEAD_DIM // 2
    angles = torch.arange(TOKENS)[:, None].double() * 10000.0**(
        -torch.arange(half).double() / half)
    return torch.cat([angles.sin(), angles.cos()], -1)


def make_model():
    """With the weights of its class."""
    model = SD3Transformer2DModel(
        sample_size=TOKENS, patch_size=1, in_channels=CHANNELS,
        out_channels=CHANNELS, num_layers=2, attention_head_dim=HEAD_DIM,
        num_attention_heads=HEADS, joint_attention_dim=TEXT_WIDTH,
        caption_projection_dim=HEADS * HEAD_DIM,
        pooled_projection_dim=POOLED_WIDTH, pos_embed_max_size=TOKENS).double()
    model.time_text_embed.time_proj = Sinusoids()
    # The column that a picture of one is cut from.
    table = torch.zeros(TOKENS, TOKENS, HEADS * HEAD_DIM).double()
    table[:, (TOKENS - 1) // 2] = positions()
    model.pos_embed.pos_embed = table.reshape(1, TOKENS * TOKENS, -1)
    return model


def predict(model, x, sigmas, text, pooled):
    """x [b, tokens, channels], likewise the result."""
    return model(hidden_states=x.transpose(1, 2)[..., None],
                 encoder_hidden_states=text, pooled_projections=pooled,
                 timestep=1000 * sigmas).sample[..., 0].transpose(1, 2)


def main():
    model = make_model()
    for name, parameter in model.named_parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
        parameter.data = normal(*parameter.shape,
                                stddev=min(0.5, fan_in**-0.5))
    x, target = (normal(BATCH, TOKENS, CHANNELS) for _ in range(2))
    sigmas = torch.tensor([0.125, 0.96875]).double()
    text = normal(BATCH, TEXT_TOKENS, TEXT_WIDTH)
    pooled = normal(BATCH, POOLED_WIDTH)
    y = predict(model, x, sigmas, text, pooled)
    loss = F.mse_loss(y, target)
    loss.backward()
    store("inputs", x=x, sigmas=sigmas, text=text, pooled=pooled,
          target=target)
    store("set", y=y, loss=loss.reshape(1))
    store("set.weights", **dict(model.named_parameters()))
    store("set.grad",
          **{name: torch.zeros_like(p) if p.grad is None else p.grad
             for name, p in model.named_parameters()})
    here = pathlib.Path(__file__).parent
    write(pathlib.Path(sys.argv[1]) if sys.argv[1:] else here /
          "mmdit_sets.safetensors")


if __name__ == "__main__":
    main()
