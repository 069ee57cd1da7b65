"""Takes out the barriers and waits of the GPU backend, one at a time, and counts
how many are missed by a test of the emulated GPU.

usage: mutate.py [--list] [--only TEXT] [--sample N] [--quick] [--json FILE]

A mutant is the source with one __syncthreads(), __syncwarp() or wait for an
event less; one that all tests pass has survived: nothing would notice if
somebody took the line out. One build has all of them: each statement is under
an `if` that a variable of the environment makes false, and the sources are put
back when it is built, also after Ctrl-C or SIGTERM. Tests run in shards, first
as things are, when they say which mutants each comes to, and then once for
each mutant, in the shards that come to it, until one fails or takes much
longer than before. What has survived has the same shards of the smaller tests
under ThreadSanitizer.

Ends with `N of M noticed`, and a status of 1 where fewer than 95 in 100 were, or
a survivor has no reason in mutants_that_survive.txt: a line
`FILE: STATEMENT #N: REASON`, where N counts the statements of the file that read
so.
"""

import argparse
import collections
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOURCES = ["runtime/device/cuda/*.cc", "runtime/ops/cuda/*.cu",
           "runtime/ops/cuda/*.cuh", "runtime/comm/nccl/*.cc",
           "runtime/comm/host_staged.cc"]
TESTS = ["//runtime/device/cuda:cuda_device_test",
         "//runtime/device/cuda:ptx_test", "//runtime/ops/cuda:cuda_ops_test",
         "//runtime/comm/nccl:nccl_test"]
PARITY = "//tests/parity:cuda_parity_test"
# Of each test, which runs whole tests of its own in each.
SHARDS = 24
# That a test has at any rate, on a machine that does other things.
LEAST_SECONDS = 60
# Whole statements, which may be left out.
STATEMENT = re.compile(
    r"(?:^ *|(?<=[{;)] ))(__syncthreads\(\)|__syncwarp\(\)|"
    r"CheckCuda\(\s*cuda(?:StreamWaitEvent|EventSynchronize|StreamSynchronize)\("
    r"[^;]*\)|[\w.()>-]+(?:\.|->)(?:Wait\(\w[^;]*\)|Synchronize\(\)));",
    re.MULTILINE)
ENOUGH = 0.95
REASONS = ROOT / "tools/dev/mutants_that_survive.txt"

# In front of each source. Relaxed atomics order nothing for ThreadSanitizer.
PRELUDE = """\
#ifndef TRIREME_MUTANTS
#define TRIREME_MUTANTS
#include <fcntl.h>
#include <unistd.h>
#include <atomic>
#include <cstdlib>
#include <string>
namespace trireme_mutants {
inline const char* const chosen = std::getenv("TRIREME_MUTANT");
inline const int left_out = chosen == nullptr ? -1 : std::atoi(chosen);
inline const char* const reached = std::getenv("TRIREME_MUTANTS_REACHED");
inline std::atomic<bool> noted[%d];
inline void Note(int mutant) {
  if (noted[mutant].exchange(true, std::memory_order_relaxed)) return;
  const std::string line = std::to_string(mutant) + "\\n";
  const int file = open(reached, O_WRONLY | O_CREAT | O_APPEND, 0644);
  if (file < 0 || write(file, line.data(), line.size()) < 0) std::abort();
  close(file);
}
inline bool Left(int mutant) {
  if (reached != nullptr) Note(mutant);
  return mutant != left_out;
}
}  // namespace trireme_mutants
#endif
#line 1
"""


@dataclasses.dataclass
class Mutant:
    path: pathlib.Path
    begin: int
    end: int
    line: int
    text: str
    name: str  # as in mutants_that_survive.txt
    number: int

    @property
    def place(self):
        return f"{self.path.relative_to(ROOT)}:{self.line}"


def mutants():
    """All, in the order of files and lines."""
    seen = collections.Counter()
    found = []
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
                found.append(Mutant(
                    path, start, match.end(),
                    source.count("\n", 0, start) + 1, text,
                    f"{named} #{seen[named]}", len(found)))
    return found


def with_choices(source, of_file, count):
    """The source in which each statement is there unless it is chosen."""
    for mutant in reversed(of_file):
        statement = source[mutant.begin:mutant.end]
        # A block, for an `if` before it or an `else` behind it.
        source = (source[:mutant.begin]
                  + f"{{ if (::trireme_mutants::Left({mutant.number})) "
                  + statement + " }" + source[mutant.end:])
    return PRELUDE % count + source


@contextlib.contextmanager
def planted(all_mutants):
    """Sources have all mutants to choose from."""
    files = collections.defaultdict(list)
    for mutant in all_mutants:
        files[mutant.path].append(mutant)
    sources = {path: path.read_text() for path in files}
    # It would end the program before the sources are put back.
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        for path, source in sources.items():
            path.write_text(
                with_choices(source, files[path], len(all_mutants)))
        yield
    finally:
        for path, source in sources.items():
            path.write_text(source)
        signal.signal(signal.SIGTERM, before)


def build(config, tests, folder):
    """The tests' programs, in the folder."""
    def bazel(command, *arguments, **options):
        return subprocess.run(
            ["tools/dev/bazel.sh", command, f"--config={config}", *arguments],
            cwd=ROOT, stdin=subprocess.DEVNULL, check=True, **options)

    bazel("build", *tests)
    binaries = bazel("info", "bazel-bin", stdout=subprocess.PIPE,
                     text=True).stdout.strip()
    folder.mkdir()
    programs = []
    for test in tests:
        built = pathlib.Path(binaries, test[2:].replace(":", "/"))
        programs.append(shutil.copy(built, folder / built.name))
    return programs


@dataclasses.dataclass
class Shard:
    """One of SHARDS parts of a test."""
    program: pathlib.Path
    index: int
    seconds: float = 0
    reached: frozenset = frozenset()

    def passes(self, most_seconds, **environment):
        """A test that takes longer fails: waits that are gone may hang."""
        try:
            return subprocess.run(
                [self.program, "--gtest_fail_fast", "--gtest_brief=1"],
                env={**os.environ, "OMP_NUM_THREADS": "1",
                     "OMP_THREAD_LIMIT": "1",
                     "GTEST_TOTAL_SHARDS": str(SHARDS),
                     "GTEST_SHARD_INDEX": str(self.index), **environment},
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, timeout=most_seconds,
                check=False).returncode == 0
        except subprocess.TimeoutExpired:
            return False

    def try_as_things_are(self, notes):
        """Fills in what it took and came to, or ends the program."""
        path = notes / f"{pathlib.Path(self.program).name}-{self.index}"
        begin = time.monotonic()
        if not self.passes(3600, TRIREME_MUTANTS_REACHED=str(path)):
            sys.exit(f"mutate: {self.program} fails as things are "
                     f"(shard {self.index} of {SHARDS})")
        self.seconds = time.monotonic() - begin
        if path.exists():
            self.reached = frozenset(map(int, path.read_text().split()))
        return self


def noticed(mutant, shards):
    """Whether one that comes to the mutant fails: the shortest first."""
    return any(
        not shard.passes(LEAST_SECONDS + 10 * shard.seconds,
                         TRIREME_MUTANT=str(mutant.number))
        for shard in sorted(shards, key=lambda shard: shard.seconds)
        if mutant.number in shard.reached)


def try_all(chosen, shards):
    """Whether each was noticed, by number; says which were as it goes."""
    found = {}
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        pending = {pool.submit(noticed, mutant, shards): mutant
                   for mutant in chosen}
        for future in concurrent.futures.as_completed(pending):
            mutant = pending[future]
            found[mutant.number] = future.result()
            print(f"{'noticed ' if future.result() else 'not seen'} "
                  f"{mutant.place}: {mutant.text}", flush=True)
    return found


def shards_of(programs, notes):
    """All, after they ran as things are."""
    notes.mkdir()
    shards = [Shard(program, i) for program in programs for i in range(SHARDS)]
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda s: s.try_as_things_are(notes), shards))


def reasons():
    """Why survivors do, by `FILE: STATEMENT #N`."""
    lines = REASONS.read_text().splitlines() if REASONS.exists() else []
    return dict(re.fullmatch(r"(.+? #\d+): (.+)", line).groups()
                for line in lines if line)


def try_tests(all_mutants, chosen, quick):
    """Whether each of the chosen was noticed, by number."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        with planted(all_mutants):
            programs = build("cuda_emulated",
                             TESTS if quick else TESTS + [PARITY],
                             folder / "plain")
        shards = shards_of(programs, folder / "reached")
        found = try_all(chosen, shards)
        left = [mutant for mutant in chosen if not found[mutant.number]]
        if quick or not left:
            return found
        print(f"{len(left)} are left, for ThreadSanitizer", flush=True)
        with planted(all_mutants):
            programs = build("cuda_tsan", TESTS, folder / "races")
        shards = shards_of(programs, folder / "reached_by_races")
        return {**found, **try_all(left, shards)}


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
                        "of training and without ThreadSanitizer")
    parser.add_argument("--json", metavar="FILE", help="write what came of each")
    options = parser.parse_args()
    all_mutants = mutants()
    chosen = [mutant for mutant in all_mutants if options.only in mutant.place]
    if options.sample is not None and options.sample < len(chosen):
        picked = random.Random(0).sample(range(len(chosen)), options.sample)
        chosen = [chosen[i] for i in sorted(picked)]
    if options.list:
        for mutant in chosen:
            print(f"{mutant.place}: {mutant.text}")
        return 0
    if not chosen:
        sys.exit(f"mutate: no barrier or wait at '{options.only}'")
    found = try_tests(all_mutants, chosen, options.quick)
    why = reasons()
    results = []
    unexplained = 0
    for mutant in chosen:
        result = {"place": mutant.place, "statement": mutant.text,
                  "noticed": found[mutant.number]}
        if not result["noticed"]:
            result["reason"] = why.get(mutant.name)
            unexplained += result["reason"] is None
            print(f"SURVIVED {mutant.place}: {mutant.text} "
                  f"({result['reason'] or f'no reason: {mutant.name}'})")
        results.append(result)
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(results, indent=1))
    count = sum(result["noticed"] for result in results)
    print(f"{count} of {len(results)} noticed")
    enough = count >= ENOUGH * len(results)
    return 0 if enough and unexplained == 0 else 1


if __name__ == "__main__":
    sys.exit(main())
