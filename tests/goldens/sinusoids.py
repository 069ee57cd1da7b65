"""The sinusoids of times of diffusers' models, made in fp64."""

import torch


class Sinusoids(torch.nn.Module):
    """As Timesteps of diffusers, cosines first; the caller rounds to its type.

    downscale: its downscale_freq_shift, 1 for DiT's.
    """

    def __init__(self, downscale=0):
        super().__init__()
        self.downscale = downscale

    def forward(self, times):
        frequencies = 10000.0**(-torch.arange(128).double()
                                / (128 - self.downscale))
        angles = times[:, None].double() * frequencies
        return torch.cat([angles.cos(), angles.sin()], -1)
