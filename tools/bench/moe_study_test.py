"""What is said of experts' choices follows from what was measured."""

import unittest

from tools.bench import moe_study

PRINTED = """784 tokens of width 256 on a rank, 1 of 2 experts of 512 channels, ep 8
    load         weights            rows  rows to 1 by nodes in 2
    1.00       10.000 ms        8.000 ms                 9.000 ms  rows
    2.00       10.000 ms       20.000 ms                11.000 ms  weights
tuned.textproto
"""


class MoeStudyTest(unittest.TestCase):

    def test_a_sweep_is_what_tune_prints(self):
        names, loads = moe_study.sweep_of(PRINTED)
        self.assertEqual(names, ["weights", "rows", "rows to 1 by nodes in 2"])
        self.assertEqual(loads, {1.0: ([10, 8, 9], "rows"),
                                 2.0: ([10, 20, 11], "weights")})
        with self.assertRaises(ValueError):
            moe_study.sweep_of("    load         weights\ntuned.textproto\n")

    def test_choices_are_judged_by_the_times_of_another_sweep(self):
        chosen = moe_study.sweep_of(PRINTED)
        names = chosen[0]
        measured = (names, {1.0: ([10, 12, 8], ""), 2.0: ([9, 20, 12], "")})
        judged = moe_study.judge(chosen, measured)
        self.assertEqual(judged["over_best"], {1.0: 1.5, 2.0: 1.0})
        # 19 of weights, 32 of rows, 20 of the last; the choices take 12 and 9.
        self.assertEqual(judged["static"], "weights")
        self.assertAlmostEqual(judged["static_over_tuned"], 19 / 21)
        with self.assertRaises(ValueError):
            moe_study.judge(chosen, (names, {1.0: ([1, 1, 1], "")}))

    def test_the_link_alone_takes_what_its_bytes_take(self):
        # 4 ranks, 784 rows each, half to the other host, 512 bytes, 4 times.
        bytes_ = 4 * 784 / 2 * 512 * 4
        self.assertAlmostEqual(moe_study.link_floor_ms("rows to 1 in 2", 1e8),
                               1e3 * bytes_ / 1e8)
        self.assertAlmostEqual(moe_study.link_floor_ms("rows by nodes", 1e8),
                               4e3 * bytes_ / 1e8)
        self.assertIsNone(moe_study.link_floor_ms("weights", 1e8))


if __name__ == "__main__":
    unittest.main()
