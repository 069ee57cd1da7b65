"""Writes shape_vae.safetensors: a tiny autoencoder of shapes, as TripoSG has it,
with its losses and gradients.

  python3 generate_shape_vae.py [OUTPUT]

Needs PyTorch alone: the published class is in no package, so that the network is
written here once more, from its description (Li et al., "TripoSG", 2025, and the
names and places of its published weights). `weights.NAME` are those of
TripoSGVAEModel's state; `moments` is what its encoder makes of the points
`surface`, the first of which are its queries; `values` is its field, positive
inside, of the latents `z` at `queries` and on their six sides; `loss` is the
weighted sum of four losses, `grad.NAME` its gradients. `occupancy` has the loss
and gradients of the same field as logits of occupancy, without the eikonal loss;
the first query of each sample lies on the surface there. Everything runs in fp64.
"""

import pathlib
import sys

import torch
import torch.nn.functional as F

from drawn import Layers, Normal, Weights
from generate import store, write

BATCH, POINTS, LATENTS, CHANNELS, QUERIES = 2, 9, 5, 3, 7
ENCODER, DECODER, HEADS = 6, 12, 3
ENCODER_LAYERS, DECODER_LAYERS, FREQUENCIES = 1, 2, 2
STEP, TRUNCATION = 0.01, 0.5
NORMAL, EIKONAL, DIVERGENCE = 2.0, 0.25, 0.5
normal = Normal(20250211)


def make_weights():
    weights = Weights(normal)
    linear, norm = weights.linear, weights.norm

    def block(name, width, cross):
        attention = f"{name}.attn{2 if cross else 1}"
        norm(f"{name}.norm{2 if cross else 1}", width)
        if cross:
            norm(f"{attention}.norm_cross", width)
        for part in ("to_q", "to_k", "to_v"):
            linear(f"{attention}.{part}", width, width, bias=False)
        linear(f"{attention}.to_out.0", width, width)
        norm(f"{name}.norm3", width)
        linear(f"{name}.ff.net.0.proj", width, 4 * width)
        linear(f"{name}.ff.net.2", 4 * width, width)

    position = 3 + 6 * FREQUENCIES
    linear("encoder.proj_in", position + 3, ENCODER)
    for i in range(1 + ENCODER_LAYERS):
        block(f"encoder.blocks.{i}", ENCODER, i == 0)
    norm("encoder.norm_out", ENCODER)
    linear("quant", ENCODER, 2 * CHANNELS)
    linear("post_quant", CHANNELS, DECODER)
    for i in range(DECODER_LAYERS + 1):
        block(f"decoder.blocks.{i}", DECODER, i == DECODER_LAYERS)
    linear("decoder.proj_query", position, DECODER)
    norm("decoder.norm_out", DECODER)
    linear("decoder.proj_out", DECODER, 1)
    return weights.learnt()


class Model(Layers):

    def block(self, name, x, context=None):
        attention = f"{name}.attn{1 if context is None else 2}"
        n = self.layer_norm(f"{name}.norm{1 if context is None else 2}", x)
        if context is None:
            q, k, v = self.interleaved_heads(attention, n,
                                             ("to_q", "to_k", "to_v"), HEADS)
        else:
            q, = self.interleaved_heads(attention, n, ("to_q",), HEADS)
            others = self.layer_norm(f"{attention}.norm_cross", context)
            k, v = self.interleaved_heads(attention, others,
                                          ("to_k", "to_v"), HEADS)
        scores = (q @ k.transpose(-1, -2)) / q.shape[-1]**0.5
        attended = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
        x = x + self.linear(f"{attention}.to_out.0", attended)
        inner = F.gelu(self.linear(f"{name}.ff.net.0.proj",
                                   self.layer_norm(f"{name}.norm3", x)))
        return x + self.linear(f"{name}.ff.net.2", inner)

    def embed(self, positions):
        angles = (positions[..., None] *
                  2.0**torch.arange(FREQUENCIES)).flatten(-2)
        return torch.cat([positions, angles.sin(), angles.cos()], -1)

    def encode(self, surface):
        points = self.linear(
            "encoder.proj_in",
            torch.cat([self.embed(surface[..., :3]), surface[..., 3:]], -1))
        x = self.block("encoder.blocks.0", points[:, :LATENTS], points)
        for i in range(ENCODER_LAYERS):
            x = self.block(f"encoder.blocks.{i + 1}", x)
        return self.linear("quant", self.layer_norm("encoder.norm_out", x))

    def decode(self, z, positions):
        """Positive inside, as published."""
        x = self.linear("post_quant", z)
        for i in range(DECODER_LAYERS):
            x = self.block(f"decoder.blocks.{i}", x)
        y = self.block(f"decoder.blocks.{DECODER_LAYERS}",
                       self.linear("decoder.proj_query",
                                   self.embed(positions)), x)
        return -self.linear("decoder.proj_out",
                            self.layer_norm("decoder.norm_out", y))[..., 0]


def evaluate(model, surface, noise, queries, occupancy=False):
    """Moments, latents, values and the loss, of distances or of occupancy."""
    moments = model.encode(surface)
    mean, log_variance = moments.chunk(2, -1)
    z = mean + (0.5 * log_variance.clamp(-30, 20)).exp() * noise
    sides = torch.cat([torch.zeros(1, 3)] +
                      [s * STEP * torch.eye(3)[i:i + 1] for i in range(3)
                       for s in (1, -1)]).double()
    positions = queries[:, :, None, :3] + sides
    values = model.decode(z, positions.flatten(1, 2)).unflatten(1, (-1, 7))
    distances = -values
    s = (queries[..., 3] / TRUNCATION).clamp(-1, 1)
    error = distances[..., 0] - s
    g = (distances[..., 1::2] - distances[..., 2::2]) / (2 * STEP)
    normals = queries[..., 4:]
    on_surface = normals.square().sum(-1) > 0
    cosine = (g * normals).sum(-1) / g.norm(dim=-1)
    excess = (TRUNCATION * g.norm(dim=-1) - 1).square() * (s.abs() < 1)
    divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance)
    of_normals = NORMAL * ((1 - cosine) * on_surface).mean()
    of_latents = DIVERGENCE * divergence.mean()
    if occupancy:
        inside = 0.5 * (1 - queries[..., 3].sign())
        loss = of_latents + of_normals + F.binary_cross_entropy_with_logits(
            values[..., 0], inside)
    else:
        loss = ((error.abs() + error.square()).mean() + of_normals +
                EIKONAL * excess.mean() + of_latents)
    return moments, z, values, loss


def main():
    model = Model(make_weights())
    surface = normal(BATCH, POINTS, 6)
    noise = normal(BATCH, LATENTS, CHANNELS)
    queries = normal(BATCH, QUERIES, 7, stddev=0.4)
    # Only the first three lie on a surface, with normals of length 1.
    queries[:, 3:, 4:] = 0
    queries[..., 4:] = F.normalize(queries[..., 4:], dim=-1)
    queries = queries.float().double()
    occupancy_queries = queries.clone()
    occupancy_queries[:, 0, 3] = 0
    occupancy = evaluate(model, surface, noise, occupancy_queries,
                         occupancy=True)[-1]
    gradients = torch.autograd.grad(occupancy, list(model.weights.values()))
    moments, z, values, loss = evaluate(model, surface, noise, queries)
    loss.backward()
    store("inputs", surface=surface, noise=noise, queries=queries,
          occupancy_queries=occupancy_queries)
    store("occupancy", loss=occupancy.reshape(1))
    store("occupancy.grad", **dict(zip(model.weights, gradients)))
    store("vae", moments=moments, z=z, values=values, loss=loss.reshape(1))
    store("vae.weights", **model.weights)
    store("vae.grad", **{n: w.grad for n, w in model.weights.items()})
    here = pathlib.Path(__file__).parent
    write(pathlib.Path(sys.argv[1]) if sys.argv[1:] else here /
          "shape_vae.safetensors")


if __name__ == "__main__":
    main()
