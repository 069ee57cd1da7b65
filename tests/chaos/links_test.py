"""A run on two hosts whose link fails: links_test.py TRIREME FAULTY_DISK
FAULTY_CLOCK.

Each kind of fault of links strikes once (chaos.py). Skipped where no hosts can
be made of network namespaces.
"""

import os
import subprocess
import sys
import unittest

HERE = os.path.dirname(os.path.realpath(__file__))
TESTS = os.path.dirname(HERE)
sys.path[:0] = [TESTS, os.path.join(TESTS, "lab")]
import faults  # pylint: disable=wrong-import-position
import network  # pylint: disable=wrong-import-position
import test_cases  # pylint: disable=wrong-import-position

# A long cut is the first half of two.
KINDS = [kind for kind in faults.LINK_KINDS if kind != "cut_long"]


class LinksTest(unittest.TestCase):
    def test_it_ends_with_the_bits_of_a_run_that_nobody_touched(self):
        reason = network.why_not()
        if reason:
            self.skipTest(reason)
        status = subprocess.run(
            [sys.executable, "-B", os.path.join(HERE, "chaos.py"),
             *sys.argv[1:], "--hosts", "--only", ",".join(KINDS)],
            check=False).returncode
        self.assertEqual(status, 0)


if __name__ == "__main__":
    sys.exit(test_cases.run(LinksTest))
