"""The sinusoids of times of diffusers' models, made in fp64."""

import torch


class Sinusoids(torch.nn.Module):
    """As Timesteps of diffusers, cosines first; the caller rounds to its type."""

    def forward(self, times):
        frequencies = 10000.0**(-torch.arange(128).double() / 128)
        angles = times[:, None].double() * frequencies
        return torch.cat([angles.cos(), angles.sin()], -1)
