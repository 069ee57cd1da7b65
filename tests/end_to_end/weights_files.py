"""Folders of weights and inputs out of tests/goldens/mmdit.safetensors, and the
comparison of what `trireme forward` makes of them with what diffusers did.

  weights_files.py make GOLDENS VARIANT FOLDER   FOLDER/transformer, inputs
  weights_files.py compare GOLDENS VARIANT OUTPUT ONE_RANKS_OUTPUT
  weights_files.py equal SAFETENSORS SAFETENSORS

Needs nothing but Python.
"""

import itertools
import json
import math
import pathlib
import struct
import sys

PATCH = 2
CONFIGS = {
    "sd35": {"_class_name": "SD3Transformer2DModel", "sample_size": 8,
             "patch_size": 2, "in_channels": 2, "out_channels": 2,
             "num_layers": 2, "attention_head_dim": 8,
             "num_attention_heads": 2, "joint_attention_dim": 6,
             "caption_projection_dim": 16, "pooled_projection_dim": 5,
             "pos_embed_max_size": 6, "qk_norm": "rms_norm",
             "dual_attention_layers": [0]},
    # Published ones leave out what has its default.
    "flux": {"_class_name": "FluxTransformer2DModel",
             "_diffusers_version": "0.30.0.dev0",
             "in_channels": 8, "num_layers": 1,
             "num_single_layers": 2, "attention_head_dim": 8,
             "num_attention_heads": 2, "joint_attention_dim": 6,
             "pooled_projection_dim": 5, "guidance_embeds": True,
             "axes_dims_rope": [4, 2, 2]},
}

# Of tests/goldens/autoencoder.safetensors.
AUTOENCODERS = {
    "sd": {"block_out_channels": [4, 6], "latent_channels": 2,
           "layers_per_block": 2},
    "flux": {"block_out_channels": [2, 4, 4], "latent_channels": 3,
             "use_quant_conv": False, "use_post_quant_conv": False},
}


def read(path):
    data = pathlib.Path(path).read_bytes()
    length = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8:8 + length])
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        code = {"F32": "f", "F64": "d"}[entry["dtype"]]
        begin, end = (8 + length + at for at in entry["data_offsets"])
        tensors[name] = (entry["shape"], list(struct.unpack(
            f"<{(end - begin) // struct.calcsize(code)}{code}",
            data[begin:end])))
    return tensors


def read_checkpoint(folder, kind):
    """Logical tensors of a checkpoint, whose parts may lie in several files."""
    folder = pathlib.Path(folder)
    index = folder / f"{kind}.index.json"
    if not index.exists():
        return read(folder / f"{kind}.safetensors")
    tensors = {}
    for name, entry in json.loads(index.read_text())["tensors"].items():
        shape = entry["shape"]
        whole = [None] * math.prod(shape)
        for part in entry["parts"]:
            ranges = [range(size) for size in shape]
            for dim, parts, at in part["shards"]:
                size = len(ranges[dim]) // parts
                ranges[dim] = ranges[dim][at * size:(at + 1) * size]
            values = read(folder / part["file"])[name][1]
            places = list(itertools.product(*ranges))
            places = places[part["begin"]:part["end"]]
            assert len(places) == len(values), name
            for place, value in zip(places, values):
                flat = 0
                for size, at in zip(shape, place):
                    flat = flat * size + at
                assert whole[flat] is None, name
                whole[flat] = value
        assert None not in whole, name
        tensors[name] = (shape, whole)
    return tensors


def write(path, tensors):
    header, data = {}, b""
    for name, (shape, values) in tensors.items():
        packed = struct.pack(f"<{len(values)}f", *values)
        header[name] = {"dtype": "F32", "shape": shape,
                        "data_offsets": [len(data), len(data) + len(packed)]}
        data += packed
    text = json.dumps(header).encode()
    pathlib.Path(path).write_bytes(struct.pack("<Q", len(text)) + text + data)


def write_autoencoder(goldens, variant):
    """The folder `variant` of an AutoencoderKL, out of the goldens of it."""
    config = AUTOENCODERS[variant]
    folder = pathlib.Path(variant)
    folder.mkdir()
    prefix = variant + ".weights."
    write(folder / "diffusion_pytorch_model.safetensors",
          {name.removeprefix(prefix): tensor
           for name, tensor in sorted(read(goldens).items())
           if name.startswith(prefix)})
    levels = len(config["block_out_channels"])
    (folder / "config.json").write_text(json.dumps(
        {"_class_name": "AutoencoderKL", "norm_num_groups": 2,
         "down_block_types": ["DownEncoderBlock2D"] * levels,
         "up_block_types": ["UpDecoderBlock2D"] * levels,
         "scaling_factor": 0.5, "shift_factor": 0.25, **config}))


def packed(tensor):
    """Pictures as FLUX has them: patches as tokens, channels outermost."""
    (n, c, h, w), values = tensor
    rows, columns = h // PATCH, w // PATCH
    result = [values[((i * c + k) * h + row * PATCH + p) * w
                     + column * PATCH + q]
              for i in range(n) for row in range(rows)
              for column in range(columns) for k in range(c)
              for p in range(PATCH) for q in range(PATCH)]
    return [n, rows * columns, c * PATCH * PATCH], result


def as_class_has(variant, tensor):
    return packed(tensor) if variant == "flux" else tensor


def make(goldens, variant, folder):
    transformer = pathlib.Path(folder) / "transformer"
    transformer.mkdir(parents=True)
    prefix = variant + ".weights."
    write(transformer / "diffusion_pytorch_model.safetensors",
          {name.removeprefix(prefix): tensor
           for name, tensor in sorted(goldens.items())
           if name.startswith(prefix)})
    (transformer / "config.json").write_text(
        json.dumps(CONFIGS[variant], indent=2, sort_keys=True) + "\n")
    (pathlib.Path(folder) / "model_index.json").write_text(json.dumps(
        {"_class_name": "DiffusionPipeline",
         "transformer": ["diffusers", CONFIGS[variant]["_class_name"]]}))
    shape, y = goldens[variant + ".y"]
    target = goldens["inputs.target"][1]
    # The gradient of the mean squared error.
    cotangent = shape, [2 * (a - b) / len(y) for a, b in zip(y, target)]
    n, sigmas = goldens["inputs.sigmas"]
    inputs = {"hidden_states": as_class_has(variant, goldens["inputs.x"]),
              "encoder_hidden_states": goldens["inputs.text"],
              "pooled_projections": goldens["inputs.pooled"],
              "cotangent": as_class_has(variant, cotangent)}
    if variant == "flux":
        rows, columns = shape[2] // PATCH, shape[3] // PATCH
        inputs["timestep"] = n, sigmas
        inputs["guidance"] = goldens["inputs.guidance"]
        inputs["img_ids"] = [rows * columns, 3], [
            float(x) for row in range(rows) for column in range(columns)
            for x in (0, row, column)]
        tokens = goldens["inputs.text"][0][1]
        inputs["txt_ids"] = [tokens, 3], [0.0] * (3 * tokens)
    else:
        inputs["timestep"] = n, [1000 * sigma for sigma in sigmas]
    write(pathlib.Path(folder) / "inputs.safetensors", inputs)


def compare(goldens, variant, output, one):
    found, of_one_rank = read(output), read(one)
    expected = {"gradient." + name.removeprefix(variant + ".grad."): tensor
                for name, tensor in goldens.items()
                if name.startswith(variant + ".grad.")}
    expected["sample"] = as_class_has(variant, goldens[variant + ".y"])
    # The goldens have no gradients of inputs.
    for name in ("hidden_states", "encoder_hidden_states",
                 "pooled_projections"):
        expected["gradient." + name] = of_one_rank["gradient." + name]
        assert any(of_one_rank["gradient." + name][1]), name
    assert found.keys() == expected.keys(), found.keys() ^ expected.keys()
    for name, (shape, values) in expected.items():
        assert found[name][0] == shape, (name, found[name][0], shape)
        largest = max(map(abs, values))
        # Computed in fp64, and not rounded on its way here.
        assert any(value != struct.unpack("f", struct.pack("f", value))[0]
                   for value in found[name][1]) or not largest, name
        error = max(abs(a - b) for a, b in zip(values, found[name][1]))
        assert error <= 2e-6 * largest, (name, error, largest)


def equal(one, other):
    one, other = read(one), read(other)
    assert one.keys() == other.keys(), one.keys() ^ other.keys()
    for name in one:
        assert one[name] == other[name], name


def main():
    command, *arguments = sys.argv[1:]
    if command == "equal":
        return equal(*arguments)
    goldens, variant, *paths = arguments
    {"make": make, "compare": compare}[command](read(goldens), variant, *paths)


if __name__ == "__main__":
    main()
