"""Writes hidream.safetensors: a tiny HiDream-I1 of diffusers, with its losses
and gradients.

  python3 generate_hidream.py [OUTPUT]

Needs PyTorch and diffusers. Inputs and outputs are pictures [b, c, h, w];
`weights.NAME` are the tensors of HiDreamImageTransformer2DModel's state, `y` is
its prediction, `loss` the mean squared error of −y plus `balance_loss`, and
`grad.NAME` the gradients of that sum. The balance loss is that of the class's
gates with seq_aux, α Σ over experts of f·P for each sample, averaged over samples
and summed over layers, of the tokens that the model goes on with: the gates also
see those of the language model, whose results nobody reads. The model runs in
fp64 and results are rounded to fp32; the sinusoids of times are made in fp64, too
(see generate_mmdit.py).
"""

import pathlib
import sys

import torch
import torch.nn.functional as F
from diffusers import HiDreamImageTransformer2DModel

from drawn import Normal
from generate import store, write
from sinusoids import Sinusoids

BATCH, CHANNELS, SIDE, PATCH = 2, 2, 6, 2
TOKENS = (SIDE // PATCH)**2
HEADS, AXES = 2, (2, 2, 2)
DUAL, SINGLE, EXPERTS, TOP_K = 1, 2, 3, 2
TEXT_TOKENS, TEXT_WIDTH, POOLED_WIDTH = 3, 6, 5
LAYERS, LAYER_TOKENS, LAYER_WIDTH = 2, 2, 4
ALPHA = 0.5
normal = Normal(20240402)


def balance_loss(x, weight):
    """Of the tokens x [b, t, h]."""
    scores = F.linear(x, weight).softmax(-1)
    chosen = scores.topk(TOP_K).indices.flatten(1)
    counts = torch.stack([row.bincount(minlength=EXPERTS) for row in chosen])
    shares = counts / (x.shape[1] * TOP_K / EXPERTS)
    return ALPHA * (shares * scores.mean(1)).sum(1).mean()


def make_model():
    model = HiDreamImageTransformer2DModel(
        patch_size=PATCH, in_channels=CHANNELS, out_channels=CHANNELS,
        num_layers=DUAL, num_single_layers=SINGLE,
        attention_head_dim=sum(AXES), num_attention_heads=HEADS,
        caption_channels=[TEXT_WIDTH, LAYER_WIDTH], text_emb_dim=POOLED_WIDTH,
        num_routed_experts=EXPERTS, num_activated_experts=TOP_K,
        axes_dims_rope=AXES, max_resolution=(SIDE, SIDE),
        llama_layers=[0, 1, 1]).double().train()
    model.t_embedder.time_proj = Sinusoids()
    return model


def evaluate(model, x, sigmas, text, layers, pooled, target):
    """Prediction, loss and what of it is the balance loss."""
    routed = []
    hooks = [
        block.block.ff_i.gate.register_forward_pre_hook(
            lambda gate, inputs: routed.append((inputs[0], gate.weight)))
        for block in [*model.double_stream_blocks,
                      *model.single_stream_blocks]
    ]
    y = model(hidden_states=x, timesteps=1000 * sigmas,
              encoder_hidden_states_t5=text,
              encoder_hidden_states_llama3=layers, pooled_embeds=pooled).sample
    for hook in hooks:
        hook.remove()
    side = SIDE // PATCH
    y = y.reshape(BATCH, CHANNELS, side, side, PATCH, PATCH)
    y = y.permute(0, 1, 2, 4, 3, 5).reshape(x.shape)
    carried = TOKENS + TEXT_TOKENS + LAYER_TOKENS
    kept = [TOKENS] * DUAL + [carried] * (SINGLE - 1) + [TOKENS]
    balance = sum(balance_loss(tokens[:, :count], weight)
                  for (tokens, weight), count in zip(routed, kept))
    return y, F.mse_loss(-y, target) + balance, balance


def main():
    model = make_model()
    # As far from their starts as training takes them: zeros would hide what
    # they multiply.
    for name, parameter in model.named_parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
        noise = normal(*parameter.shape, stddev=min(0.5, fan_in**-0.5))
        parameter.data = (1 + noise / 3).float().double() \
            if "rms_norm" in name else noise
    x, target = (normal(BATCH, CHANNELS, SIDE, SIDE) for _ in range(2))
    sigmas = torch.tensor([0.125, 0.96875]).double()
    text = normal(BATCH, TEXT_TOKENS, TEXT_WIDTH)
    layers = normal(LAYERS, BATCH, LAYER_TOKENS, LAYER_WIDTH)
    pooled = normal(BATCH, POOLED_WIDTH)
    y, loss, balance = evaluate(model, x, sigmas, text, layers, pooled, target)
    loss.backward()
    store("inputs", x=x, sigmas=sigmas, text=text, pooled=pooled, target=target)
    store("inputs", **{f"layer{i}": layers[i] for i in range(LAYERS)})
    store("hidream", y=y, loss=loss.reshape(1),
          balance_loss=balance.reshape(1))
    store("hidream.weights", **model.state_dict())
    # Of a part that the output does not depend on there is none.
    store("hidream.grad",
          **{name: torch.zeros_like(p) if p.grad is None else p.grad
             for name, p in model.named_parameters()})
    here = pathlib.Path(__file__).parent
    write(pathlib.Path(sys.argv[1]) if sys.argv[1:] else here /
          "hidream.safetensors")


if __name__ == "__main__":
    main()
