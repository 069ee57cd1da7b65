"""diffusers' FluxTransformer2DModel as an MMDiT's peer, unless it is told
otherwise at the sizes of //tools/bench: 256 tokens of 2x2 patches of 16
channels, 64 tokens of text."""

import math
import typing


class Sizes(typing.NamedTuple):
    hidden: int = 512
    heads: int = 8
    dual: int = 4
    single: int = 8
    # Patches along a side, and channels of one.
    grid: int = 16
    channels: int = 64
    text_tokens: int = 64
    text_width: int = 1024
    pooled_width: int = 512
    rope_axes: tuple = (8, 28, 28)
    batch: int = 4


def batch(sizes):
    """Samples as packed patches, and what conditions them."""
    import torch
    return (torch.randn(sizes.batch, sizes.grid * sizes.grid, sizes.channels),
            torch.randn(sizes.batch, sizes.text_tokens, sizes.text_width),
            torch.randn(sizes.batch, sizes.pooled_width))


def predict(model, noisy, t, text, pooled):
    import torch
    grid = math.isqrt(noisy.shape[1])
    places = torch.zeros(grid, grid, 3)
    places[..., 1] = torch.arange(grid)[:, None]
    places[..., 2] = torch.arange(grid)
    return model(hidden_states=noisy, encoder_hidden_states=text.to(noisy.dtype),
                 pooled_projections=pooled.to(noisy.dtype), timestep=t,
                 img_ids=places.reshape(-1, 3),
                 txt_ids=torch.zeros(text.shape[1], 3), return_dict=False)[0]


def build(sizes):
    from diffusers import FluxTransformer2DModel
    return FluxTransformer2DModel(
        patch_size=1, in_channels=sizes.channels, num_layers=sizes.dual,
        num_single_layers=sizes.single,
        attention_head_dim=sizes.hidden // sizes.heads,
        num_attention_heads=sizes.heads, joint_attention_dim=sizes.text_width,
        pooled_projection_dim=sizes.pooled_width, guidance_embeds=False,
        axes_dims_rope=sizes.rope_axes)
