"""diffusers' FluxTransformer2DModel at the sizes that //tools/bench trains an
MMDiT at: hidden 512, 8 heads, 4 dual and 8 single blocks, 256 tokens of 2x2
patches of 16 channels, 64 tokens of text, batch 4."""

HIDDEN, HEADS, DUAL, SINGLE, GRID, CHANNELS = 512, 8, 4, 8, 16, 64
TEXT_TOKENS, TEXT_WIDTH, POOLED_WIDTH = 64, 1024, 512
BATCH = 4


def batch():
    """Samples as packed patches, and what conditions them."""
    import torch
    return (torch.randn(BATCH, GRID * GRID, CHANNELS),
            torch.randn(BATCH, TEXT_TOKENS, TEXT_WIDTH),
            torch.randn(BATCH, POOLED_WIDTH))


def predict(model, noisy, t, text, pooled):
    import torch
    places = torch.zeros(GRID, GRID, 3)
    places[..., 1] = torch.arange(GRID)[:, None]
    places[..., 2] = torch.arange(GRID)
    return model(hidden_states=noisy, encoder_hidden_states=text.to(noisy.dtype),
                 pooled_projections=pooled.to(noisy.dtype), timestep=t,
                 img_ids=places.reshape(-1, 3),
                 txt_ids=torch.zeros(TEXT_TOKENS, 3), return_dict=False)[0]


def build():
    from diffusers import FluxTransformer2DModel
    return FluxTransformer2DModel(
        patch_size=1, in_channels=CHANNELS, num_layers=DUAL,
        num_single_layers=SINGLE, attention_head_dim=HIDDEN // HEADS,
        num_attention_heads=HEADS, joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=POOLED_WIDTH, guidance_embeds=False,
        axes_dims_rope=(8, 28, 28))
