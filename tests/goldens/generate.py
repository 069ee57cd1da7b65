"""Writes ops.safetensors: small inputs, outputs and gradients of PyTorch's ops.

  python3 generate.py [OUTPUT]

Needs PyTorch alone. Inputs are random fp32; the ops run on them in fp64 and
their results are rounded to fp32, so that a difference from the file is the
error of whoever is compared with it. For every op `dy` is the gradient of its
output and `d*` are the gradients of its inputs.
"""

import json
import pathlib
import struct
import sys

import torch
import torch.nn.functional as F

EPS = 1e-6
GENERATOR = torch.Generator().manual_seed(20240229)
TENSORS = {}


def normal(*shape):
    """A random leaf whose values are exact in fp32."""
    x = torch.randn(*shape, generator=GENERATOR, dtype=torch.float32)
    return x.double().requires_grad_()


def store(op, **tensors):
    """Keeps tensors as op.name: floating ones in fp32, others in int32."""
    for name, tensor in tensors.items():
        dtype = torch.float32 if tensor.is_floating_point() else torch.int32
        TENSORS[f"{op}.{name}"] = tensor.detach().to(dtype).contiguous()


def store_op(op, inputs, y):
    """Keeps inputs, output, and the gradients for a random output gradient."""
    dy = normal(*y.shape).detach()
    floating = {k: v for k, v in inputs.items() if v.is_floating_point()}
    gradients = torch.autograd.grad(y, list(floating.values()), dy)
    store(op, **inputs, y=y, dy=dy)
    store(op, **{f"d{k}": g for k, g in zip(floating, gradients)})


def gelu(x):
    return F.gelu(x, approximate="tanh")


def matmul():
    activations = {"none": lambda x: x, "gelu": gelu, "silu": F.silu}
    for name, activation in activations.items():
        x, w, b = normal(2, 5, 19), normal(13, 19), normal(13)
        store_op(f"matmul_{name}", {"x": x, "w": w, "b": b},
                 activation(F.linear(x, w, b)))


def attention():
    batch, tokens, heads, channels = 3, 11, 2, 12
    for name, counts in {"all": [11, 11, 11], "counts": [11, 4, 1]}.items():
        qkv = normal(batch, tokens, 3 * heads * channels)
        key_counts = torch.tensor(counts)
        q, k, v = (part.transpose(1, 2) for part in qkv.reshape(
            batch, tokens, 3, heads, channels).unbind(2))
        mask = torch.arange(tokens)[None, :] < key_counts[:, None]
        y = F.scaled_dot_product_attention(q, k, v, mask[:, None, None, :])
        y = y.transpose(1, 2).reshape(batch, tokens, heads * channels)
        store_op(f"attention_{name}", {"qkv": qkv, "key_counts": key_counts},
                 y)


def norms():
    width = 37
    kinds = {
        "layer": lambda x: F.layer_norm(x, (width,), eps=EPS),
        "rms": lambda x: F.rms_norm(x, (width,), eps=EPS),
    }
    for name, norm in kinds.items():
        x = normal(2, 5, width)
        scale, shift = normal(2, width), normal(2, width)
        store_op(f"{name}_modulate", {"x": x, "scale": scale, "shift": shift},
                 norm(x) * (1 + scale[:, None]) + shift[:, None])
    x, weight, bias = normal(2, 5, width), normal(width), normal(width)
    store_op("layer_affine", {"x": x, "weight": weight, "bias": bias},
             F.layer_norm(x, (width,), weight, bias, EPS))
    x, weight = normal(2, 5, width), normal(width)
    store_op("rms_affine", {"x": x, "weight": weight},
             F.rms_norm(x, (width,), weight, EPS))


def rotated(x, positions, axis_dims, theta):
    """x[b, s, heads, n] with adjacent pairs as complex numbers, turned."""
    angles = []
    for axis, channels in enumerate(axis_dims):
        frequencies = theta ** (-torch.arange(0, channels, 2).double() /
                                channels)
        angles.append(positions[:, axis, None] * frequencies)
    angle = torch.cat(angles, -1)
    turn = torch.polar(torch.ones_like(angle), angle)
    pairs = torch.view_as_complex(x.unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * turn[None, :, None]).flatten(-2)


def heads():
    batch, tokens, count, channels = 2, 6, 3, 12
    grid = torch.cartesian_prod(torch.arange(1), torch.arange(2),
                                torch.arange(3))
    for axis_dims in ([12], [4, 8], [2, 4, 6]):
        axes = len(axis_dims)
        positions = grid[:, -axes:].clone()
        if axes == 1:
            positions = torch.arange(tokens)[:, None]
        x, weight = normal(batch, tokens, count * channels), normal(channels)
        normed = F.rms_norm(x.unflatten(-1, (count, channels)), (channels,),
                            weight, EPS)
        y = rotated(normed, positions.double(), axis_dims, 10000.0)
        store_op(f"heads_{axes}", {
            "x": x, "weight": weight, "positions": positions,
            "axis_dims": torch.tensor(axis_dims)
        }, y.flatten(-2))


def pointwise():
    x = normal(4, 37)
    store_op("gelu", {"x": x}, gelu(x))
    x = normal(4, 37)
    store_op("silu", {"x": x}, F.silu(x))
    x = normal(4, 74)
    gate, up = x.chunk(2, -1)
    store_op("swiglu", {"x": x}, F.silu(gate) * up)
    x, gate, branch = normal(2, 5, 37), normal(2, 37), normal(2, 5, 37)
    store_op("gated_residual", {"x": x, "gate": gate, "branch": branch},
             x + gate[:, None] * branch)
    x = normal(4, 37)
    store_op("softmax", {"x": x}, F.softmax(x, -1))


def lookups():
    table = normal(7, 13)
    indices = torch.tensor([3, 0, 6, 3, 3])
    store_op("embedding", {"table": table, "indices": indices},
             F.embedding(indices, table))

    times = torch.tensor([0.0, 0.125, 1.0, 37.5, 999.0])
    half = 9
    frequencies = 10000.0**(-torch.arange(half).double() / half)
    angles = times.double()[:, None] * frequencies
    store("timestep", times=times,
          y=torch.cat([angles.cos(), angles.sin()], -1))

    x, patch = normal(2, 3, 4, 6).detach(), 2
    # unfold orders a patch as (channel, row, column).
    tokens = F.unfold(x, patch, stride=patch).transpose(1, 2)
    tokens = tokens.unflatten(-1, (3, patch * patch)).transpose(-1, -2)
    store("patchify", x=x, y=tokens.flatten(-2))


def losses():
    x, target = normal(4, 37), normal(4, 37).detach()
    y = F.mse_loss(x, target, reduction="sum")
    dx, = torch.autograd.grad(y, x)
    store("squared_error", x=x, target=target, y=y.reshape(1), dx=dx)

    x, labels = normal(5, 11), torch.tensor([3, 0, -1, 10, 3])
    y = F.cross_entropy(x, labels, ignore_index=-1, reduction="sum")
    dx, = torch.autograd.grad(y, x)
    store("cross_entropy", x=x, labels=labels, y=y.reshape(1), dx=dx)


def optimizer():
    parameter = normal(37)
    average = parameter.detach().clone()
    store("adamw", theta_0=parameter)
    adamw = torch.optim.AdamW([parameter], lr=0.02, betas=(0.9, 0.95),
                              eps=1e-8, weight_decay=0.1)
    for step in (1, 2, 3):
        parameter.grad = normal(37).detach()
        adamw.step()
        average = 0.75 * average + 0.25 * parameter.detach()
        store("adamw", **{
            f"grad_{step}": parameter.grad,
            f"theta_{step}": parameter,
            f"average_{step}": average
        })
    state = adamw.state[parameter]
    store("adamw", m_3=state["exp_avg"], v_3=state["exp_avg_sq"])


def products():
    a, b = normal(2, 3, 5, 7), normal(2, 3, 7, 4)
    store_op("matmul_batched", {"a": a, "b": b}, a @ b)
    a, b = normal(3, 7, 5), normal(3, 4, 7)
    store_op("matmul_batched_transposed", {"a": a, "b": b}, a.mT @ b.mT)


def cross_attention():
    batch, queries, keys, heads, channels = 3, 5, 7, 2, 12
    q = normal(batch, queries, heads * channels)
    kv = normal(batch, keys, 2 * heads * channels)
    key_counts = torch.tensor([7, 4, 1])
    k, v = kv.reshape(batch, keys, 2, heads, channels).unbind(2)
    mask = torch.arange(keys)[None, :] < key_counts[:, None]
    y = F.scaled_dot_product_attention(
        q.reshape(batch, queries, heads, channels).transpose(1, 2),
        k.transpose(1, 2), v.transpose(1, 2), mask[:, None, None, :])
    y = y.transpose(1, 2).reshape(batch, queries, heads * channels)
    store_op("cross_attention", {"q": q, "kv": kv, "key_counts": key_counts},
             y)


def elementwise():
    a, b = normal(4, 37), normal(4, 37)
    store_op("add", {"a": a, "b": b}, a + b)
    a, b = normal(4, 37), normal(4, 37)
    store_op("multiply", {"a": a, "b": b}, a * b)
    x = normal(4, 37)
    store_op("scale", {"x": x}, x * -0.3)
    x, b = normal(2, 5, 37), normal(5, 37)
    store_op("add_broadcast", {"x": x, "b": b}, x + b)


def reductions():
    x = normal(4, 37)
    store_op("sum", {"x": x}, x.sum().reshape(1))
    x = normal(4, 37)
    store_op("sum_of_squares", {"x": x}, x.square().sum().reshape(1))
    x = normal(4, 37)
    store("max_abs", x=x, y=x.abs().max().reshape(1))
    x = normal(2, 5, 37)
    store_op("sum_tokens", {"x": x}, x.sum(1))


def rows():
    table = normal(7, 13)
    indices = torch.tensor([3, 0, 6, 3])
    store_op("gather_rows", {"table": table, "indices": indices},
             table[indices])
    x = normal(4, 13)
    indices = torch.tensor([3, 0, 6, 3])
    zeros = torch.zeros(7, 13, dtype=torch.float64)
    store_op("scatter_rows", {"x": x, "indices": indices},
             zeros.index_add(0, indices, x))


def write(path):
    """The safetensors format by hand: header length, JSON header, data."""
    codes = {torch.float32: "F32", torch.int32: "I32"}
    header = {"__metadata__": {"torch": torch.__version__.split("+")[0]}}
    data = b""
    for name in sorted(TENSORS):
        tensor = TENSORS[name]
        values = tensor.flatten().tolist()
        code = "f" if tensor.dtype == torch.float32 else "i"
        packed = struct.pack(f"<{len(values)}{code}", *values)
        header[name] = {
            "dtype": codes[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [len(data), len(data) + len(packed)],
        }
        data += packed
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def main():
    matmul()
    attention()
    norms()
    heads()
    pointwise()
    lookups()
    losses()
    optimizer()
    # New ops come last: those before keep their random numbers.
    products()
    cross_attention()
    elementwise()
    reductions()
    rows()
    here = pathlib.Path(__file__).parent
    write(pathlib.Path(sys.argv[1]) if sys.argv[1:] else here /
          "ops.safetensors")


if __name__ == "__main__":
    main()
