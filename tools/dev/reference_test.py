"""Pages of fields that say what is no longer so."""

import sys
import unittest
from unittest import mock

from tools.dev import reference


class ReferenceTest(unittest.TestCase):

    def test_pages_are_what_the_protos_say(self):
        with mock.patch.object(sys, "argv", ["reference.py", "--check"]):
            self.assertEqual(reference.main(), 0)

    def test_every_field_is_there_with_its_comment(self):
        job = {entry.name: entry for entry in reference.parse(
            reference.ROOT / "trainer/job/job.proto")}
        fields = {field.name: field for field in job["HealthConfig"].fields}
        self.assertEqual(fields["on_bad_loss"].type, "Policy")
        self.assertIn("Default 0", fields["spike_factor"].comment)
        self.assertEqual([name for name, _ in
                          job["HealthConfig.Policy"].values][1:],
                         ["STOP", "SKIP", "ROLL_BACK"])
        sources = [field.name for field in job["Data"].fields
                   if field.alternative_of == "source"]
        self.assertIn("webdataset", sources)
        self.assertTrue(next(field for field in job["SampleConfig"].fields
                             if field.name == "prompts").repeated)


if __name__ == "__main__":
    unittest.main()
