"""Runs the cases of a Python test as Bazel wants it.

What cannot be run for want of a program is skipped, and counted so: each case
is in the file that XML_OUTPUT_FILE names.
"""

import os
import shutil
import signal
import sys
import unittest
from xml.etree import ElementTree


def missing_program(*names):
    """Why tests that need these programs are skipped; None if all are there."""
    for name in names:
        if shutil.which(name) is None:
            return f"the program {name} is not installed"
    return None


class XmlResult(unittest.TextTestResult):
    """Keeps what Bazel's test.xml wants to know."""

    def __init__(self, *arguments, **keywords):
        super().__init__(*arguments, **keywords)
        self.suite = ElementTree.Element("testsuite", name="python")

    def _add(self, test, outcome=None, text=""):
        case = ElementTree.SubElement(self.suite, "testcase",
                                      classname=type(test).__name__,
                                      name=test.id().rsplit(".", 1)[-1])
        if outcome:
            ElementTree.SubElement(case, outcome, message=text)

    def addSuccess(self, test):
        super().addSuccess(test)
        self._add(test)

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self._add(test, "skipped", reason)

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self._add(test, "failure", str(err[1]))

    def addError(self, test, err):
        super().addError(test, err)
        self._add(test, "error",
                  f"{err[1]}\n{getattr(err[1], 'stderr', None) or ''}")
        print(getattr(err[1], "stderr", None) or "", file=sys.stderr)


def _interrupt(*_):
    raise KeyboardInterrupt


def run(*classes):
    """Runs the cases of these classes, in their order; the exit status.

    What classes started ends (addClassCleanup) also where the test is told to.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    load = unittest.defaultTestLoader.loadTestsFromTestCase
    suite = unittest.TestSuite(map(load, classes))
    runner = unittest.TextTestRunner(verbosity=2, resultclass=XmlResult)
    try:
        result = runner.run(suite)
    finally:
        for each in classes:
            each.doClassCleanups()
    if "XML_OUTPUT_FILE" in os.environ:
        ElementTree.ElementTree(result.suite).write(
            os.environ["XML_OUTPUT_FILE"], encoding="utf-8",
            xml_declaration=True)
    return 0 if result.wasSuccessful() else 1
