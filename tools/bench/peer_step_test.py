"""Tests of how peer_step.py measures; they need no PyTorch."""

import sys
import time
import unittest

from tools.bench import peer_step


def command(program):
    return [sys.executable, "-c", f"import os, sys, time\n{program}"]


class TimesTest(unittest.TestCase):

    def test_what_was_measured_before_the_budget_ended_counts(self):
        begin = time.monotonic()
        times, reason = peer_step.times_of(
            command("print(0.5, flush=True)\n"
                    "print(0.25, flush=True)\n"
                    "time.sleep(600)"), budget=5)
        self.assertLess(time.monotonic() - begin, 60)
        self.assertEqual(times, [0.5, 0.25])
        self.assertEqual(reason, "ended after 5 s")

    def test_children_of_the_command_do_not_hold_it_up(self):
        begin = time.monotonic()
        times, _ = peer_step.times_of(
            command("os.fork() and time.sleep(600)\ntime.sleep(600)"), budget=2)
        self.assertLess(time.monotonic() - begin, 60)
        self.assertEqual(times, [])

    def test_a_failure_is_told(self):
        times, reason = peer_step.times_of(command("sys.exit('no bf16')"), 60)
        self.assertEqual(times, [])
        self.assertEqual(reason, "status 1: no bf16")

    def test_steps_that_warm_up_do_not_count_where_there_are_others(self):
        self.assertEqual(peer_step.median_of([9, 8, 7, 1, 2, 3]), 2)
        self.assertEqual(peer_step.median_of([9, 8]), 8)


if __name__ == "__main__":
    unittest.main()
