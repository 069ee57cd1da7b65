"""Tests of how peer_step.py measures; they need no PyTorch."""

import json
import os
import subprocess
import sys
import tempfile
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

    def test_what_was_measured_before_somebody_ended_it_is_printed(self):
        folder = self.enterContext(tempfile.TemporaryDirectory())
        second = os.path.join(folder, "second")
        # The first way takes half a second, the next one for ever.
        with open(os.path.join(folder, "torch.py"), "w",
                  encoding="utf-8") as file:
            file.write(f"""import os, time
if os.path.exists({second!r}):
    with open({second!r}, "w", encoding="utf-8") as file:
        file.write(str(os.getpid()))
    time.sleep(600)
open({second!r}, "w").close()
print(0.5)
raise SystemExit
""")
        run = subprocess.Popen(
            [sys.executable, "-B", peer_step.__file__, "--models", "dit_s2",
             "--dtypes", "bf16", "--threads", "1"], stdout=subprocess.PIPE,
            text=True, env=dict(os.environ, PYTHONPATH=folder))
        self.addCleanup(run.kill)
        deadline = time.monotonic() + 60
        while not os.path.exists(second) or not os.path.getsize(second):
            self.assertLess(time.monotonic(), deadline)
            time.sleep(0.05)
        run.terminate()
        printed, _ = run.communicate(timeout=60)
        result = json.loads(printed)
        self.assertEqual(result["dit_s2.bf16.threads1.step_s"], 0.5)
        self.assertEqual(result["dit_s2.bf16.threads1.variant"], "autocast")
        # Nobody keeps a GPU busy that others measure then.
        with open(second, encoding="utf-8") as file:
            process = int(file.read())
        with self.assertRaises(ProcessLookupError):
            os.kill(process, 0)

    def test_steps_that_warm_up_do_not_count_where_there_are_others(self):
        self.assertEqual(peer_step.median_of([9, 8, 7, 1, 2, 3]), 2)
        self.assertEqual(peer_step.median_of([9, 8]), 8)


if __name__ == "__main__":
    unittest.main()
