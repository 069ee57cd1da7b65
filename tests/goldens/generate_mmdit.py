"""Writes mmdit.safetensors: tiny MMDiTs of diffusers, with loss and gradients.

  python3 generate_mmdit.py [OUTPUT]

Needs PyTorch and diffusers. Three variants:

  sd3     SD3Transformer2DModel as Stable Diffusion 3 medium has it
  sd35    the same with norms of queries and keys and, in its first block, the
          picture's second attention, as Stable Diffusion 3.5 medium
  flux    FluxTransformer2DModel with guidance, as FLUX.1-dev

Inputs and outputs are pictures [b, c, h, w], packed for FLUX as its pipeline
does it. `VARIANT.weights.NAME` are the tensors of its state, `VARIANT.y` is the
prediction, `VARIANT.loss` its mean squared error and `VARIANT.grad.NAME` the
gradients. Models run in fp64 and results are rounded to fp32; the sinusoids of
times, which diffusers makes in fp32 whatever the model's type, are made in fp64,
too: an angle of 1000 has an error of 6e-5 otherwise.
"""

import pathlib
import sys

import torch
import torch.nn.functional as F
from diffusers import FluxTransformer2DModel, SD3Transformer2DModel

from drawn import Normal
from generate import store, write
from sinusoids import Sinusoids

BATCH, CHANNELS, HEIGHT, WIDTH, PATCH = 2, 2, 4, 6, 2
ROWS, COLUMNS = HEIGHT // PATCH, WIDTH // PATCH
HEADS, HEAD_DIM = 2, 8
TEXT_TOKENS, TEXT_WIDTH, POOLED_WIDTH = 3, 6, 5
normal = Normal(20240401)


def sd3(**options):
    return SD3Transformer2DModel(
        sample_size=8, patch_size=PATCH, in_channels=CHANNELS,
        out_channels=CHANNELS, num_layers=2, attention_head_dim=HEAD_DIM,
        num_attention_heads=HEADS, joint_attention_dim=TEXT_WIDTH,
        caption_projection_dim=HEADS * HEAD_DIM,
        pooled_projection_dim=POOLED_WIDTH, pos_embed_max_size=6, **options)


def flux():
    return FluxTransformer2DModel(
        patch_size=1, in_channels=CHANNELS * PATCH * PATCH, num_layers=1,
        num_single_layers=2, attention_head_dim=HEAD_DIM,
        num_attention_heads=HEADS, joint_attention_dim=TEXT_WIDTH,
        pooled_projection_dim=POOLED_WIDTH, guidance_embeds=True,
        axes_dims_rope=(4, 2, 2))


def predict_sd3(model, x, sigmas, text, pooled, guidance):
    return model(hidden_states=x, encoder_hidden_states=text,
                 pooled_projections=pooled, timestep=1000 * sigmas).sample


def predict_flux(model, x, sigmas, text, pooled, guidance):
    packed = x.view(BATCH, CHANNELS, ROWS, PATCH, COLUMNS, PATCH)
    packed = packed.permute(0, 2, 4, 1, 3, 5).reshape(BATCH, ROWS * COLUMNS, -1)
    grid = torch.cartesian_prod(torch.arange(ROWS), torch.arange(COLUMNS))
    image_ids = torch.cat([torch.zeros(ROWS * COLUMNS, 1), grid], 1)
    y = model(hidden_states=packed, encoder_hidden_states=text,
              pooled_projections=pooled, timestep=sigmas, guidance=guidance,
              img_ids=image_ids, txt_ids=torch.zeros(TEXT_TOKENS, 3)).sample
    y = y.view(BATCH, ROWS, COLUMNS, CHANNELS, PATCH, PATCH)
    return y.permute(0, 3, 1, 4, 2, 5).reshape(x.shape)


def main():
    inputs = {"x": normal(BATCH, CHANNELS, HEIGHT, WIDTH),
              "sigmas": torch.tensor([0.125, 0.96875]).double(),
              "text": normal(BATCH, TEXT_TOKENS, TEXT_WIDTH),
              "pooled": normal(BATCH, POOLED_WIDTH),
              "guidance": torch.tensor([2.5, 2.5]).double()}
    target = normal(BATCH, CHANNELS, HEIGHT, WIDTH)
    store("inputs", **inputs, target=target)
    variants = {
        "sd3": (sd3(), predict_sd3),
        "sd35": (sd3(qk_norm="rms_norm", dual_attention_layers=(0,)),
                 predict_sd3),
        "flux": (flux(), predict_flux),
    }
    for variant, (model, predict) in variants.items():
        model = model.double()
        model.time_text_embed.time_proj = Sinusoids()
        # As far from their starts as training takes them: zeros would hide
        # what they multiply.
        for name, parameter in model.named_parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
            noise = normal(*parameter.shape, stddev=min(0.5, fan_in**-0.5))
            is_norm = parameter.dim() == 1 and ".norm_" in name
            parameter.data = (1 + noise / 3).float().double() if is_norm \
                else noise
        y = predict(model, **inputs)
        loss = F.mse_loss(y, target)
        loss.backward()
        store(variant, y=y, loss=loss.reshape(1))
        store(f"{variant}.weights", **model.state_dict())
        # Of a part that the output does not depend on there is none.
        store(f"{variant}.grad",
              **{name: torch.zeros_like(p) if p.grad is None else p.grad
                 for name, p in model.named_parameters()})
    here = pathlib.Path(__file__).parent
    write(pathlib.Path(sys.argv[1]) if sys.argv[1:] else here /
          "mmdit.safetensors")


if __name__ == "__main__":
    main()
