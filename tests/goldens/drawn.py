"""Numbers and weights that are drawn from a seed, and the layers that read them:
what generators here have in common."""

import torch
import torch.nn.functional as F


class Normal:
    """fp64 with values that fp32 holds."""

    def __init__(self, seed):
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, *shape, stddev=1.0):
        values = torch.randn(*shape, generator=self.generator) * stddev
        return values.float().double()


class Weights(dict):
    """By name, as far from their starts as training takes them."""

    def __init__(self, normal):
        super().__init__()
        self.normal = normal

    def linear(self, name, inputs, outputs, bias=True):
        self[f"{name}.weight"] = self.normal(outputs, inputs,
                                             stddev=inputs**-0.5)
        if bias:
            self[f"{name}.bias"] = self.normal(outputs, stddev=0.5)

    def norm(self, name, width, bias=True):
        self[f"{name}.weight"] = (1 + self.normal(width) / 3).float().double()
        if bias:
            self[f"{name}.bias"] = self.normal(width, stddev=0.5)

    def learnt(self):
        return {name: w.requires_grad_() for name, w in self.items()}


class Layers:

    def __init__(self, weights):
        self.weights = weights

    def linear(self, name, x):
        return F.linear(x, self.weights[f"{name}.weight"],
                        self.weights.get(f"{name}.bias"))

    def layer_norm(self, name, x):
        return F.layer_norm(x, x.shape[-1:], self.weights[f"{name}.weight"],
                            self.weights[f"{name}.bias"], 1e-5)

    def interleaved_heads(self, name, x, parts, heads):
        """The products of `parts`, cut into heads first and parts then."""
        rows = torch.cat([self.linear(f"{name}.{part}", x) for part in parts],
                         -1)
        rows = rows.unflatten(-1, (heads, len(parts), -1))
        return [rows[..., i, :].transpose(1, 2) for i in range(len(parts))]
