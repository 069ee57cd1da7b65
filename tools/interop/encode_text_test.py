"""Shards get the states that diffusers' own pipelines make of captions.

Tiny random encoders and tokenizers; skipped where there is no transformers or
no diffusers (`./dev interop` has them).
"""

import contextlib
import io
import json
import pathlib
import struct
import shutil
import subprocess
import sys
import tarfile
import tempfile
import unittest

try:
    import diffusers
    import torch
    import transformers
except ImportError:
    diffusers = None

from tools.interop import encode_text

CAPTIONS = ["an ankle boot", "", "a cat that is longer than all others " * 9,
            "zwei Äpfel"]
CLIP_TOKENS, CLIP_L, CLIP_G, T5, LLAMA = 77, 8, 12, 24, 16


def save_tokenizer(folder, special, model, before=None, after=None):
    """Of single bytes, with the special tokens that its model has."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from tokenizers.processors import TemplateProcessing
    vocabulary = {}
    for token in special + pre_tokenizers.ByteLevel.alphabet():
        vocabulary.setdefault(token, len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    single = [before, "$A", after]
    used = [token for token in (before, after) if token is not None]
    tokenizer.post_processor = TemplateProcessing(
        single=[token for token in single if token is not None],
        special_tokens=[(token, vocabulary[token]) for token in set(used)])
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=model,
        pad_token=special[0], eos_token=after or special[-1],
        bos_token=before).save_pretrained(folder)
    return len(vocabulary)


def fill(model):
    """No zeros or ones, which hide mistakes."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.3)
    return model.eval()


def clip(folder, width, projected, positions=CLIP_TOKENS):
    words = save_tokenizer(f"{folder}/tokenizer", ["<end>", "<start>"],
                           positions, "<start>", "<end>")
    config = transformers.CLIPTextConfig(
        vocab_size=words, hidden_size=width, intermediate_size=2 * width,
        num_hidden_layers=3, num_attention_heads=2, projection_dim=width + 2,
        max_position_embeddings=positions, bos_token_id=1, eos_token_id=0,
        pad_token_id=0)
    kind = (transformers.CLIPTextModelWithProjection
            if projected else transformers.CLIPTextModel)
    fill(kind(config)).save_pretrained(f"{folder}/text_encoder")


def t5(folder):
    words = save_tokenizer(f"{folder}/tokenizer", ["<pad>", "</s>"], 512, None,
                           "</s>")
    config = transformers.T5Config(
        vocab_size=words, d_model=T5, d_kv=6, d_ff=30, num_layers=2,
        num_heads=4, feed_forward_proj="gated-gelu")
    fill(transformers.T5EncoderModel(config)).save_pretrained(
        f"{folder}/text_encoder")


def llama(folder):
    words = save_tokenizer(f"{folder}/tokenizer", ["<end>", "<begin>"], 512,
                           "<begin>", None)
    config = transformers.LlamaConfig(
        vocab_size=words, hidden_size=LLAMA, intermediate_size=20,
        num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2)
    fill(transformers.LlamaForCausalLM(config)).save_pretrained(
        f"{folder}/text_encoder")


def write_shards(folder):
    """Two shards; captions in txt and json, and states that are out of date."""
    folder.mkdir()
    for shard in range(2):
        with tarfile.open(folder / f"shard-{shard:06}.tar", "w") as tar:
            for i in range(shard, len(CAPTIONS), 2):
                caption = CAPTIONS[i]
                members = {"png": b"picture %d" % i, "tokens": b"old"}
                if i == 3:
                    members["json"] = json.dumps({"caption": caption}).encode()
                elif caption:
                    members["txt"] = caption.encode()
                for ending, content in members.items():
                    info = tarfile.TarInfo(f"a/{i:04}.{ending}")
                    info.size = len(content)
                    tar.addfile(info, io.BytesIO(content))
    (folder / "classes.txt").write_text("boot\n")


def read_shards(folder):
    """By the sample's number, its members."""
    samples = {}
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for info in tar:
                stem, ending = encode_text.stem_and_ending(info.name)
                sample = samples.setdefault(int(stem.removeprefix("a/")), {})
                assert ending not in sample, info.name
                sample[ending] = tar.extractfile(info).read()
    return samples


def states(content):
    tokens, width = struct.unpack_from("<II", content)
    assert len(content) == 8 + 4 * tokens * width
    return torch.frombuffer(bytearray(content[8:]), dtype=torch.float32).reshape(
        tokens, width)


@unittest.skipIf(diffusers is None, "no diffusers, transformers or torch")
class EncodeTextTest(unittest.TestCase):

    def setUp(self):
        torch.manual_seed(1)
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        diffusers.logging.set_verbosity_error()
        self.root = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        self.out = self.root / "out"
        write_shards(self.root / "shards")

    def make(self, name, build, *arguments):
        build(str(self.root / name), *arguments)
        folder = self.root / name
        return f"{name}={folder}/text_encoder,{folder}/tokenizer"

    def load(self, name, kind):
        folder = self.root / name
        return (kind.from_pretrained(folder / "text_encoder"),
                transformers.AutoTokenizer.from_pretrained(folder / "tokenizer"))

    def encode(self, model, encoders, *more):
        arguments = [model, str(self.root / "shards"), str(self.out), "--batch",
                     "3", *more]
        for encoder in encoders:
            arguments += ["--encoder", encoder]
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            encode_text.run(encode_text.parse(arguments))
        return printed.getvalue()

    def check(self, text, pooled, layers=None):
        samples = read_shards(self.out)
        self.assertEqual(sorted(samples), list(range(len(CAPTIONS))))
        for i, sample in samples.items():
            self.assertEqual(sample["png"], b"picture %d" % i)
            torch.testing.assert_close(states(sample["tokens"]), text[i])
            torch.testing.assert_close(states(sample["pooled"]), pooled[i][None])
            self.assertEqual("layers" in sample, layers is not None)
            if layers is not None:
                torch.testing.assert_close(states(sample["layers"]),
                                           layers[:, i].flatten(0, 1))
        self.assertEqual((self.out / "classes.txt").read_text(), "boot\n")
        return json.loads((self.out / "encoders.json").read_text())

    def test_sd3(self):
        encoders = [self.make("clip_l", clip, CLIP_L, True),
                    self.make("clip_g", clip, CLIP_G, True),
                    self.make("t5", t5)]
        printed = self.encode("sd3", encoders, "--tokens", "20")
        projected = transformers.CLIPTextModelWithProjection
        encoder, tokenizer = self.load("clip_l", projected)
        encoder_2, tokenizer_2 = self.load("clip_g", projected)
        encoder_3, tokenizer_3 = self.load("t5", transformers.T5EncoderModel)
        pipeline = diffusers.StableDiffusion3Pipeline(
            None, None, None, encoder, tokenizer, encoder_2, tokenizer_2,
            encoder_3, tokenizer_3)
        with torch.no_grad():
            text, _, pooled, _ = pipeline.encode_prompt(
                CAPTIONS, None, None, do_classifier_free_guidance=False,
                max_sequence_length=20)
        self.assertEqual(text.shape, (4, CLIP_TOKENS + 20, T5))
        about = self.check(text, pooled)
        self.assertEqual(about["text"], {"tokens": 97, "width": T5,
                                         "pooled_width": CLIP_L + CLIP_G + 4})
        # What a job drops of an encoder is what it alone made.
        self.assertEqual(about["encoders"]["clip_g"]["parts"], [
            {"field": "text", "tokens": 77, "first_channel": CLIP_L,
             "channels": CLIP_G},
            {"field": "text_pooled", "first_channel": CLIP_L + 2,
             "channels": CLIP_G + 2}])
        self.assertIn("text { tokens: 97 width: 24 pooled_width: 24 }", printed)
        self.assertIn('encoder_drops { encoder: "t5" probability: 0 parts { '
                      'field: "text" first_token: 77 tokens: 20 } }', printed)
        self.assertIn("states of 4 captions", printed)
        self.assertIn("1 of them empty", printed)

    def test_sd3_without_t5(self):
        encoders = [self.make("clip_l", clip, CLIP_L, True),
                    self.make("clip_g", clip, CLIP_G, True)]
        options = ["--without", "t5", "--width", str(T5)]
        printed = self.encode("sd3", encoders, *options, "--tokens", "20")
        projected = transformers.CLIPTextModelWithProjection
        encoder, tokenizer = self.load("clip_l", projected)
        encoder_2, tokenizer_2 = self.load("clip_g", projected)
        # Whose zeros are as wide as its transformer's text.
        transformer = diffusers.SD3Transformer2DModel(
            sample_size=4, patch_size=1, in_channels=4, num_layers=1,
            attention_head_dim=8, num_attention_heads=2, joint_attention_dim=T5,
            caption_projection_dim=16, pooled_projection_dim=24, out_channels=4)
        pipeline = diffusers.StableDiffusion3Pipeline(
            transformer, None, None, encoder, tokenizer, encoder_2, tokenizer_2,
            None, None)
        with torch.no_grad():
            text, _, pooled, _ = pipeline.encode_prompt(
                CAPTIONS, None, None, do_classifier_free_guidance=False,
                max_sequence_length=20)
        self.assertEqual(text.shape, (4, CLIP_TOKENS + 20, T5))
        about = self.check(text, pooled)
        self.assertEqual(list(about["encoders"]), ["clip_l", "clip_g"])
        self.assertIn("text { tokens: 97 width: 24 pooled_width: 24 }", printed)
        self.assertNotIn('"t5"', printed)
        self.out = self.root / "none"
        self.encode("sd3", encoders, *options, "--tokens", "0")
        about = self.check(text[:, :CLIP_TOKENS], pooled)
        self.assertEqual(about["text"]["tokens"], CLIP_TOKENS)
        self.out = self.root / "narrow"
        with self.assertRaisesRegex(encode_text.Mistake,
                                    "at most the 19 of --width"):
            self.encode("sd3", encoders, "--without", "t5", "--width", "19")

    def test_flux(self):
        encoders = [self.make("clip_l", clip, CLIP_L, False),
                    self.make("t5", t5)]
        self.encode("flux", encoders, "--tokens", "30")
        encoder, tokenizer = self.load("clip_l", transformers.CLIPTextModel)
        encoder_2, tokenizer_2 = self.load("t5", transformers.T5EncoderModel)
        pipeline = diffusers.FluxPipeline(None, None, encoder, tokenizer,
                                          encoder_2, tokenizer_2, None)
        with torch.no_grad():
            text, pooled, _ = pipeline.encode_prompt(CAPTIONS,
                                                     max_sequence_length=30)
        self.check(text, pooled)

    def test_hidream(self):
        encoders = [self.make("clip_l", clip, CLIP_L, True, 248),
                    self.make("clip_g", clip, CLIP_G, True, 248),
                    self.make("t5", t5), self.make("llama", llama)]
        self.encode("hidream", encoders, "--tokens", "40")
        projected = transformers.CLIPTextModelWithProjection
        encoder, tokenizer = self.load("clip_l", projected)
        encoder_2, tokenizer_2 = self.load("clip_g", projected)
        encoder_3, tokenizer_3 = self.load("t5", transformers.T5EncoderModel)
        encoder_4, tokenizer_4 = self.load("llama",
                                           transformers.LlamaForCausalLM)
        encoder_4.set_attn_implementation("eager")
        pipeline = diffusers.HiDreamImagePipeline(
            None, None, encoder, tokenizer, encoder_2, tokenizer_2, encoder_3,
            tokenizer_3, encoder_4, tokenizer_4, None)
        with torch.no_grad():
            text, _, layers, _, pooled, _ = pipeline.encode_prompt(
                CAPTIONS, do_classifier_free_guidance=False,
                max_sequence_length=40)
        self.assertEqual(layers.shape, (3, 4, 40, LLAMA))
        about = self.check(text, pooled, layers)
        self.assertEqual(about["text"]["layers"], 3)
        # Some of the layers alone.
        self.out = self.root / "some"
        self.encode("hidream", encoders, "--tokens", "40", "--layers", "0,2")
        self.check(text, pooled, layers[[0, 2]])

    def test_samples_without_a_readable_caption_are_left_out(self):
        path = self.root / "shards" / "shard-000001.tar"
        # In JSON, where they are escaped.
        damaged = path.read_bytes().replace(b"\\u00c4pf", b"\xff" * 8)
        path.write_bytes(damaged)
        encoders = [self.make("clip_l", clip, CLIP_L, False),
                    self.make("t5", t5)]
        printed = self.encode("flux", encoders, "--tokens", "9")
        self.assertIn("states of 3 captions", printed)
        self.assertIn("1 samples left out", printed)
        self.assertEqual(sorted(read_shards(self.out)), [0, 1, 2])

    def test_what_was_stopped_goes_on_in_parts(self):
        encoders = [self.make("clip_l", clip, CLIP_L, False),
                    self.make("t5", t5)]
        self.encode("flux", encoders, "--tokens", "9", "--part", "2/2")
        second = self.out / "shard-000001.tar"
        self.assertEqual(list(self.out.glob("*.tar")), [second])
        before = second.stat().st_mtime_ns
        (self.out / ".shard-000000.tar.partial").write_bytes(b"stopped")
        printed = self.encode("flux", encoders, "--tokens", "9")
        self.assertIn("states of 2 captions", printed)
        self.assertEqual(second.stat().st_mtime_ns, before)
        self.assertEqual(len(read_shards(self.out)), len(CAPTIONS))
        # Of other encoders there would be two kinds of states in one set.
        with self.assertRaisesRegex(encode_text.Mistake, "other encoders"):
            self.encode("flux", encoders, "--tokens", "10")


class MistakesTest(unittest.TestCase):
    """What is told before anything is loaded."""

    def setUp(self):
        self.root = pathlib.Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)
        write_shards(self.root / "shards")

    def run_with(self, *more):
        encode_text.run(encode_text.parse(
            ["flux", str(self.root / "shards"), str(self.root / "out"), *more]))

    def test_encoders_that_are_not_there_are_named(self):
        for more, told in [
                (["--encoder", "clip_l=/nowhere"], "none for t5"),
                (["--pipeline", "/nowhere"],
                 "clip_l: found no folder /nowhere/text_encoder"),
                (["--encoder", "clip_g=/nowhere"], "one of clip_l, t5"),
                (["--encoder", "t5"], "found 't5', expected NAME=FOLDER")]:
            with self.assertRaisesRegex(encode_text.Mistake, told):
                self.run_with(*more)
        self.assertFalse((self.root / "out").exists())

    def test_t5_may_be_left_out_of_sd3_alone(self):
        for options, told in [
                (["flux", "--without", "t5"], "found with flux"),
                (["sd3", "--width", "24"], "--width: found with T5"),
                (["sd3", "--tokens", "0"], "found 0, expected 1 or more"),
                (["sd3", "--without", "t5", "--tokens", "-1"],
                 "found -1, expected 0 or more")]:
            errors = io.StringIO()
            with contextlib.redirect_stderr(errors), \
                    self.assertRaises(SystemExit):
                encode_text.parse([options[0], "shards", "out", *options[1:]])
            self.assertIn(told, errors.getvalue())
        defaults = encode_text.parse(["sd3", "shards", "out", "--without", "t5"])
        self.assertEqual((defaults.tokens, defaults.width), (256, 4096))
        for name in ("clip_l", "clip_g"):
            (self.root / name).mkdir()
        options = ["sd3", str(self.root / "shards"), str(self.root / "out"),
                   "--encoder", f"clip_l={self.root / 'clip_l'}",
                   "--encoder", f"clip_g={self.root / 'clip_g'}",
                   "--encoder", f"t5={self.root / 't5'}"]
        with self.assertRaisesRegex(encode_text.Mistake, "or --without t5"):
            encode_text.run(encode_text.parse(options))
        with self.assertRaisesRegex(encode_text.Mistake, "one of clip_l, clip_g$"):
            encode_text.run(encode_text.parse(options + ["--without", "t5"]))

    def test_folders_without_shards_are_named(self):
        result = subprocess.run(
            [sys.executable, encode_text.__file__, "sd3", str(self.root),
             str(self.root / "out")], capture_output=True, text=True,
            check=False)
        self.assertEqual(result.returncode, 1)
        self.assertIn("SHARDS: found no .tar file", result.stderr)
        result = subprocess.run(
            [sys.executable, encode_text.__file__, "sd3", "a", "b", "--part",
             "3/2"], capture_output=True, text=True, check=False)
        self.assertEqual(result.returncode, 2)
        self.assertIn("found '3/2', expected K/N", result.stderr)

    def test_captions_are_those_that_trireme_reads(self):
        samples = {}
        for shard in sorted((self.root / "shards").glob("*.tar")):
            for stem, members in encode_text.samples_of(shard):
                samples[stem] = encode_text.caption_of(members)
        self.assertEqual([samples[f"a/{i:04}"] for i in range(len(CAPTIONS))],
                         [caption.strip() for caption in CAPTIONS])
        self.assertEqual(encode_text.caption_of(
            [("a.json", b'{"caption": "of json"}'), ("a.txt", b" of txt\n"),
             ("a.txt", b"later")]), "of txt")
        self.assertEqual(encode_text.caption_of(
            [("a.json", b'{"text": "t", "caption": null}')]), "t")
        for damaged in [("a.txt", b"\xff"), ("a.json", b"{"),
                        ("a.json", b"[1]")]:
            with self.assertRaises(encode_text.Damaged):
                encode_text.caption_of([damaged])


if __name__ == "__main__":
    unittest.main()
