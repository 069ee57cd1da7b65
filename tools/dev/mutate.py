"""Takes out the barriers and waits of the GPU backend, one at a time, and counts
how many are missed by a test of the emulated GPU.

usage: mutate.py [--list] [--only TEXT] [--sample N] [--quick] [--json FILE]

A mutant is the source with one __syncthreads(), __syncwarp() or wait for an
event less. Of each the tests are built and run; a mutant that they all pass has
survived: nothing would notice if somebody took the line out. Sources are put
back as they were, also after Ctrl-C. Ends with `N of M noticed`, and a status of
1 where fewer than 95 in 100 were, or a survivor has no reason in
mutants_that_survive.txt: a line `FILE: STATEMENT #N: REASON`, where N counts the
statements of the file that read so.
"""

import argparse
import collections
import json
import pathlib
import random
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = ["runtime/device/cuda/*.cc", "runtime/ops/cuda/*.cu",
           "runtime/ops/cuda/*.cuh", "runtime/comm/nccl/*.cc",
           "runtime/comm/host_staged.cc"]
TESTS = ["//runtime/device/cuda:cuda_device_test",
         "//runtime/device/cuda:ptx_test", "//runtime/ops/cuda:cuda_ops_test",
         "//runtime/comm/nccl:nccl_test"]
PARITY = "//tests/parity:cuda_parity_test"
# Whole statements, which may be left out.
STATEMENT = re.compile(
    r"^ *(__syncthreads\(\)|__syncwarp\(\)|CheckCuda\(\s*cudaStreamWaitEvent\("
    r"[^;]*\)|[\w.()>-]+(\.|->)(Wait\(\w[^;]*\)|Synchronize\(\)));",
    re.MULTILINE)
ENOUGH = 0.95
REASONS = ROOT / "tools/dev/mutants_that_survive.txt"


def mutants():
    """(path, offsets of the statement, line, text, `FILE: TEXT #N`) of each."""
    seen = collections.Counter()
    for pattern in SOURCES:
        for path in sorted(ROOT.glob(pattern)):
            if re.search(r"_test(ing)?\.", path.name):
                continue
            source = path.read_text()
            for match in STATEMENT.finditer(source):
                start = match.start(1)
                text = " ".join(match.group().split())
                named = f"{path.relative_to(ROOT)}: {text}"
                seen[named] += 1
                yield (path, (start, match.end()),
                       source.count("\n", 0, start) + 1, text,
                       f"{named} #{seen[named]}")


def run(tests):
    """Whether all pass."""
    return subprocess.run(
        ["tools/dev/bazel.sh", "test", "--config=cuda_emulated",
         "--test_output=errors", "--notest_keep_going",
         "--test_arg=--gtest_fail_fast", *tests],
        cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, check=False).returncode == 0


def reasons():
    """Why survivors do, by `FILE: STATEMENT #N`."""
    lines = REASONS.read_text().splitlines() if REASONS.exists() else []
    return dict(re.fullmatch(r"(.+? #\d+): (.+)", line).groups()
                for line in lines if line)


def survives(path, span, tests):
    """Whether none of the lists of tests, one after the other, notices that the
    statement is gone."""
    source = path.read_text()
    begin, end = span
    try:
        # A statement still, for an `if` before it.
        path.write_text(source[:begin] + ";" + source[end:])
        return all(run(some) for some in tests)
    finally:
        path.write_text(source)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--list", action="store_true",
                        help="name the mutants only")
    parser.add_argument("--only", default="", metavar="TEXT",
                        help="those whose place (FILE:LINE) contains it")
    parser.add_argument("--sample", type=int, metavar="N",
                        help="N of them, the same each time")
    parser.add_argument("--quick", action="store_true",
                        help="by the tests of ops and devices, without those "
                        "of training, which take minutes")
    parser.add_argument("--json", metavar="FILE", help="write what came of each")
    options = parser.parse_args()
    chosen = [(f"{path.relative_to(ROOT)}:{line}", path, span, text, name)
              for path, span, line, text, name in mutants()]
    chosen = [mutant for mutant in chosen if options.only in mutant[0]]
    if options.sample is not None and options.sample < len(chosen):
        picked = random.Random(0).sample(range(len(chosen)), options.sample)
        chosen = [chosen[i] for i in sorted(picked)]
    if options.list:
        for place, _, _, text, _ in chosen:
            print(f"{place}: {text}")
        return 0
    if not chosen:
        sys.exit(f"mutate: no barrier or wait at '{options.only}'")
    tests = [TESTS] if options.quick else [TESTS, [PARITY]]
    if not all(run(some) for some in tests):
        sys.exit("mutate: a test fails as things are")
    why = reasons()
    results = []
    unexplained = 0
    for place, path, span, text, name in chosen:
        result = {"place": place, "statement": text,
                  "noticed": not survives(path, span, tests)}
        verdict = "noticed "
        if not result["noticed"]:
            result["reason"] = why.get(name)
            unexplained += result["reason"] is None
            verdict = f"SURVIVED ({result['reason'] or f'no reason: {name}'})"
        print(f"{verdict} {place}: {text}", flush=True)
        results.append(result)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(results, indent=1))
    noticed = sum(result["noticed"] for result in results)
    print(f"{noticed} of {len(results)} noticed")
    enough = noticed >= ENOUGH * len(results)
    return 0 if enough and unexplained == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
