import os
import tempfile
import unittest

from tools.dev import test_summary


def run_of(label, status, xml=""):
    outputs = [{"name": "test.log", "uri": "file:///log"}]
    if xml:
        file = tempfile.NamedTemporaryFile(
            "w", dir=os.environ.get("TEST_TMPDIR"), suffix=".xml", delete=False)
        with file:
            file.write(xml)
        outputs.append({"name": "test.xml", "uri": "file://" + file.name})
    return {
        "id": {"testResult": {"label": label, "run": 1, "shard": 1}},
        "testResult": {"status": status, "testActionOutput": outputs},
    }


def completed(label, success):
    return {
        "id": {"targetCompleted": {"label": label}},
        "completed": {"success": True} if success else {},
    }


PASSING = '<testsuites><testsuite><testcase name="a"/></testsuite></testsuites>'


class TestSummaryTest(unittest.TestCase):

    def line(self, events, bazel_status):
        return self.lines(events, bazel_status)[-1]

    def lines(self, events, bazel_status):
        return test_summary.summarize(events, bazel_status).lines()

    def test_cases_count_one_by_one(self):
        xml = ('<testsuites><testsuite>'
               '<testcase name="a" status="run"/><testcase name="b"/>'
               '<testcase name="c"><failure message="no"/></testcase>'
               '<testcase name="d" status="notrun"/>'
               '<testcase name="e"><skipped/></testcase>'
               '</testsuite></testsuites>')
        self.assertEqual(self.lines([run_of("//a", "FAILED", xml)], 3),
                         ["2 skipped", "2 passed, 1 failed"])

    def test_without_skips_there_is_the_result_only(self):
        self.assertEqual(self.lines([run_of("//a", "PASSED", PASSING)], 0),
                         ["1 passed, 0 failed"])

    def test_a_target_that_fails_with_passing_cases_is_a_failure(self):
        # Another rank's failure is not in rank 0's test.xml.
        self.assertEqual(self.line([run_of("//a", "FAILED", PASSING)], 3),
                         "1 passed, 1 failed")

    def test_a_timeout_or_crash_without_cases_is_a_failure(self):
        self.assertEqual(self.line([run_of("//a", "TIMEOUT")], 3),
                         "0 passed, 1 failed")
        self.assertEqual(self.line([run_of("//a", "FAILED", "<half")], 3),
                         "0 passed, 1 failed")

    def test_a_target_without_cases_is_a_failure(self):
        self.assertEqual(
            self.line([run_of("//a", "PASSED", "<testsuites/>")], 0),
            "0 passed, 1 failed")

    def test_what_does_not_build_is_a_failure(self):
        events = [completed("//a", True), completed("//b", False),
                  run_of("//a", "PASSED", PASSING)]
        self.assertEqual(self.line(events, 1), "1 passed, 1 failed")

    def test_only_the_last_attempt_counts(self):
        events = [run_of("//a", "FAILED"), run_of("//a", "PASSED", PASSING)]
        self.assertEqual(self.line(events, 0), "1 passed, 0 failed")

    def test_an_error_of_bazel_is_a_failure(self):
        self.assertEqual(self.line([], 1), "0 passed, 1 failed")
        self.assertEqual(
            self.line([run_of("//a", "PASSED", PASSING)], 8),
            "1 passed, 1 failed")

    def test_an_unreadable_build_file_is_a_failure_beside_others(self):
        self.assertEqual(self.line([run_of("//a", "FAILED")], 1),
                         "0 passed, 2 failed")

    def test_nothing_run_is_a_failure(self):
        self.assertEqual(self.line([], 0), "0 passed, 1 failed")


if __name__ == "__main__":
    unittest.main()
