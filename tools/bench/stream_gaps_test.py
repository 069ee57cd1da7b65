"""A figure of idle streams that is wrong would hide what a GPU waits for."""

import unittest

from tools.bench import stream_gaps


def event(name, category, begin, end):
    return {"ph": "X", "name": name, "cat": category, "pid": 0, "tid": 0,
            "ts": begin, "dur": end - begin}


def step(at):
    """Of 100 microseconds, 80 of them computing."""
    return [
        event("Forward mb=0 chunk=0", "compute", at, at + 30),
        event("Send mb=0", "communication", at + 20, at + 40),
        event("Backward mb=0 chunk=0", "compute", at + 40, at + 80),
        event("ReduceGradients", "communication", at + 70, at + 90),
        event("Update chunk=0", "compute", at + 90, at + 100),
    ]


class StreamGapsTest(unittest.TestCase):

    def test_idle_and_overlapped(self):
        # What is between steps is no part of either.
        found = stream_gaps.measure({"traceEvents": [
            {"ph": "M", "name": "process_name"}, *step(1000), *step(5000)]})
        self.assertEqual(found["steps"], 2)
        self.assertAlmostEqual(found["step_s"], 100e-6)
        self.assertAlmostEqual(found["compute_idle_percent"], 20)
        self.assertAlmostEqual(found["communication_s"], 40e-6)
        self.assertAlmostEqual(found["overlapped_percent"], 50)

    def test_what_overlaps_counts_once(self):
        found = stream_gaps.measure({"traceEvents": [
            event("Forward", "compute", 0, 10), event("a", "communication", 0, 8),
            event("b", "communication", 4, 10)]})
        self.assertAlmostEqual(found["communication_s"], 10e-6)
        self.assertAlmostEqual(found["overlapped_percent"], 100)
        self.assertAlmostEqual(found["compute_idle_percent"], 0)

    def test_one_rank_sends_nothing(self):
        found = stream_gaps.measure(
            {"traceEvents": [event("Forward", "compute", 0, 10)]})
        self.assertIsNone(found["overlapped_percent"])


if __name__ == "__main__":
    unittest.main()
