"""Checks that #include lines respect the house: layering.py [ROOT].

A folder includes itself and folders on lower floors only (FLOORS), some
libraries' headers are confined to the folders that wrap them (CONFINED), and
elements of tensors to the code that may touch them (CONFINED_WORDS).
Prints each violation as FILE:LINE: TEXT and fails when there is one.
"""

import os
import re
import sys

FLOORS = {
    "runtime": 0,
    "scheduler": 1,
    "parallel": 2,
    "moe": 3,
    "offload": 3,
    "models": 4,
    "trainer": 5,
    "tools": 6,
}

# All but the folders that serve every family; benchmarks and tests may.
MAY_NAME_FAMILIES = re.compile(
    r"(?!(parallel|scheduler|trainer|tools)/)|tools/bench/|"
    r".*_test(ing)?\.(cc|h)$")
WHY_NOT_FAMILIES = ("a family is known by models/family.h and by the tables "
                    "beside it")

# (headers, paths that may include them, why)
CONFINED = [
    # Families share the folders that are named; sequences of meshes' tokens are
    # data.
    (re.compile(r"models/(?!(autoencoder|data|image|metrics|objective|sampling|"
                r"shape|transformer|weights)/|mesh_tokens/mesh_tokens\.h$)"
                r"\w+/"),
     MAY_NAME_FAMILIES, WHY_NOT_FAMILIES),
    (re.compile(r"mpi(-ext)?\.h$"),
     re.compile(r"runtime/comm/mpi/|tests/mpi_main\.cc$"),
     "MPI is used through Communicator; its header belongs to "
     "runtime/comm/mpi"),
    (re.compile(r"(oneapi/)?dnnl"),
     re.compile(r"runtime/ops/cpu/"),
     "oneDNN is used through runtime/ops; its headers belong to "
     "runtime/ops/cpu"),
    (re.compile(r"(cu(da|blas|dnn)\w*|nccl)\.h$"),
     re.compile(r"runtime/(device|ops|comm)/(cuda|nccl)/"),
     "GPUs are used through Device and Communicator; CUDA's headers belong to "
     "runtime/{device,ops}/cuda and runtime/comm/nccl"),
    (re.compile(r"liburing\.h$"),
     re.compile(r"runtime/device/nvme/"),
     "drives are used through Device; io_uring's header belongs to "
     "runtime/device/nvme"),
    (re.compile(r"google/protobuf/|.*\.pb\.h$"),
     re.compile(r"(?!runtime/)"),
     "runtime is free of Protobuf"),
    (re.compile(r"runtime/(?!core/)"),
     re.compile(r"(?!scheduler/)"),
     "scheduler is pure, without devices and messages: of runtime it uses "
     "runtime/core only"),
]

# (what the code says, paths that may say it, why)
CONFINED_WORDS = [
    (re.compile(r"(\braw_data\b|\bHostView\b|(?:\.|->)data<)"),
     re.compile(r"runtime/(device|ops|comm|checkpoint)/|tests/|tools/bench/|"
                r".*_test(ing)?\.(cc|h)$"),
     "elements are reached where they lie by kernels, messages and files "
     "only; elsewhere by Upload and Download (runtime/device/host.h)"),
    (re.compile(r"\bmodel(?:\(\))?\.((?:has|mutable)_\w+)\("),
     MAY_NAME_FAMILIES, WHY_NOT_FAMILIES),
    (re.compile(r"(<<<|__shared__|\basm\b)"),
     re.compile(r"(?!runtime/ops/cuda/)"),
     "kernels compile for the emulated GPU, too: Launch, KERNEL_SHARED and "
     "DynamicShared (runtime/device/cuda/kernel.cuh), and PTX in "
     "runtime/device/cuda/ptx.cuh"),
]

COMMENT = re.compile(r"//.*")
SOURCE = re.compile(r"\.(cc|h|cu|cuh)$")
INCLUDE = re.compile(r'\s*#\s*include\s*(["<])([^">]+)[">]')


def violations(path, text):
    """The violations in a source file, as (line number, text) pairs.

    `path` is relative to the root, with forward slashes.
    """
    found = []
    folder = path.split("/")[0]
    for number, line in enumerate(text.splitlines(), start=1):
        for words, allowed, why in CONFINED_WORDS:
            said = words.search(COMMENT.sub("", line))
            if said and not allowed.match(path):
                found.append((number, f"says {said.group(1)}: {why}"))
        match = INCLUDE.match(line)
        if not match:
            continue
        quote, header = match.groups()
        target = header.split("/")[0]
        if quote == '"' and folder in FLOORS and target != folder:
            if target in FLOORS and FLOORS[target] >= FLOORS[folder]:
                found.append((
                    number,
                    f"{folder} (floor {FLOORS[folder]}) includes {header} "
                    f"(floor {FLOORS[target]}); only lower floors are allowed"))
            if target == "tests":
                found.append((number, f"{folder} includes {header} of tests"))
        for headers, allowed, why in CONFINED:
            if headers.match(header) and not allowed.match(path):
                found.append((number, f"includes {header}: {why}"))
    return found


def sources(root):
    """Paths of the C++ and CUDA sources below `root`, relative to it."""
    for folder, subfolders, files in os.walk(root):
        subfolders[:] = sorted(name for name in subfolders
                               if not name.startswith((".", "bazel-")))
        for name in sorted(files):
            if SOURCE.search(name):
                path = os.path.relpath(os.path.join(folder, name), root)
                yield path.replace(os.sep, "/")


def main():
    default_root = os.path.join(os.path.dirname(__file__), "..", "..")
    root = sys.argv[1] if len(sys.argv) > 1 else default_root
    files = 0
    count = 0
    for path in sources(root):
        files += 1
        with open(os.path.join(root, path), encoding="utf-8") as source:
            for number, text in violations(path, source.read()):
                print(f"{path}:{number}: {text}")
                count += 1
    if files == 0:
        print(f"layering: no sources in {root}")
        return 1
    print(f"layering: {files} files, {count} violations")
    return 1 if count else 0


if __name__ == "__main__":
    sys.exit(main())
