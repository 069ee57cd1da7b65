"""Writes autoencoder.safetensors: tiny autoencoders of diffusers, with what they
make of pictures and latents.

  python3 generate_autoencoder.py [OUTPUT]

Needs PyTorch and diffusers. `sd` has products by pixel beside its halves, as
Stable Diffusion has them; `flux` has none, as FLUX.1 and Stable Diffusion 3,
and more levels. `weights.NAME` are the tensors of AutoencoderKL's state, `mean`
and `log_variance` what it makes of `pictures`, `decoded` what it makes of
`latents`. The models run in fp64 and results are rounded to fp32.
"""

import pathlib
import sys

import torch
from diffusers import AutoencoderKL

from drawn import Normal
from generate import store, write

normal = Normal(20240503)
VARIANTS = {
    "sd": dict(block_out_channels=(4, 6), latent_channels=2, layers_per_block=2,
               use_quant_conv=True, use_post_quant_conv=True),
    "flux": dict(block_out_channels=(2, 4, 4), latent_channels=3,
                 layers_per_block=1, use_quant_conv=False,
                 use_post_quant_conv=False),
}
HEIGHT, WIDTH = 8, 12


def main():
    for name, arguments in VARIANTS.items():
        levels = len(arguments["block_out_channels"])
        model = AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * levels,
            up_block_types=("UpDecoderBlock2D",) * levels, norm_num_groups=2,
            **arguments).double().eval()
        for parameter_name, parameter in model.named_parameters():
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
            noise = normal(*parameter.shape, stddev=min(0.5, fan_in**-0.5))
            is_norm = "norm" in parameter_name and "weight" in parameter_name
            parameter.data = (1 + noise / 3).float().double() \
                if is_norm else noise
        reduction = 2**(levels - 1)
        pictures = normal(2, 3, HEIGHT, WIDTH, stddev=0.5)
        latents = normal(2, arguments["latent_channels"], HEIGHT // reduction,
                         WIDTH // reduction)
        with torch.no_grad():
            posterior = model.encode(pictures).latent_dist
            decoded = model.decode(latents).sample
        store(name, pictures=pictures, latents=latents, mean=posterior.mean,
              log_variance=posterior.logvar, decoded=decoded)
        store(name + ".weights", **model.state_dict())
    here = pathlib.Path(__file__).parent
    write(pathlib.Path(sys.argv[1]) if sys.argv[1:] else here /
          "autoencoder.safetensors")


if __name__ == "__main__":
    main()
