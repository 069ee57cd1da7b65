#!/usr/bin/env python3
"""Adds the states that text encoders make of captions to tar shards.

  encode_text.py MODEL SHARDS OUT [--pipeline FOLDER]
                 [--encoder NAME=FOLDER[,TOKENIZER]]... [--tokens N]
                 [--without t5 [--width N]] [--layers I,J,..] [--batch N]
                 [--device D] [--dtype T] [--part K/N]

MODEL says which encoders there are and what becomes of their states, as
diffusers' pipelines have it:

  sd3      clip_l, clip_g, t5: a sequence of 77 tokens of both CLIPs side by
           side, then --tokens (256) of T5; the vectors of both CLIPs
  flux     clip_l, t5: a sequence of --tokens (512) of T5; CLIP's vector
  hidream  clip_l, clip_g, t5, llama: --tokens (128) of T5; the vectors of both
           CLIPs; as many tokens of each of Llama's layers, or of --layers

Encoders and tokenizers are transformers' folders on this machine: those of a
pipeline (text_encoder, tokenizer, text_encoder_2, ..), or each by its name, with
its tokenizer in the same folder unless another is given. Nothing is fetched.

--without t5 makes sd3's states without T5, which is not loaded: --tokens of zeros
of --width channels (4096) stand in its place, or nothing with --tokens 0, and no
encoder_drops names it.

OUT gets a shard for each of SHARDS (docs/formats/shards.md; `trireme data` makes
them of pictures with captions beside them), with its members and `tokens`,
`pooled` and `layers` added, and encoders.json, which says which part of them is
whose. A shard is whole or not there: what was stopped goes on with the same
command, and --part 1/4 to 4/4 share the work between four processes. Samples
without a caption get the states of an empty one; those whose caption is no text
in UTF-8, or no JSON, are left out and named. Both are counted.

At its end it prints the fields of a job that reads OUT. `./dev interop` makes
an environment that has transformers and PyTorch.
"""

import argparse
import collections
import io
import json
import os
import pathlib
import struct
import sys
import tarfile

# The bounds of models/data/text_tokens.h.
MOST_TOKENS, MOST_WIDTH = 4096, 16384

Recipe = collections.namedtuple("Recipe", "encoders tokens")
# The encoders in the order of the pipeline's folders, and the tokens of T5.
RECIPES = {
    "sd3": Recipe(("clip_l", "clip_g", "t5"), 256),
    "flux": Recipe(("clip_l", "t5"), 512),
    "hidream": Recipe(("clip_l", "clip_g", "t5", "llama"), 128),
}
CLIP_TOKENS = 77
# Of T5-XXL, and of what Stable Diffusion 3's transformers read.
SD3_WIDTH = 4096
# HiDream's CLIPs have more positions, of which its pipeline uses no more.
HIDREAM_CLIP_TOKENS = 218
# Ours, which an earlier run may have left.
ENDINGS = ("tokens", "pooled", "layers")


class Mistake(Exception):
    """What the caller can mend; told without a trace."""


class Damaged(Exception):
    """What is wrong with one sample."""


def stem_and_ending(path):
    """ "a/0001.seg.png" is "seg.png" of the sample "a/0001"."""
    folder, slash, name = path.rpartition("/")
    stem, _, ending = name.partition(".")
    return folder + slash + stem, ending


class Encoder:
    """A model and its tokenizer."""

    def __init__(self, name, folders, model, device, dtype):
        import transformers
        folder, tokenizer = folders
        kind = {
            "t5": transformers.T5EncoderModel,
            "llama": transformers.AutoModel,
        }.get(name, transformers.CLIPTextModel
              if model == "flux" else transformers.CLIPTextModelWithProjection)
        try:
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(
                str(tokenizer), local_files_only=True)
            self.model = kind.from_pretrained(
                str(folder), local_files_only=True, dtype=dtype)
        except (OSError, ValueError) as error:
            raise Mistake(f"{name}: {error}") from error
        self.model = self.model.to(device).eval()
        self.name, self.folder, self.device = name, folder, device
        # As HiDream's pipeline has it.
        if name == "llama":
            self.tokenizer.pad_token = self.tokenizer.eos_token

    def run(self, captions, tokens, masked, **arguments):
        """The model's outputs of captions, filled or cut to `tokens` each."""
        inputs = self.tokenizer(
            captions, padding="max_length", max_length=tokens, truncation=True,
            return_tensors="pt")
        if masked:
            arguments["attention_mask"] = inputs.attention_mask.to(self.device)
        return self.model(inputs.input_ids.to(self.device), **arguments)

    def clip_tokens(self, wanted):
        return min(wanted, self.model.config.max_position_embeddings)


class States:
    """What is written of a batch of captions: arrays of fp32, samples first,
    and which part of them each encoder made."""

    def __init__(self):
        self.text, self.pooled, self.layers = None, None, None
        self.parts = collections.defaultdict(list)

    def add_pooled(self, outputs):
        """Of encoders by their names, side by side."""
        import torch
        channel = 0
        for name, pooled in outputs.items():
            self.parts[name].append({"field": "text_pooled",
                                     "first_channel": channel,
                                     "channels": pooled.shape[-1]})
            channel += pooled.shape[-1]
        self.pooled = torch.cat(list(outputs.values()), -1)


def encode_sd3(encoders, captions, options):
    import torch
    states = States()
    sequences, pooled, channel = [], {}, 0
    for name in ("clip_l", "clip_g"):
        encoder = encoders[name]
        outputs = encoder.run(captions, encoder.clip_tokens(CLIP_TOKENS),
                              masked=False, output_hidden_states=True)
        sequences.append(outputs.hidden_states[-2])
        pooled[name] = outputs.text_embeds
        width = sequences[-1].shape[-1]
        states.parts[name].append(
            {"field": "text", "tokens": sequences[-1].shape[1],
             "first_channel": channel, "channels": width})
        channel += width
    clip = torch.cat(sequences, -1)
    if options.without:
        t5 = clip.new_zeros(len(captions), options.tokens, options.width)
    else:
        t5 = encoders["t5"].run(captions, options.tokens,
                                masked=False).last_hidden_state
        states.parts["t5"].append({"field": "text",
                                   "first_token": clip.shape[1],
                                   "tokens": t5.shape[1]})
    if channel > t5.shape[-1]:
        raise Mistake(f"clip_l, clip_g: found {channel} channels together, "
                      f"expected at most the {t5.shape[-1]} of " +
                      ("--width" if options.without else "t5"))
    clip = torch.nn.functional.pad(clip, (0, t5.shape[-1] - channel))
    states.text = torch.cat([clip, t5], 1)
    states.add_pooled(pooled)
    return states


def encode_flux(encoders, captions, options):
    states = States()
    states.text = encoders["t5"].run(captions, options.tokens,
                                     masked=False).last_hidden_state
    states.parts["t5"].append({"field": "text"})
    clip = encoders["clip_l"]
    states.add_pooled({"clip_l": clip.run(
        captions, clip.clip_tokens(CLIP_TOKENS), masked=False).pooler_output})
    return states


def encode_hidream(encoders, captions, options):
    import torch
    states = States()
    states.text = encoders["t5"].run(captions, options.tokens,
                                     masked=True).last_hidden_state
    states.parts["t5"].append({"field": "text"})
    pooled = {}
    for name in ("clip_l", "clip_g"):
        encoder = encoders[name]
        pooled[name] = encoder.run(
            captions,
            encoder.clip_tokens(min(options.tokens, HIDREAM_CLIP_TOKENS)),
            masked=False).text_embeds
    states.add_pooled(pooled)
    layers = encoders["llama"].run(
        captions, options.tokens, masked=True,
        output_hidden_states=True).hidden_states[1:]
    chosen = range(len(layers)) if options.layers is None else options.layers
    for layer in chosen:
        if layer >= len(layers):
            raise Mistake(f"--layers: found {layer}, expected 0 to "
                          f"{len(layers) - 1}")
    states.layers = torch.stack([layers[layer] for layer in chosen], 1)
    states.parts["llama"].append({"field": "text_layers"})
    return states


ENCODE = {"sd3": encode_sd3, "flux": encode_flux, "hidream": encode_hidream}


def folders_of(options):
    """By name, the folders of each encoder and its tokenizer."""
    folders = {}
    names = [name for name in RECIPES[options.model].encoders
             if name != options.without]
    if options.pipeline is not None:
        for i, name in enumerate(names):
            number = "" if i == 0 else f"_{i + 1}"
            folders[name] = (options.pipeline / f"text_encoder{number}",
                             options.pipeline / f"tokenizer{number}")
    for text in options.encoder:
        name, equals, paths = text.partition("=")
        if not equals or name not in names:
            raise Mistake(f"--encoder: found '{text}', expected NAME=FOLDER with "
                          f"one of {', '.join(names)}")
        folder, _, tokenizer = paths.partition(",")
        folders[name] = (pathlib.Path(folder), pathlib.Path(tokenizer or folder))
    for name in names:
        if name not in folders:
            raise Mistake(f"--encoder: found none for {name}, expected "
                          f"{', '.join(names)}, or --pipeline")
    for name in names:
        for path in folders[name]:
            if not path.is_dir():
                spare = (", or --without t5"
                         if (options.model, name) == ("sd3", "t5") else "")
                raise Mistake(f"{name}: found no folder {path}, expected one of "
                              f"transformers{spare}")
    return folders


def serialize(states):
    """[tokens, width] as shards have it."""
    tokens, width = states.shape
    return struct.pack("<II", tokens, width) + states.numpy().astype(
        "<f4").tobytes()


def caption_of(members):
    """As Trireme reads it: txt, or else json."""
    by_ending = {}
    for path, content in members:
        by_ending.setdefault(stem_and_ending(path)[1], (path, content))
    path, content = by_ending.get("txt") or by_ending.get("json", ("", b""))
    try:
        text = content.decode("utf-8")
        if not path.endswith(".json"):
            return text.strip()
        found = json.loads(text)
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise Damaged(f"{path}: {error}") from error
    if not isinstance(found, dict):
        raise Damaged(f"{path}: no JSON object")
    for key in ("caption", "text"):
        if isinstance(found.get(key), str):
            return found[key].strip()
    return ""


def samples_of(path):
    """Yields the stem and the members (path, content) of each sample."""
    with tarfile.open(path, "r:") as tar:
        stem, members = None, []
        for info in tar:
            if not info.isfile():
                continue
            own, ending = stem_and_ending(info.name)
            if own != stem and members:
                yield stem, members
                members = []
            stem = own
            if ending not in ENDINGS:
                members.append((info.name, tar.extractfile(info).read()))
        if members:
            yield stem, members


class Work:
    """The encoders, and what has been done with them."""

    def __init__(self, options):
        self.options = options
        folders = folders_of(options)
        import torch
        device = options.device or (
            "cuda" if torch.cuda.is_available() else "cpu")
        dtype = getattr(torch, options.dtype or (
            "float32" if device == "cpu" else "bfloat16"))
        self.encoders = {
            name: Encoder(name, paths, options.model, device, dtype)
            for name, paths in folders.items()}
        self.samples, self.uncaptioned, self.damaged = 0, 0, 0

    def encode(self, captions):
        import torch
        with torch.no_grad():
            states = ENCODE[self.options.model](self.encoders, captions,
                                                self.options)
        for field in ("text", "pooled", "layers"):
            values = getattr(states, field)
            if values is not None:
                setattr(states, field, values.float().cpu())
        return states

    def summary(self):
        """What encoders.json says: of an empty caption."""
        states = self.encode([""])
        sizes = {"tokens": states.text.shape[1], "width": states.text.shape[2],
                 "pooled_width": states.pooled.shape[1]}
        if states.layers is not None:
            _, layers, tokens, width = states.layers.shape
            sizes |= {"layers": layers, "layer_tokens": tokens,
                      "layer_width": width}
        for name, tokens in (("tokens", sizes["tokens"]),
                             ("layers", sizes.get("layers", 0)
                              * sizes.get("layer_tokens", 0))):
            if tokens > MOST_TOKENS:
                raise Mistake(f"{name}: found {tokens} tokens of a sample, "
                              f"expected at most {MOST_TOKENS} (--tokens, "
                              "--layers)")
        if max(sizes["width"], sizes.get("layer_width", 0)) > MOST_WIDTH:
            raise Mistake(f"found states wider than {MOST_WIDTH} channels")
        return {"model": self.options.model, "text": sizes, "encoders": {
            name: {"folder": str(encoder.folder.resolve()),
                   "parts": states.parts[name]}
            for name, encoder in self.encoders.items()}}

    def write(self, source, target):
        """One shard."""
        partial = target.with_name(f".{target.name}.partial")
        batch = []
        with tarfile.open(partial, "w:", format=tarfile.PAX_FORMAT) as tar:
            for stem, members in samples_of(source):
                try:
                    batch.append((stem, members, caption_of(members)))
                except Damaged as damage:
                    self.damaged += 1
                    print(f"leaving out {source}:{damage}", file=sys.stderr)
                if len(batch) == self.options.batch:
                    self.add(source, batch, tar)
                    batch = []
            if batch:
                self.add(source, batch, tar)
        with open(partial, "rb") as written:
            os.fsync(written.fileno())
        os.replace(partial, target)

    def add(self, source, batch, tar):
        import torch
        captions = [caption for _, _, caption in batch]
        self.samples += len(captions)
        self.uncaptioned += captions.count("")
        states = self.encode(captions)
        for i, (stem, members, _) in enumerate(batch):
            own = [("tokens", states.text[i]), ("pooled", states.pooled[i:i + 1])]
            if states.layers is not None:
                own.append(("layers", states.layers[i].flatten(0, 1)))
            for ending, values in own:
                if not torch.isfinite(values).all():
                    raise Mistake(f"{source}:{stem}: found {ending} that are not "
                                  "finite, expected finite ones (--dtype "
                                  "float32?)")
                members = members + [(f"{stem}.{ending}", serialize(values))]
            for path, content in members:
                info = tarfile.TarInfo(path)
                info.size, info.mode = len(content), 0o644
                tar.addfile(info, io.BytesIO(content))


def shards_of(folder):
    shards = sorted(path for path in folder.glob("*.tar")
                    if not path.name.startswith("."))
    if not shards:
        raise Mistake(f"SHARDS: found no .tar file in {folder}, expected one")
    return shards


def prepare(out, summary):
    """The folder, with what is in it being of the same encoders."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "encoders.json"
    text = json.dumps(summary, indent=2) + "\n"
    if path.exists():
        if path.read_text(encoding="utf-8") != text:
            raise Mistake(f"{path}: found other encoders, expected the same, or "
                          "an OUT without any")
        return
    if any(out.glob("*.tar")):
        raise Mistake(f"OUT: found .tar files of others in {out}, expected a new "
                      "folder, or one of the same command")
    partial = out / f".encoders.json.{os.getpid()}"
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)


def job_fields(summary):
    """As text of a job."""
    sizes = " ".join(f"{name}: {value}"
                     for name, value in summary["text"].items())
    lines = [f"text {{ {sizes} }}"]
    for name, encoder in summary["encoders"].items():
        parts = ""
        for part in encoder["parts"]:
            fields = " ".join(f"{key}: {json.dumps(value)}"
                              for key, value in part.items() if value != 0)
            parts += f" parts {{ {fields} }}"
        lines.append(f'encoder_drops {{ encoder: "{name}" probability: 0{parts} }}')
    return lines


def part_of(text):
    part, slash, parts = text.partition("/")
    if not (slash and part.isdigit() and parts.isdigit()
            and 1 <= int(part) <= int(parts)):
        raise argparse.ArgumentTypeError(f"found '{text}', expected K/N with K "
                                         "from 1 to N")
    return int(part), int(parts)


def at_least_one(text):
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"found '{text}', expected 1 or more")
    return int(text)


def layers_of(text):
    if not all(layer.isdigit() for layer in text.split(",")):
        raise argparse.ArgumentTypeError(f"found '{text}', expected numbers of "
                                         "layers from 0, with commas")
    return [int(layer) for layer in text.split(",")]


def parse(arguments):
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", metavar="MODEL", choices=RECIPES)
    parser.add_argument("shards", metavar="SHARDS", type=pathlib.Path)
    parser.add_argument("out", metavar="OUT", type=pathlib.Path)
    parser.add_argument("--pipeline", type=pathlib.Path)
    parser.add_argument("--encoder", action="append", default=[])
    parser.add_argument("--without", choices=["t5"])
    parser.add_argument("--tokens", type=int)
    parser.add_argument("--width", type=at_least_one)
    parser.add_argument("--layers", type=layers_of)
    parser.add_argument("--batch", type=at_least_one, default=16)
    parser.add_argument("--device")
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--part", type=part_of, default=(1, 1))
    options = parser.parse_args(arguments)
    if options.layers is not None and options.model != "hidream":
        parser.error("--layers: found with a model that reads no layers, "
                     "expected with hidream")
    if options.without and options.model != "sd3":
        parser.error(f"--without: found with {options.model}, whose sequence is "
                     "T5's, expected with sd3")
    if options.width is not None and not options.without:
        parser.error("--width: found with T5, whose width it is, expected with "
                     "--without t5")
    if options.tokens is None:
        options.tokens = RECIPES[options.model].tokens
    least = 0 if options.without else 1
    if options.tokens < least:
        parser.error(f"--tokens: found {options.tokens}, expected {least} or "
                     "more")
    if options.width is None:
        options.width = SD3_WIDTH
    return options


def run(options):
    shards = shards_of(options.shards)
    if options.out.resolve() == options.shards.resolve():
        raise Mistake("OUT: found SHARDS itself, expected another folder")
    work = Work(options)
    summary = work.summary()
    prepare(options.out, summary)
    part, parts = options.part
    own = shards[part - 1::parts]
    for done, shard in enumerate(own, 1):
        target = options.out / shard.name
        if not target.exists():
            work.write(shard, target)
        print(f"{done}/{len(own)} shards", flush=True)
    names = options.shards / "classes.txt"
    if names.exists():
        (options.out / names.name).write_bytes(names.read_bytes())
    print(f"states of {work.samples} captions in {options.out}; "
          f"{work.uncaptioned} of them empty, {work.damaged} samples left out")
    print("\n".join(job_fields(summary)))


def main():
    try:
        run(parse(None))
    except (Mistake, OSError, tarfile.TarError) as error:
        sys.exit(f"encode_text.py: {error}")


if __name__ == "__main__":
    main()
