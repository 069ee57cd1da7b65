"""Counts what a `bazel test` did: test_summary.py EVENTS_JSON BAZEL_STATUS.

Reads Bazel's build event file (one JSON object a line). A test target counts
by the cases of its test.xml; a target that did not build, timed out or crashed
counts as failed. Ends with the line `N passed, N failed`, after `N skipped`
where there were such; the exit status is non-zero when anything failed or
nothing ran.
"""

import json
import os
import sys
import urllib.parse
import xml.etree.ElementTree as ElementTree

TESTS_FAILED = 3  # Bazel's status when all built and some test failed


class Summary:
    def __init__(self):
        self.passed = 0
        self.skipped = 0
        self.failures = []  # one line each

    def add_cases(self, label, status, xml_path, log_path):
        """Counts one run of a test target."""
        failures_before = len(self.failures)
        cases = read_cases(xml_path)
        for name, outcome in cases:
            if outcome == "passed":
                self.passed += 1
            elif outcome == "skipped":
                self.skipped += 1
            else:
                self.failures.append(f"{label} {name} (log: {log_path})")
        found = len(self.failures) - failures_before
        if status not in ("PASSED", "FLAKY") and found == 0:
            self.failures.append(f"{label} {status} (log: {log_path})")
        elif not cases:
            self.failures.append(f"{label} ran no test (log: {log_path})")

    def lines(self):
        """The last one is what others read."""
        skipped = [f"{self.skipped} skipped"] if self.skipped else []
        return skipped + [f"{self.passed} passed, {len(self.failures)} failed"]


def read_cases(path):
    """The (name, outcome) of each case in a test.xml; none if unreadable."""
    try:
        root = ElementTree.parse(path).getroot()
    except (OSError, ElementTree.ParseError):
        return []
    cases = []
    for case in root.iter("testcase"):
        name = ".".join(filter(None, (case.get("classname"), case.get("name"))))
        if case.find("failure") is not None or case.find("error") is not None:
            outcome = "failed"
        elif (case.find("skipped") is not None or
              case.get("status") == "notrun" or
              case.get("result") == "skipped"):
            outcome = "skipped"
        else:
            outcome = "passed"
        cases.append((name, outcome))
    return cases


def local_path(outputs, name):
    for output in outputs:
        if output.get("name") == name:
            return urllib.parse.unquote(
                urllib.parse.urlparse(output.get("uri", "")).path)
    return ""


def summarize(events, bazel_status):
    summary = Summary()
    runs = {}  # (label, run, shard) -> the last attempt's result
    unbuilt = set()
    for event in events:
        identity = event.get("id", {})
        if "testResult" in identity:
            key = identity["testResult"]
            runs[key["label"], key.get("run", 1), key.get("shard", 1)] = (
                event.get("testResult", {"status": "NO_STATUS"}))
        elif "targetCompleted" in identity:
            if not event.get("completed", {}).get("success", False):
                unbuilt.add(identity["targetCompleted"]["label"])
    for label in sorted(unbuilt):
        summary.failures.append(f"{label} did not build")
    for (label, _, _), result in sorted(runs.items()):
        if label in unbuilt:
            continue
        outputs = result.get("testActionOutput", [])
        summary.add_cases(label, result.get("status", "NO_STATUS"),
                          local_path(outputs, "test.xml"),
                          local_path(outputs, "test.log"))
    # Bazel reports no event for a BUILD file that it cannot read.
    explained = unbuilt or (bazel_status == TESTS_FAILED and summary.failures)
    if bazel_status != 0 and not explained:
        summary.failures.append(
            f"Bazel ended with status {bazel_status}; its errors are above")
    if not summary.failures and summary.passed == 0:
        summary.failures.append("no test ran")
    return summary


def main():
    events_path, bazel_status = sys.argv[1], int(sys.argv[2])
    events = []
    if os.path.getsize(events_path) > 0:
        with open(events_path, encoding="utf-8") as lines:
            events = [json.loads(line) for line in lines]
    summary = summarize(events, bazel_status)
    for failure in summary.failures:
        print("FAILED", failure)
    print("\n".join(summary.lines()))
    return 1 if summary.failures else 0


if __name__ == "__main__":
    sys.exit(main())
