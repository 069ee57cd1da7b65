"""What examples say and the program does not do.

  examples_test.py TRIREME EXAMPLE...

Each begins with a comment that has a command; its commands are the program's,
with options that --help names, on examples that are there. A plan is resolved,
a job as well, with a plan for it; where the data are here its memory is found
by a dry step. In the place of latents that have to be made first, their
description stands in, with one sample of zeros where a job is rehearsed under
a plan for a cluster that nobody here has.
"""

import io
import json
import os
import re
import struct
import subprocess
import sys
import tarfile
import tempfile

TRIREME = os.path.abspath(sys.argv[1])
EXAMPLES = [os.path.abspath(path) for path in sys.argv[2:]]
FASHION_MNIST = "/usr/share/datasets/fashion-mnist"
# By example: folder, and what latents.json says beside what all have.
LATENTS = {
    "hidream_i1": ("latents", {"channels": 16, "height": 128, "width": 128}),
    "pandora3d_geometry": ("latents", {"channels": 64, "height": 1,
                                       "width": 2048, "sets": True}),
    "sparse_latents": ("voxel_latents", {"channels": 16, "height": 1,
                                         "width": 256, "lattice": 8,
                                         "sets": True}),
    "splatflow": ("latents", {"channels": 38, "height": 256, "width": 32,
                              "views": 8, "extra_channels": 6}),
    "triflow": ("triplanes", {"channels": 32, "height": 192, "width": 64,
                              "views": 3, "autoencoder": ""}),
    "triposg_latents": ("latents", {"channels": 64, "height": 1,
                                    "width": 256, "sets": True}),
}
# By example: the plan beside it for a cluster, its ranks, what is said of the
# model, and the GiB that the planner counts with on one of its devices.
REHEARSED = {
    "hidream_i1": ("hidream_i1_64_h100", 64, "17.11 Gparameters", 72.5),
}
PEAK = re.compile(r"^ +\d+ +([\d.]+) GiB  ", re.MULTILINE)
COMMAND = re.compile(r"^trireme ([a-z]+)([^\n#;|]*)", re.MULTILINE)
OPTION = re.compile(r"\s--([a-z][a-z0-9_]*)")
EXAMPLE = re.compile(r"\bexamples/[\w.]+")


def run(*arguments):
    """Its status, and what it printed."""
    done = subprocess.run([TRIREME, *arguments], check=False,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout.decode()


def options_of(command, known={}):  # pylint: disable=dangerous-default-value
    """What its --help names; None of no command."""
    if command not in known:
        status, text = run(command, "--help")
        known[command] = (set(re.findall(r"^  --([a-z0-9_]+)", text,
                                         re.MULTILINE))
                          if status == 0 else None)
    return known[command]


def comment_of(text):
    """The lines before the first that is none of it, without their marks."""
    lines = []
    for line in text.split("\n"):
        if not line.startswith("#"):
            break
        lines.append(line[1:].strip())
    # A line that ends in a backslash goes on.
    return "\n".join(lines).replace("\\\n", " ")


def wrong_comment(comment):
    """What is wrong with it."""
    commands = COMMAND.findall(comment)
    if not commands:
        yield "no command in the comment that it begins with"
    for command, rest in commands:
        known = options_of(command)
        if known is None:
            yield f"trireme {command}: no such command"
            continue
        for option in OPTION.findall(rest):
            if option not in known:
                yield f"trireme {command} --{option}: no such option"
    names = {os.path.basename(path) for path in EXAMPLES}
    for path in EXAMPLE.findall(comment):
        if os.path.basename(path) not in names and path.endswith(".textproto"):
            yield f"{path}: no such example"


def stand_in(folder, says):
    """Latents as far as a job is resolved by them."""
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/latents.json", "w", encoding="utf-8") as file:
        json.dump({"autoencoder": "vae", "weights_xxh64": "0",
                   "scaling_factor": 1.0, "shift_factor": 0.0, "pictures": 64,
                   "pictures_hash": 1, "pictures_per_shard": 64, **says}, file)
    with tarfile.open(f"{folder}/shard-000000.tar", "w",
                      format=tarfile.USTAR_FORMAT) as shard:
        sizes = [says[name] for name in ("channels", "height", "width")]
        zeros = bytes(2 * 4 * sizes[0] * sizes[1] * sizes[2])
        member = tarfile.TarInfo("000000000.latents")
        data = struct.pack("<III", *sizes) + zeros
        member.size = len(data)
        shard.addfile(member, io.BytesIO(data))


def wrong_rehearsal(path, plan, ranks, model, limit_gib):
    """What is wrong with a dry step of every rank of the plan."""
    plan = os.path.join(os.path.dirname(path), plan + ".textproto")
    status, said = run("train", path, "--plan", plan, "--dry_run")
    peaks = [float(peak) for peak in PEAK.findall(said)]
    if status != 0 or model not in said or len(peaks) != ranks:
        yield f"not rehearsed: {said}"
    elif max(peaks) > limit_gib:
        yield f"a peak of {max(peaks)} GiB, expected at most {limit_gib}"


def wrong_example(path):
    """What is wrong with it."""
    with open(path, encoding="utf-8") as file:
        text = file.read()
    yield from wrong_comment(comment_of(text))
    if not re.search(r"^model\b", text, re.MULTILINE):
        status, said = run("inspect", path)
        if status != 0 or "grid" not in said:
            yield f"no plan: {said}"
        return
    name = os.path.basename(path).removesuffix(".textproto")
    if name in LATENTS:
        stand_in(*LATENTS[name])
    status, said = run("launch", path, "--emit", "kubernetes", "--ranks", "1")
    if status != 0:
        yield f"not resolved: {said}"
    elif name in REHEARSED:
        yield from wrong_rehearsal(path, *REHEARSED[name])
    elif FASHION_MNIST in text and os.path.isdir(FASHION_MNIST):
        status, said = run("train", path, "--dry_run")
        if status != 0 or "at the peak" not in said:
            yield f"no dry step: {said}"


def main():
    os.environ["OMP_NUM_THREADS"] = "1"
    failed = False
    with tempfile.TemporaryDirectory(prefix="trireme.") as work:
        os.chdir(work)
        for path in EXAMPLES:
            if not path.endswith(".textproto"):
                continue
            for wrong in wrong_example(path):
                print(f"{path}: {wrong}")
                failed = True
    print(f"{len(EXAMPLES)} files")
    return 1 if failed or len(EXAMPLES) < 20 else 0


if __name__ == "__main__":
    sys.exit(main())
