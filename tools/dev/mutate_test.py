"""Barriers that a mutant leaves in, or that more than the chosen one loses."""

import os
import pathlib
import signal
import subprocess
import tempfile
import unittest
from unittest import mock

from tools.dev import mutate

# Prints which of three statements run, under an `if`, an `else` and in braces.
SOURCE = """\
#include <cstdio>
struct Stream { void Synchronize() { std::puts("waits"); } } stream;
void __syncthreads() { std::puts("block"); }
void __syncwarp() { std::puts("warp"); }
void Wait() { stream.Synchronize(); }
int main(int count, char**) {
  if (count == 1)
    __syncthreads();
  else
    __syncwarp();
  Wait();
}
"""


class MutateTest(unittest.TestCase):

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        self.source = self.folder / "kernels.cu"
        self.source.write_text(SOURCE)
        for name, value in (("ROOT", self.folder), ("SOURCES", ["*.cu"]),
                            ("SHARDS", 2)):
            patch = mock.patch.object(mutate, name, value)
            patch.start()
            self.addCleanup(patch.stop)

    def build(self):
        program = self.folder / "program"
        with mutate.planted(mutate.mutants()):
            subprocess.run(["g++", "-std=c++20", "-Wall", "-Werror", "-x", "c++",
                            self.source, "-o", program], check=True)
        return program

    def output(self, program, *arguments, **environment):
        return subprocess.run(
            [program, *arguments], env={**os.environ, **environment},
            stdout=subprocess.PIPE, text=True, check=True).stdout.split()

    def test_who_is_told_to_end_while_it_builds_puts_the_sources_back(self):
        with self.assertRaises(SystemExit):
            with mutate.planted(mutate.mutants()):
                self.assertNotEqual(self.source.read_text(), SOURCE)
                os.kill(os.getpid(), signal.SIGTERM)
                signal.sigtimedwait([], 10)
        self.assertEqual(self.source.read_text(), SOURCE)

    def test_one_build_has_each_mutant_and_leaves_the_sources_as_they_were(self):
        self.assertEqual([(mutant.line, mutant.text.rstrip(";"))
                          for mutant in mutate.mutants()],
                         [(5, "stream.Synchronize()"), (8, "__syncthreads()"),
                          (10, "__syncwarp()")])
        program = self.build()
        self.assertEqual(self.source.read_text(), SOURCE)
        self.assertEqual(self.output(program), ["block", "waits"])
        for mutant, here, there in (("0", ["block"], ["warp"]),
                                    ("1", ["waits"], ["warp", "waits"]),
                                    ("2", ["block", "waits"], ["waits"])):
            self.assertEqual(self.output(program, TRIREME_MUTANT=mutant), here)
            self.assertEqual(self.output(program, "x", TRIREME_MUTANT=mutant),
                             there)

    def test_a_run_says_which_mutants_it_came_to(self):
        reached = self.folder / "reached"
        self.output(self.build(), TRIREME_MUTANTS_REACHED=str(reached))
        self.assertEqual(sorted(reached.read_text().split()), ["0", "1"])

    # A test in whose second shard only a program without its block's barrier
    # fails, and which hangs without the host's wait.
    def test_mutants_are_tried_where_tests_come_to_them(self):
        program = self.build()
        test = self.folder / "some_test"
        test.write_text(f"""#!/bin/bash
((GTEST_SHARD_INDEX == 1)) || exit 0
found=$({program})
[[ $found == *waits* ]] || exec sleep 60
[[ $found == *block* ]]
""")
        test.chmod(0o755)
        shards = mutate.shards_of([test], self.folder / "notes")
        self.assertEqual([sorted(shard.reached) for shard in shards],
                         [[], [0, 1]])
        for shard in shards:
            shard.seconds = 0.01
        with mock.patch.object(mutate, "LEAST_SECONDS", 1):
            found = mutate.try_all(mutate.mutants(), shards)
        self.assertEqual(found, {0: True, 1: True, 2: False})


if __name__ == "__main__":
    unittest.main()
