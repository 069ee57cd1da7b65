"""Writes dit_diffusers.safetensors: a tiny DiT of diffusers, with loss and
gradients.

  python3 generate_dit_diffusers.py [OUTPUT]

Needs PyTorch and diffusers. Inputs are square pictures [b, c, side, side], of
another size than the model is made for, whose positions diffusers stretches.
`dit.weights.NAME` are the tensors of the model's state, `dit.y` is the
prediction, of twice the channels, `dit.loss` its mean squared error and
`dit.grad.NAME` the gradients.
The model runs in fp64 and results are rounded to fp32; the sinusoids of times,
which diffusers makes in fp32, are made in fp64, too.
"""

import pathlib
import sys

import torch
import torch.nn.functional as F
from diffusers import DiTTransformer2DModel

from drawn import Normal
from generate import store, write
from sinusoids import Sinusoids

BATCH, CHANNELS, SIDE, CLASSES = 2, 2, 6, 3
normal = Normal(20240501)


def main():
    model = DiTTransformer2DModel(
        num_attention_heads=2, attention_head_dim=4, in_channels=CHANNELS,
        out_channels=2 * CHANNELS, num_layers=2, sample_size=4, patch_size=2,
        num_embeds_ada_norm=CLASSES)
    # In training it would drop classes.
    model = model.double().eval()
    for block in model.transformer_blocks:
        block.norm1.emb.time_proj = Sinusoids(downscale=1)
    # As far from their starts as training takes them: zeros would hide what
    # they multiply.
    for parameter in model.parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
        parameter.data = normal(*parameter.shape,
                                stddev=min(0.5, fan_in**-0.5))
    x = normal(BATCH, CHANNELS, SIDE, SIDE)
    target = normal(BATCH, 2 * CHANNELS, SIDE, SIDE)
    times = torch.tensor([125.0, 968.75]).double()
    # The last is that of no class.
    labels = torch.tensor([1, CLASSES])
    y = model(x, timestep=times, class_labels=labels).sample
    loss = F.mse_loss(y, target)
    loss.backward()
    store("inputs", x=x, target=target, sigmas=times / 1000,
          labels=labels.int())
    store("dit", y=y, loss=loss.reshape(1))
    store("dit.weights", **model.state_dict())
    store("dit.grad", **{name: p.grad for name, p in model.named_parameters()})
    here = pathlib.Path(__file__).parent
    write(pathlib.Path(sys.argv[1]) if sys.argv[1:] else here /
          "dit_diffusers.safetensors")


if __name__ == "__main__":
    main()
