"""Writes dora.safetensors: linear layers with PEFT's DoRA adapters, what they
make and the gradients of it.

  python3 generate_dora.py [OUTPUT]

Needs PyTorch and PEFT. `plain` is one layer, `q`, `k` and `v` are layers of one
input, `sum` is a layer of two inputs side by side. Of each: its `weight`,
`bias`, and the adapter's `a`, `b` and `magnitude`; its result `y` for the input,
and the gradients of Σ slope·y. The layers run in fp64, results are rounded to
fp32.
"""

import pathlib
import sys

import peft
import torch

from drawn import Normal
from generate import store, write

normal = Normal(20240901)
RANK, ALPHA = 2, 3
TOKENS, IN, SIDE, OUT = 7, 6, 4, 5
LAYERS = {"plain": IN, "q": IN, "k": IN, "v": IN, "sum": IN + SIDE}


class Layers(torch.nn.Module):
    def __init__(self):
        super().__init__()
        for name, width in LAYERS.items():
            setattr(self, name, torch.nn.Linear(width, OUT))


def main():
    layers = Layers().double()
    for parameter in layers.parameters():
        parameter.data = normal(*parameter.shape, stddev=0.5)
    model = peft.inject_adapter_in_model(
        peft.LoraConfig(r=RANK, lora_alpha=ALPHA, use_dora=True,
                        target_modules=list(LAYERS)), layers).double()
    state = peft.get_peft_model_state_dict(model)
    assert "plain.lora_magnitude_vector" in state, state.keys()
    x = normal(2, TOKENS, IN).requires_grad_()
    side = normal(2, TOKENS, SIDE).requires_grad_()
    store("inputs", x=x, side=side)
    for name in LAYERS:
        layer = getattr(model, name)
        adapter = {"a": layer.lora_A["default"].weight,
                   "b": layer.lora_B["default"].weight,
                   "magnitude": layer.lora_magnitude_vector["default"].weight}
        # They start as the norms of the weight's rows.
        start = layer.get_base_layer().weight.norm(dim=1)
        assert torch.allclose(adapter["magnitude"], start, rtol=1e-6)
        for parameter in adapter.values():
            parameter.data = normal(*parameter.shape)
        inputs = [x, side] if name == "sum" else [x]
        y = layer(torch.cat(inputs, dim=-1))
        slope = normal(*y.shape)
        gradients = torch.autograd.grad(
            y, list(adapter.values()) + inputs, slope)
        names = list(adapter) + ["x", "side"][:len(inputs)]
        store(name, weight=layer.get_base_layer().weight,
              bias=layer.get_base_layer().bias, y=y, slope=slope, **adapter,
              **{f"grad_{n}": g for n, g in zip(names, gradients)})
    here = pathlib.Path(__file__).parent
    write(pathlib.Path(sys.argv[1]) if sys.argv[1:] else here /
          "dora.safetensors")


if __name__ == "__main__":
    main()
