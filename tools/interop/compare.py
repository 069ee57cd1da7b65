"""Compares Trireme with diffusers, and transformers' SwinV2, on tiny models drawn
from a seed.

  compare.py TRIREME [--seed N] [--cases N] [--family NAME] [--keep FOLDER]

For each configuration diffusers makes weights, inputs, outputs and gradients;
then

  outputs     `trireme forward` on the folder, on one rank and under a random
              plan of up to 4 ranks, within 1e-5
  gradients   of every parameter and every input of states, within 1e-4
  round trip  the folder converted to a run and back, and folder to folder,
              equal byte for byte
  back        what Trireme wrote, loaded by diffusers, gives the same
  adapters    low-rank ones that PEFT added, read by `trireme convert`, compute
              the same; written again, they are equal and diffusers loads them

Of autoencoders the outputs of encoder and decoder.

An error is the norm of the difference over the norm of diffusers' tensor; of a
gradient over at least 1e-3 of what an average tensor of its size has. What the
true gradient of is 0 (zero_gradients), of which either computes the rounding of
its summands, is measured by another gradient, whose summands are of that size.
The sinusoids of times, which diffusers makes of fp32 angles with errors of up
to 6e-5, are made in fp64 there for the comparison. Ends with the worst errors
and a non-zero status if anything is outside.
"""

import argparse
import filecmp
import json
import pathlib
import random
import re
import subprocess
import sys
import tempfile

import torch
from diffusers import (AutoencoderKL, DiTTransformer2DModel,
                       FluxTransformer2DModel, HiDreamImageTransformer2DModel,
                       SD3Transformer2DModel)
from diffusers.loaders import SD3LoraLoaderMixin
from diffusers.training_utils import _collate_lora_metadata
from peft import LoraConfig, get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import Swinv2Config, Swinv2ForImageClassification

sys.path.append(str(pathlib.Path(__file__).resolve().parents[2]
                    / "tests" / "goldens"))
from sinusoids import Sinusoids

OUTPUT_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4
FLOOR = 1e-3
MOST_RANKS = 4


class Case:
    """A model of diffusers, what it is evaluated at, and what comes of it."""

    # Inputs whose gradients are compared.
    states = ("hidden_states", "encoder_hidden_states", "pooled_projections")
    pictures, output = "hidden_states", "sample"
    # Where the model lies in its folder; empty: it is the folder.
    part = "transformer"
    # Whether the ranks of a plan may share a sample's tokens.
    splits_samples = True

    def __init__(self, model, inputs, layers, heads, experts=1):
        self.model, self.inputs = self.prepare(model), inputs
        self.layers, self.heads, self.experts = layers, heads, experts
        self.samples = inputs[self.pictures].shape[0]

    def prepare(self, model):
        model.time_text_embed.time_proj = Sinusoids()
        return model

    def run(self, model, arguments):
        return getattr(model(**arguments), self.output)

    def load(self, folder):
        return self.prepare(type(self.model).from_pretrained(
            folder, **({"subfolder": self.part} if self.part else {})))

    def is_note(self, name):
        """Whether a field of config.json is none of the class's arguments."""
        return name.startswith("_") and name != "_class_name"


class HiDreamCase(Case):
    states = ("hidden_states", "encoder_hidden_states_t5",
              "encoder_hidden_states_llama3", "pooled_embeds")

    def prepare(self, model):
        model.t_embedder.time_proj = Sinusoids()
        # Otherwise its experts are computed without gradients.
        return model.train()

    def run(self, model, arguments):
        """Its output in training, [n, channels, tokens, patch²], as pictures."""
        y = model(**arguments).sample
        patch = model.config.patch_size
        side = arguments["hidden_states"].shape[-1] // patch
        y = y.reshape(*y.shape[:2], side, side, patch, patch)
        return y.permute(0, 1, 2, 4, 3, 5).reshape(
            arguments["hidden_states"].shape)


class DiTCase(Case):
    states = ("hidden_states",)

    def prepare(self, model):
        for block in model.transformer_blocks:
            block.norm1.emb.time_proj = Sinusoids(downscale=1)
        # In training it would drop classes.
        return model.eval()


class SwinCase(Case):
    states = ()
    pictures, output = "pixel_values", "logits"
    part = ""
    splits_samples = False
    notes = ("transformers_version", "encoder_stride", "initializer_range",
             "hidden_size", "num_layers", "out_features", "out_indices",
             "stage_names")

    def prepare(self, model):
        # In training it would leave blocks out.
        return model.eval()

    def is_note(self, name):
        return name in self.notes


def draw_times(n):
    """In [0, 1), and exact in fp32 when multiplied by 1000."""
    return torch.randint(0, 1024, (n,)) / 1024


def draw_heads(rng, widths):
    """How many heads of which width, 8 and more in all: norms over fewer numbers,
    which lie close together by chance, magnify either's rounding."""
    heads = rng.choice([1, 2, 4])
    return heads, max(8 // heads, rng.choice(widths))


def draw_sd3(rng):
    heads, head_dim = draw_heads(rng, [4, 8, 16])
    layers, patch = rng.randint(1, 4), rng.choice([1, 2])
    channels, width, pooled = rng.randint(1, 4), rng.randint(3, 20), \
        rng.randint(3, 20)
    table = rng.randint(4, 8)
    model = SD3Transformer2DModel(
        sample_size=patch * rng.randint(2, 6), patch_size=patch,
        in_channels=channels, out_channels=channels, num_layers=layers,
        attention_head_dim=head_dim, num_attention_heads=heads,
        joint_attention_dim=width, caption_projection_dim=heads * head_dim,
        pooled_projection_dim=pooled, pos_embed_max_size=table,
        dual_attention_layers=tuple(range(rng.randint(0, layers))),
        qk_norm=rng.choice([None, "rms_norm"]))
    n, text = rng.choice([1, 2, 4]), rng.randint(1, 7)
    inputs = {
        "hidden_states": torch.randn(n, channels, patch * rng.randint(1, table),
                                     patch * rng.randint(1, table)),
        "encoder_hidden_states": torch.randn(n, text, width),
        "pooled_projections": torch.randn(n, pooled),
        "timestep": 1000 * draw_times(n)}
    return Case(model, inputs, layers, heads)


def draw_flux(rng):
    heads = rng.choice([1, 2, 4])
    axes = rng.choice([(2, 2, 4), (4, 2, 2), (0, 4, 4), (4, 6, 6)])
    dual, single = rng.randint(1, 3), rng.randint(1, 3)
    channels, width, pooled = rng.choice([3, 4, 8]), rng.randint(3, 20), \
        rng.randint(3, 20)
    guidance = rng.choice([True, False])
    model = FluxTransformer2DModel(
        patch_size=1, in_channels=channels, num_layers=dual,
        num_single_layers=single, attention_head_dim=sum(axes),
        num_attention_heads=heads, joint_attention_dim=width,
        pooled_projection_dim=pooled, guidance_embeds=guidance,
        axes_dims_rope=axes)
    n, text = rng.choice([1, 2, 4]), rng.randint(1, 7)
    rows, columns = rng.randint(1, 5), rng.randint(1, 5)
    grid = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    inputs = {
        "hidden_states": torch.randn(n, rows * columns, channels),
        "encoder_hidden_states": torch.randn(n, text, width),
        "pooled_projections": torch.randn(n, pooled),
        "timestep": draw_times(n),
        "img_ids": torch.cat([torch.zeros(rows * columns, 1), grid], 1),
        "txt_ids": torch.zeros(text, 3)}
    if guidance:
        inputs["guidance"] = 1 + 4 * draw_times(n)
    return Case(model, inputs, dual + single, heads)


def draw_hidream(rng):
    heads = rng.choice([1, 2, 4])
    axes = rng.choice([(2, 2, 4), (4, 2, 2), (2, 2, 2)])
    dual, single = rng.randint(1, 2), rng.randint(1, 3)
    patch, channels = rng.choice([1, 2]), rng.randint(1, 4)
    width, layer_width, pooled = (rng.randint(3, 20) for _ in range(3))
    experts = rng.choice([2, 4])
    stack = rng.randint(1, 3)
    layers = [rng.randrange(stack) for _ in range(dual + single - 1)]
    layers.insert(rng.randint(0, len(layers)), stack - 1)
    side = patch * rng.randint(1, 4)
    model = HiDreamImageTransformer2DModel(
        patch_size=patch, in_channels=channels, out_channels=channels,
        num_layers=dual, num_single_layers=single, attention_head_dim=sum(axes),
        num_attention_heads=heads, caption_channels=[width, layer_width],
        text_emb_dim=pooled, num_routed_experts=experts,
        num_activated_experts=rng.randint(1, 2), axes_dims_rope=axes,
        max_resolution=(side, side), llama_layers=layers)
    n, text, layer_text = rng.choice([1, 2, 4]), rng.randint(1, 7), \
        rng.randint(1, 7)
    inputs = {
        "hidden_states": torch.randn(n, channels, side, side),
        "timesteps": 1000 * draw_times(n),
        "encoder_hidden_states_t5": torch.randn(n, text, width),
        "encoder_hidden_states_llama3":
            torch.randn(stack, n, layer_text, layer_width),
        "pooled_embeds": torch.randn(n, pooled)}
    return HiDreamCase(model, inputs, dual + single, heads, experts)


def draw_dit(rng):
    heads, head_dim = draw_heads(rng, [4, 8, 12])
    layers, patch = rng.randint(1, 4), rng.choice([1, 2])
    channels, classes = rng.randint(1, 4), rng.randint(1, 6)
    model = DiTTransformer2DModel(
        num_attention_heads=heads, attention_head_dim=head_dim,
        in_channels=channels,
        out_channels=rng.choice([None, channels, 2 * channels]),
        num_layers=layers, sample_size=patch * rng.randint(1, 6),
        patch_size=patch, num_embeds_ada_norm=classes)
    n, side = rng.choice([1, 2, 4]), patch * rng.randint(1, 6)
    inputs = {
        "hidden_states": torch.randn(n, channels, side, side),
        "timestep": torch.randint(0, 1000, (n,)),
        # The last is that of no class.
        "class_labels": torch.randint(0, classes + 1, (n,))}
    return DiTCase(model, inputs, layers, heads)


def draw_swin(rng):
    stages = rng.randint(1, 2)
    depths = [rng.randint(1, 3) for _ in range(stages)]
    heads = rng.choice([1, 2])
    patch, channels = rng.choice([1, 2]), rng.randint(1, 3)
    # A window of one token would leave all before its scores without gradients.
    window = rng.choice([2, 4])
    side = patch * window * rng.choice([1, 2, 4]) * 2**(stages - 1)
    width = heads * rng.choice([4, 6, 8])
    model = Swinv2ForImageClassification(Swinv2Config(
        image_size=side, patch_size=patch, num_channels=channels,
        embed_dim=width, depths=depths,
        num_heads=[heads * 2**i for i in range(stages)], window_size=window,
        mlp_ratio=rng.choice([1.0, 2.5, 4.0]),
        pretrained_window_sizes=[rng.choice([0, 3, 6]) if i < stages else 0
                                 for i in range(4)],
        drop_path_rate=rng.choice([0.0, 0.2]), num_labels=rng.randint(2, 12)))
    inputs = {"pixel_values": torch.randn(rng.choice([2, 4]), channels, side,
                                          side)}
    return SwinCase(model, inputs, sum(depths), heads)


FAMILIES = {"sd3": draw_sd3, "flux": draw_flux, "hidream": draw_hidream,
            "dit": draw_dit, "swin": draw_swin}
AUTOENCODER = "vae"
# Whose adapters Trireme has diffusers' names for.
WITH_ADAPTERS = ("sd3", "flux")


def draw_autoencoder(rng):
    groups = rng.choice([1, 2, 4])
    channels = [groups * rng.randint(1, 4) for _ in range(rng.randint(1, 3))]
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=tuple(channels), norm_num_groups=groups,
        layers_per_block=rng.randint(1, 2), latent_channels=rng.randint(1, 4),
        shift_factor=rng.choice([None, 0.25]),
        use_quant_conv=rng.choice([True, False]),
        use_post_quant_conv=rng.choice([True, False]),
        mid_block_add_attention=rng.choice([True, False])).eval()


def fill(model):
    """Weights as far from their starts as training takes them."""
    for name, parameter in model.named_parameters():
        fan_in = parameter[0].numel() if parameter.dim() > 1 else 1
        noise = torch.randn_like(parameter) * min(0.5, fan_in**-0.5)
        is_norm = parameter.dim() == 1 and name.endswith("weight") and (
            "norm" in name)
        parameter.data = 1 + noise / 3 if is_norm else noise


def evaluate(case, model):
    """Output and gradients, by the names that Trireme gives them."""
    arguments = {name: value.clone().requires_grad_(name in case.states)
                 for name, value in case.inputs.items() if name != "cotangent"}
    model.zero_grad()
    output = case.run(model, arguments)
    (output * case.inputs["cotangent"]).sum().backward()
    result = {case.output: output.detach()}
    of_inputs = {name: arguments[name] for name in case.states}
    for name, value in [*of_inputs.items(), *model.named_parameters()]:
        # Of a part that the output does not depend on there is none.
        result["gradient." + name] = (torch.zeros_like(value)
                                      if value.grad is None else value.grad)
    return result


def zero_gradients(case):
    """Gradients that are 0, each with one whose summands are of its size.

    The gradients of a softmax's row sum to 0, so what is added alike to all keys
    of a self-attention without norms has none, nor has anything before a softmax
    of one key. In joint attention picture and text have biases of their own,
    whose gradients are 0 only together.
    """
    if isinstance(case, SwinCase):  # Its keys have no biases.
        return {}
    config = case.model.config
    names = [] if config.get("qk_norm") else ["to_k.bias"]
    pixels = case.inputs["hidden_states"][0, 0].numel()
    if pixels == config["patch_size"]**2:  # SD3 and DiT: one token
        names = ["to_q.weight", "to_q.bias", "to_k.weight", "to_k.bias"]
        if config.get("qk_norm"):
            names += ["norm_q.weight", "norm_k.weight"]
    zeros = {}
    attentions = [f"{i}.attn2" for i in
                  config.get("dual_attention_layers", ())]  # of SD3
    if isinstance(case, DiTCase):
        attentions = [f"{i}.attn1" for i in range(case.layers)]
    for attention in attentions:
        attention = f"gradient.transformer_blocks.{attention}."
        for name in names:
            zeros[attention + name] = (
                attention + "to_v." + name.rsplit(".", 1)[-1])
    return zeros


def draw_adapters(rng, model):
    """Adds low-rank adapters to some of the blocks' linear modules.

    q, k and v have some together, since they are one layer of Trireme's.
    """
    layers = {}
    for name, module in model.named_modules():
        if (isinstance(module, torch.nn.Linear)
                and "transformer_blocks." in name):
            layer = re.sub(r"(to_|add_)[qkv](_proj)?$", r"\1qkv", name)
            layers.setdefault(layer, []).append(name)
    chosen = [layer for layer in layers if rng.random() < 0.6]
    chosen = chosen or [rng.choice(sorted(layers))]
    model.add_adapter(LoraConfig(
        r=rng.choice([1, 2, 4]), lora_alpha=rng.choice([1, 3, 8]),
        use_dora=rng.random() < 0.5,
        target_modules=sorted(sum((layers[layer] for layer in chosen), []))))
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            parameter.data = torch.randn_like(parameter) / 3


def predict(model, inputs):
    with torch.no_grad():
        return {"sample": model(**{
            name: value for name, value in inputs.items()
            if name != "cotangent"}).sample}


def divisors(n, most):
    return [d for d in range(1, most + 1) if n % d == 0]


def draw_plan(rng, case):
    """The text of a plan of 2 to 4 ranks; no rank is left without a part."""
    while True:
        tp = rng.choice(divisors(case.heads, MOST_RANKS))
        dp = rng.choice(divisors(case.samples, MOST_RANKS))
        cp = rng.choice([1, 2]) if case.splits_samples else 1
        pp = rng.randint(1, min(case.layers, MOST_RANKS))
        if 1 < tp * dp * cp * pp <= MOST_RANKS:
            break
        if case.heads == case.samples == case.layers == 1:
            cp, tp, dp, pp = 2, 1, 1, 1
            break
    ep = rng.choice([d for d in divisors(case.experts, MOST_RANKS)
                     if tp * cp * dp % d == 0])
    text = f"grid {{ tp: {tp} cp: {cp} dp: {dp} pp: {pp} ep: {ep} }}\n"
    local = case.samples // dp
    text += f"microbatch_size: {rng.choice(divisors(local, local))}\n"
    if tp > 1 and case.splits_samples and rng.random() < 0.5:
        text += "sequence_parallel: true\n"
    if dp > 1:
        text += f"sharding: {rng.choice(['OPTIMIZER', 'PARAMETERS'])}\n"
    text += f"recompute: {rng.choice(['NONE', 'SELECTIVE', 'FULL'])}\n"
    return text


class Comparison:
    def __init__(self, trireme):
        self.trireme = trireme
        self.worst = {"output": 0.0, "gradient": 0.0}
        self.failures = []

    def run(self, *arguments):
        done = subprocess.run([self.trireme, *map(str, arguments)],
                              capture_output=True, text=True, timeout=300)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip() or done.stdout.strip())

    def compare(self, label, case, expected, found):
        """Keeps the worst errors, and names what is outside."""
        if expected.keys() != found.keys():
            self.fail(label, f"tensors {expected.keys() ^ found.keys()}")
            return
        gradients = [value for name, value in expected.items()
                     if name.startswith("gradient.")]
        zeros = zero_gradients(case) if gradients else {}
        assert zeros.keys() <= expected.keys(), zeros.keys() - expected.keys()
        size = sum(value.numel() for value in gradients)
        total = sum(value.double().square().sum() for value in gradients)
        for name, value in expected.items():
            if found[name].shape != value.shape:
                self.fail(label, f"{name}: shape {tuple(found[name].shape)}, "
                          f"expected {tuple(value.shape)}")
                continue
            kind = ("gradient" if name.startswith("gradient.")
                    else "output")
            one, other = value.double(), found[name].double()
            difference, norm = (other - one).norm(), one.norm()
            if name in zeros:
                like = expected[zeros[name]].double()
                difference = torch.stack([norm, other.norm()]).max()
                norm = like.norm() * (value.numel() / like.numel())**0.5
            elif kind == "gradient":
                average = (total * value.numel() / size).sqrt()
                norm = torch.maximum(norm, FLOOR * average)
            error = (difference / norm.clamp_min(1e-30)).item()
            self.worst[kind] = max(self.worst[kind], error)
            tolerance = (OUTPUT_TOLERANCE if kind == "output"
                         else GRADIENT_TOLERANCE)
            # A number that is none is outside, too.
            if not error <= tolerance:
                self.fail(label, f"{name}: {error:.2e}")

    def fail(self, label, what):
        self.failures.append(f"{label}: {what}")
        print(f"  DIFFERENT  {what}")

    def same_files(self, label, one, other):
        names = sorted(path.name for path in one.iterdir())
        if names != sorted(path.name for path in other.iterdir()):
            self.fail(label, f"files of {one} and {other}")
        for name in names:
            if not filecmp.cmp(one / name, other / name, shallow=False):
                self.fail(label, f"{other / name} differs from {one / name}")

    def check(self, label, case, plan, shard_bytes, folder):
        """Everything about one case, in a folder of its own."""
        fill(case.model)
        with torch.no_grad():
            output = case.run(case.model, case.inputs)
        case.inputs["cotangent"] = torch.randn_like(output)
        expected = evaluate(case, case.model)
        theirs = folder / "theirs" / case.part
        case.model.save_pretrained(theirs, max_shard_size=shard_bytes)
        save_file({name: value.contiguous()
                   for name, value in case.inputs.items()},
                  folder / "inputs.safetensors")
        (folder / "plan.textproto").write_text(plan)
        out = folder / "outputs.safetensors"
        for options in ([], ["--plan", folder / "plan.textproto"]):
            self.run("forward", theirs, "--inputs",
                     folder / "inputs.safetensors", "--out", out,
                     "--gradients", *options)
            self.compare(label, case, expected, load_file(out))
        self.run("convert", theirs, folder / "copy", "--to", "weights")
        self.same_files(label, theirs, folder / "copy" / case.part)
        self.run("convert", theirs, folder / "run")
        self.run("convert", folder / "run", folder / "back")
        back = case.load(folder / "back")
        for name, value in case.model.state_dict().items():
            if not torch.equal(value, back.state_dict()[name]):
                self.fail(label, f"{name} is another one after a round trip")
        # PyTorch's own rounding depends on where tensors lie in memory.
        self.compare(label, case, expected, evaluate(case, back))
        written = json.loads(
            (folder / "back" / case.part / "config.json").read_text())
        original = json.loads((theirs / "config.json").read_text())
        # A run does not keep what a library notes of itself.
        original = {name: value for name, value in original.items()
                    if not case.is_note(name)}
        # Which is the number that a null stands for, a run does not keep either.
        for config in (written, original):
            if config.get("out_channels", 0) is None:
                config["out_channels"] = config["in_channels"]
        if written != original:
            self.fail(label, f"config.json {written}, expected {original}")

    def check_autoencoder(self, label, rng, folder):
        model = draw_autoencoder(rng)
        fill(model)
        n = rng.randint(1, 2)
        reduction = 2**(len(model.config.block_out_channels) - 1)
        # Rows and columns that no latent stands for are allowed.
        height, width = (rng.randint(reduction, 5 * reduction)
                         for _ in range(2))
        inputs = {"x": torch.rand(n, 3, height, width) * 2 - 1,
                  "z": torch.randn(n, model.config.latent_channels,
                                   rng.randint(1, 5), rng.randint(1, 5))}
        with torch.no_grad():
            posterior = model.encode(inputs["x"]).latent_dist
            expected = {"latent_dist.mean": posterior.mean,
                        "latent_dist.logvar": posterior.logvar,
                        "sample": model.decode(inputs["z"]).sample}
        model.save_pretrained(folder / "vae",
                              max_shard_size=rng.choice([10**9, 5_000]))
        save_file(inputs, folder / "inputs.safetensors")
        out = folder / "outputs.safetensors"
        self.run("forward", folder / "vae", "--inputs",
                 folder / "inputs.safetensors", "--out", out)
        self.compare(label, None, expected, load_file(out))

    def check_adapters(self, label, case, rng, folder):
        """The same of adapters on weights that check has written."""
        draw_adapters(rng, case.model)
        name = "pytorch_lora_weights.safetensors"
        # FLUX's loader keeps them alike.
        SD3LoraLoaderMixin.save_lora_weights(
            folder / "adapter",
            transformer_lora_layers=get_peft_model_state_dict(case.model),
            **_collate_lora_metadata({"transformer": case.model}))
        expected = predict(case.model, case.inputs)
        theirs, ours = folder / "adapter" / name, folder / "adapter_back" / name
        run, out = folder / "adapter_run", folder / "adapted.safetensors"
        self.run("convert", theirs, run, "--base",
                 folder / "theirs/transformer")
        self.run("forward", run, "--inputs", folder / "inputs.safetensors",
                 "--out", out)
        self.compare(label, case, expected, load_file(out))
        self.run("convert", run, ours, "--to", "adapter")
        original, written = load_file(theirs), load_file(ours)
        if original.keys() != written.keys() or not all(
                torch.equal(value, written[name])
                for name, value in original.items()):
            self.fail(label, "adapters are others after a round trip")
        back = type(case.model).from_pretrained(folder / "theirs",
                                                subfolder="transformer")
        back.time_text_embed.time_proj = Sinusoids()
        # The loader of a single file leaves alpha out.
        with safe_open(ours, "pt") as file:
            metadata = json.loads(file.metadata()["lora_adapter_metadata"])
        back.load_lora_adapter(written, metadata=metadata)
        self.compare(label, case, expected, predict(back, case.inputs))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("trireme")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=20, help="a family")
    parser.add_argument("--family", choices=[*FAMILIES, AUTOENCODER])
    parser.add_argument("--keep", type=pathlib.Path,
                        help="where the files stay (default: nowhere)")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    comparison = Comparison(arguments.trireme)
    with tempfile.TemporaryDirectory() as temporary:
        root = arguments.keep or pathlib.Path(temporary)
        families = ([arguments.family] if arguments.family
                    else [*FAMILIES, AUTOENCODER])
        count = 0
        for family in families:
            for i in range(arguments.cases):
                seed = f"{arguments.seed} {family} {i}"
                rng = random.Random(seed)
                torch.manual_seed(rng.getrandbits(63))
                folder = root / f"{family}_{i}"
                folder.mkdir(parents=True)
                count += 1
                try:
                    if family == AUTOENCODER:
                        print(f"{family} {i}", flush=True)
                        comparison.check_autoencoder(f"{family} {i}", rng,
                                                     folder)
                        continue
                    case = FAMILIES[family](rng)
                    plan = draw_plan(rng, case)
                    shard_bytes = rng.choice([10**9, 20_000])
                    print(f"{family} {i}: {' '.join(plan.split())}",
                          flush=True)
                    comparison.check(f"{family} {i}", case, plan, shard_bytes,
                                     folder)
                    if family in WITH_ADAPTERS:
                        comparison.check_adapters(f"{family} {i}", case, rng,
                                                  folder)
                except (RuntimeError, subprocess.TimeoutExpired) as error:
                    comparison.fail(f"{family} {i}", str(error))
    print(f"{count} configurations, transformers on one rank and under a plan: "
          f"worst output {comparison.worst['output']:.1e} (at most "
          f"{OUTPUT_TOLERANCE:.0e}), gradient "
          f"{comparison.worst['gradient']:.1e} (at most "
          f"{GRADIENT_TOLERANCE:.0e}), relative; "
          f"{len(comparison.failures)} differences")
    for failure in comparison.failures:
        print("  " + failure)
    return 1 if comparison.failures else 0


if __name__ == "__main__":
    sys.exit(main())
