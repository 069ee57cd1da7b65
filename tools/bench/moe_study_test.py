"""What is said of experts' choices follows from what was measured."""

import unittest

from tools.bench import moe_study

PRINTED = """784 tokens of width 256 on a rank, 1 of 2 experts of 512 channels, ep 8
    load         weights            rows  rows to 1 by nodes in 2
    1.00       10.000 ms        8.000 ms                 9.000 ms  rows
    2.00       10.000 ms       20.000 ms                11.000 ms  weights
for all loads alike weights is best, and takes 1.111 times as long as these choices
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

    def test_what_is_asked_for_is_told_from_what_is_reached(self):
        layer = {}
        for shape in moe_study.SHAPES:
            layer[f"{shape}.fixed_order.of_step"] = 0.04
            for phase, share in moe_study.PHASES:
                layer[f"{shape}.{phase}.{share}"] = 0.75
                layer[f"{shape}.{phase}.s"] = 0.5
        result = {"layer": layer,
                  "peer": {shape: {"loop": {"forward": 1.5, "step": 0.9},
                                   "grouped": {"forward": 1.2, "step": 1.5}}
                           for shape in moe_study.SHAPES},
                  "judged": {"over_best": {1.0: 1.02, 2.0: 1.2}}}
        lines = list(moe_study.verdict_table(result))
        for line in ("| tutel: permute, of its floor | 0.750 | at least 0.7 | "
                     "reached |",
                     "| tutel: even.step, of its floor | 0.750 | at least 0.8 "
                     "| MISSED |",
                     "| hidream: a fixed order of sums, of a step | 0.040 | at "
                     "most 0.03 | MISSED |",
                     "| hidream: forward, PyTorch's time over ours | 2.400 | at "
                     "least 2 | reached |",
                     "| hidream: step, PyTorch's time over ours | 1.800 | at "
                     "least 2 | MISSED |",
                     "| load 1.0: the tuned way's time over the best one's | "
                     "1.020 | at most 1.05 | reached |",
                     "| load 2.0: the tuned way's time over the best one's | "
                     "1.200 | at most 1.05 | MISSED |"):
            self.assertIn(line, lines)
        # What was not measured is not judged.
        self.assertEqual(len(list(moe_study.verdict_table({"layer": layer}))),
                         2 + 2 * 5)


if __name__ == "__main__":
    unittest.main()
