"""Writes training.safetensors: the losses of 100 steps of AdamW, before each of
them, on the models whose weights and inputs the other files here hold.

  python3 generate_training.py [OUTPUT]

Needs PyTorch, diffusers and what the generators need that it calls. `NAME.losses`
are those of a model; what a step trains on are inputs of the model's file and
numbers that both sides draw (Draws). Models that generate from noise train as
rectified flows do, on `target`; the others on their file's samples with fresh
noise. Models and the optimizer run in fp64, losses are rounded to fp32.
"""

import math
import pathlib
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

import generate_dit
import generate_hidream
import generate_mesh_tokens
import generate_mmdit
import generate_mmdit_sets
import generate_mmdit_views
import generate_shape_vae
import generate_sparse_dit
import generate_sparse_vae
import generate_swin
import generate_triposg
from generate import store, write
from sinusoids import Sinusoids

HERE = pathlib.Path(__file__).parent
STEPS = 100
BITS = 2**64 - 1


class Draws:
    """One step's numbers, one after the other: SplitMix64 (Steele et al., "Fast
    splittable pseudorandom number generators", 2014) from the step, from 0."""

    def __init__(self, step):
        self.state = step

    def number(self):
        """In [0, 1)."""
        self.state = (self.state + 0x9E3779B97F4A7C15) & BITS
        z = self.state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & BITS
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & BITS
        return ((z ^ (z >> 31)) >> 11) * 2.0**-53

    def uniform(self, *shape):
        return torch.tensor([self.number() for _ in range(math.prod(shape))],
                            dtype=torch.float64).view(shape)

    def noise(self, *shape):
        """Of mean 0 and variance 1."""
        return math.sqrt(12) * (self.uniform(*shape) - 0.5)

    def flow(self, clean):
        """Between samples and noise: x, times, and the velocity."""
        sigmas = self.uniform(len(clean))
        noise = self.noise(*clean.shape)
        t = sigmas.view(-1, *[1] * (clean.dim() - 1))
        return (1 - t) * clean + t * noise, sigmas, noise - clean


def train(name, weights, loss_of, rate=2e-3):
    """loss_of: of one step's draws."""
    optimizer = torch.optim.AdamW(weights, lr=rate, betas=(0.9, 0.95),
                                  eps=1e-8, weight_decay=0.1)
    losses = []
    for step in range(STEPS):
        optimizer.zero_grad()
        loss = loss_of(Draws(step))
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    print(f"{name}: {sum(losses[:10]) / 10:.4f} to {sum(losses[-10:]) / 10:.4f}")
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10]), name
    store(name, losses=torch.tensor(losses, dtype=torch.float64))


class Golden:
    """A file of tensors, in fp64."""

    def __init__(self, name):
        self.tensors = {key: tensor.double() for key, tensor in
                        load_file(HERE / f"{name}.safetensors").items()}

    def __getitem__(self, name):
        return self.tensors[name]

    def under(self, prefix):
        return {key.removeprefix(prefix): tensor
                for key, tensor in self.tensors.items()
                if key.startswith(prefix)}

    def weights(self, prefix):
        return {key: tensor.requires_grad_()
                for key, tensor in self.under(prefix).items()}


def fill(model, weights):
    """Parameters alone: tables of positions are as the model made them."""
    for name, parameter in model.named_parameters():
        parameter.data = weights.pop(name)
    assert not weights, weights.keys()


def dit():
    file = Golden("dit")
    inputs = file.under("inputs.")
    for name, positions, qk_norm, text in (("class", "rope", True, None),
                                           ("sincos", "sincos", False, None),
                                           ("set", "none", True, None),
                                           ("cross", "rope", True, "cross"),
                                           ("joint", "rope", True, "joint")):
        weights = {key: w.detach().clone().requires_grad_()
                   for key, w in file.under("weights.").items()}
        model = generate_dit.Dit(weights, positions, qk_norm, text)

        def loss_of(draws):
            x, sigmas, velocity = draws.flow(inputs["target"])
            y = model.forward(x, sigmas, inputs["labels"].long(),
                              inputs["text"], inputs["text_counts"].long())
            return F.mse_loss(y, velocity)

        train(f"dit_{name}", weights.values(), loss_of)


def mmdit():
    file = Golden("mmdit")
    inputs = {name: file[f"inputs.{name}"]
              for name in ("text", "pooled", "guidance")}
    for name, model, predict in (
        ("sd3", generate_mmdit.sd3(), generate_mmdit.predict_sd3),
        ("sd35", generate_mmdit.sd3(qk_norm="rms_norm",
                                    dual_attention_layers=(0,)),
         generate_mmdit.predict_sd3),
        ("flux", generate_mmdit.flux(), generate_mmdit.predict_flux)):
        model = model.double()
        model.time_text_embed.time_proj = Sinusoids()
        model.load_state_dict(file.under(f"{name}.weights."))

        def loss_of(draws):
            x, sigmas, velocity = draws.flow(file["inputs.target"])
            return F.mse_loss(predict(model, x, sigmas, **inputs), velocity)

        train(f"mmdit_{name}", model.parameters(), loss_of)


def mmdit_set():
    file = Golden("mmdit_sets")
    model = generate_mmdit_sets.make_model()
    fill(model, file.under("set.weights."))

    def loss_of(draws):
        x, sigmas, velocity = draws.flow(file["inputs.target"])
        y = generate_mmdit_sets.predict(model, x, sigmas, file["inputs.text"],
                                        file["inputs.pooled"])
        return F.mse_loss(y, velocity)

    train("mmdit_set", model.parameters(), loss_of)


def mmdit_views():
    file = Golden("mmdit_views")
    text, pooled = file["inputs.text"], file["inputs.pooled"]
    model = generate_mmdit_views.make_model()
    fill(model, file.under("views.weights."))
    weights = file.weights("streams.weights.")
    streams = generate_mmdit_views.Streams(weights)

    def of_views(x, sigmas):
        return generate_mmdit.predict_sd3(model, x, sigmas, text=text,
                                          pooled=pooled, guidance=None)

    def of_streams(x, sigmas):
        return generate_mmdit_views.pictures(streams.forward(
            generate_mmdit_views.patches(x), sigmas, text, pooled))

    for name, trained, predict in (
        ("views", model.parameters(), of_views),
        ("streams", weights.values(), of_streams)):

        def loss_of(draws):
            # Of the clean views, as SplatFlow has it.
            clean = file["inputs.target"]
            x, sigmas, _ = draws.flow(clean)
            return F.mse_loss(x - sigmas.view(-1, 1, 1, 1) * predict(x, sigmas),
                              clean)

        train(f"mmdit_{name}", trained, loss_of, rate=5e-3)


def hidream():
    file = Golden("hidream")
    inputs = file.under("inputs.")
    layers = torch.stack([inputs["layer0"], inputs["layer1"]])
    model = generate_hidream.make_model()
    model.load_state_dict(file.under("hidream.weights."))

    def loss_of(draws):
        x, sigmas, velocity = draws.flow(inputs["target"])
        return generate_hidream.evaluate(model, x, sigmas, inputs["text"],
                                         layers, inputs["pooled"], velocity)[1]

    train("hidream", model.parameters(), loss_of)


def triposg():
    for name in ("triposg", "triposg_experts"):
        file = Golden("triposg")  # Training changes its weights.
        weights = file.weights("triposg.weights.")
        if name == "triposg_experts":
            weights |= file.weights("experts.weights.")
        model = generate_triposg.Model(weights)

        def loss_of(draws):
            x, sigmas, velocity = draws.flow(file["inputs.target"])
            y = model(x, 1000 * sigmas, file["inputs.features"])
            return F.mse_loss(-y, velocity) + model.balance

        train(name, weights.values(), loss_of)


def sparse_dit():
    file = Golden("sparse_dit")
    weights = file.weights("sparse_dit.weights.")

    def loss_of(draws):
        x, sigmas, velocity = draws.flow(file["inputs.target"])
        return generate_sparse_dit.evaluate(weights, x, sigmas,
                                            file["inputs.features"],
                                            velocity)[1]

    train("sparse_dit", weights.values(), loss_of)


def swin():
    file = Golden("swin")
    weights = file.weights("swin.weights.")
    pixels, labels = file["inputs.pixels"], file["inputs.labels"].long()

    def loss_of(draws):
        logits = generate_swin.model(weights,
                                     pixels + draws.noise(*pixels.shape))
        return F.cross_entropy(logits, labels,
                               label_smoothing=generate_swin.SMOOTHING)

    # At 2e-3 what 1e-14 of the weights changes is 1e-2 of the loss after 71
    # steps, at 2e-4 it is 2e-9.
    train("swin", weights.values(), loss_of, rate=2e-4)


def mesh_tokens():
    file = Golden("mesh_tokens")
    weights = file.weights("mesh_tokens.weights.")
    inputs = {key: value.long() for key, value in file.under("inputs.").items()}
    vocabulary = generate_mesh_tokens.VOCABULARY

    def loss_of(draws):
        # The sequences that are so many tokens further on.
        moved = (vocabulary * draws.uniform(len(inputs["tokens"]), 1)).long()
        logits = generate_mesh_tokens.model(
            weights, (inputs["tokens"] + moved) % vocabulary, inputs["labels"])
        padding = inputs["next_tokens"] < 0
        expected = (inputs["next_tokens"] + moved) % vocabulary
        return F.cross_entropy(logits.flatten(0, 1),
                               expected.masked_fill(padding, -1).flatten(),
                               ignore_index=-1)

    train("mesh_tokens", weights.values(), loss_of)


def shape_vae():
    file = Golden("shape_vae")
    weights = file.weights("vae.weights.")
    model = generate_shape_vae.Model(weights)
    shape = file["inputs.noise"].shape

    def loss_of(draws):
        return generate_shape_vae.evaluate(model, file["inputs.surface"],
                                           draws.noise(*shape),
                                           file["inputs.queries"])[-1]

    train("shape_vae", weights.values(), loss_of)


def sparse_vae():
    file = Golden("sparse_vae")
    weights = file.weights("weights.")
    model = generate_sparse_vae.Model(weights)
    samples = [file.under(f"sample{i}.") for i in range(2)]
    levels = [generate_sparse_vae.levels_of(
        [tuple(cell) for cell in sample["voxels"].int().tolist()])
              for sample in samples]

    def loss_of(draws):
        return sum(generate_sparse_vae.evaluate(
            model, of_sample, sample["features"],
            draws.noise(*sample["noise"].shape), sample["kinds"])[-1]
                   for of_sample, sample in zip(levels, samples)) / 2

    train("sparse_vae", weights.values(), loss_of)


def main():
    families = (dit, mmdit, mmdit_set, mmdit_views, hidream, triposg,
                sparse_dit, swin, mesh_tokens, shape_vae, sparse_vae)
    for family in families:
        family()
    write(pathlib.Path(sys.argv[1]) if sys.argv[1:] else HERE /
          "training.safetensors")


if __name__ == "__main__":
    main()
