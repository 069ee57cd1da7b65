"""What a campaign counts and keeps: campaign_test.py (no arguments).

A finding that is lost, or inputs that are counted and were not tried, would make
figures of it worthless.
"""

import json
import os
import subprocess
import sys
import tempfile
import unittest

HERE = os.path.dirname(os.path.realpath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
import test_cases  # pylint: disable=wrong-import-position

# As driver.cc: by its second seed `bad` comes upon an input that ends it.
TARGET = """#!/bin/sh
echo "$0 $*" >> {log}
if [ "$2" = --seed=2 ] && [ "${{0##*/}}" = bad_fuzz ]; then
  printf hostile > "$TEST_UNDECLARED_OUTPUTS_DIR/fuzz_crash.bin"
  kill -ABRT $$
fi
echo "{blocks} blocks reached"
"""


class CampaignTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="trireme.")
        self.addCleanup(folder.cleanup)
        self.folder = folder.name
        self.log = f"{self.folder}/log"
        self.figures = f"{self.folder}/fuzz.json"
        for name, blocks in [("good", 12), ("bad", 7)]:
            path = f"{self.folder}/{name}_fuzz"
            with open(path, "w", encoding="utf-8") as file:
                file.write(TARGET.format(log=self.log, blocks=blocks))
            os.chmod(path, 0o755)

    def campaign(self, inputs):
        return subprocess.run(
            [sys.executable, "-B", f"{HERE}/campaign.py", self.folder,
             "--inputs", str(inputs), "--processes", "1", "--figures",
             self.figures], check=False, text=True, stdout=subprocess.PIPE)

    def test_a_finding_is_kept_and_the_others_go_on(self):
        ended = self.campaign(500)
        self.assertEqual(ended.returncode, 1)
        with open(self.figures, encoding="utf-8") as file:
            done = json.load(file)
        self.assertEqual((done["good"]["inputs"], done["good"]["blocks"],
                          done["good"]["findings"]), (500, 12, []))
        # What the process that ended had tried is not known.
        self.assertEqual(done["bad"]["inputs"], 500)
        [finding] = done["bad"]["findings"]
        self.assertEqual((finding["seed"], finding["status"]), (2, -6))
        with open(finding["input"], encoding="utf-8") as file:
            self.assertEqual(file.read(), "hostile")
        self.assertEqual(done["good"]["commits"], done["bad"]["commits"])
        self.assertIn(f"at {done['good']['commits'][0]}", ended.stdout)
        self.assertIn("| bad | 500 |", ended.stdout)

    def test_it_goes_on_where_it_was(self):
        for inputs in (300, 300, 310):
            self.campaign(inputs)
        with open(self.log, encoding="utf-8") as file:
            started = [line.split()[:3] for line in file]
        of_good = [(runs, seed) for target, runs, seed in started
                   if target.endswith("good_fuzz")]
        self.assertEqual(of_good, [("--runs=200", "--seed=1"),
                                   ("--runs=100", "--seed=2"),
                                   ("--runs=10", "--seed=3")])


if __name__ == "__main__":
    sys.exit(test_cases.run(CampaignTest))
