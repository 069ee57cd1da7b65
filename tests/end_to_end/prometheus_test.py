"""A run scraped by a real Prometheus: prometheus_test.py TRIREME DASHBOARD.

What the dashboard for Grafana asks for has to be there to be shown. Skipped
where Prometheus is not installed.
"""

import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
import unittest
import urllib.error
import urllib.parse
import urllib.request

TESTS = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
sys.path.insert(0, TESTS)
import test_cases  # pylint: disable=wrong-import-position

TRIREME, DASHBOARD = map(os.path.abspath, sys.argv[1:3])
PATIENCE_S = 120
# With experts, so that there are auxiliary losses.
JOB = """
model { dit { hidden: 32 layers: 2 heads: 4 patch: 7
              moe { experts: 2 top_k: 1 expert_hidden: 32 } } }
data { idx { folder: "/usr/share/datasets/fashion-mnist" } resolution: 28 }
global_batch: 8
steps: 1000000
checkpoint { every_minutes: 0 }
sample { at_end: false }
precision: FP32
"""
CONFIGURATION = """
global:
  scrape_interval: 1s
scrape_configs:
  - job_name: trireme
    static_configs:
      - targets: ["{endpoint}"]
"""


class PrometheusTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        missing = test_cases.missing_program("prometheus", "promtool")
        if missing:
            raise unittest.SkipTest(missing)
        cls.work = cls.enterClassContext(
            tempfile.TemporaryDirectory(prefix="trireme."))
        with open(f"{cls.work}/job.textproto", "w", encoding="utf-8") as file:
            file.write(JOB)
        cls.start("launch", TRIREME, "launch", "job.textproto", "--ranks", "2",
                  "--out", "run", "--metrics", "127.0.0.1:0")
        found = cls.await_that(
            lambda: re.search(r"http://(127\.0\.0\.1:\d+)/metrics",
                              cls.output("launch")), "the launch")
        cls.endpoint = found[1]
        with open(f"{cls.work}/prometheus.yml", "w", encoding="utf-8") as file:
            file.write(CONFIGURATION.format(endpoint=cls.endpoint))
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            cls.port = free.getsockname()[1]
        cls.start("prometheus", "prometheus", "--config.file=prometheus.yml",
                  "--storage.tsdb.path=data",
                  f"--web.listen-address=127.0.0.1:{cls.port}")
        cls.await_that(lambda: cls.query("trireme_step > 2"), "a third step")

    @classmethod
    def start(cls, name, *command):
        with open(f"{cls.work}/{name}.txt", "w", encoding="utf-8") as output:
            process = subprocess.Popen(
                command, cwd=cls.work, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT)

        def end():
            process.terminate()
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        cls.addClassCleanup(end)

    @classmethod
    def output(cls, name):
        with open(f"{cls.work}/{name}.txt", encoding="utf-8",
                  errors="replace") as file:
            return file.read()

    @classmethod
    def await_that(cls, condition, what):
        deadline = time.monotonic() + PATIENCE_S
        while True:
            result = condition()
            if result:
                return result
            if time.monotonic() > deadline:
                raise AssertionError(
                    f"waited {PATIENCE_S} s for {what}: "
                    f"{cls.output('launch')[-2000:]}")
            time.sleep(0.2)

    @classmethod
    def ask(cls, path, **arguments):
        """What Prometheus' API answers; None where it does not yet."""
        query = urllib.parse.urlencode(arguments)
        try:
            with urllib.request.urlopen(
                    f"http://127.0.0.1:{cls.port}/api/v1/{path}?{query}",
                    timeout=20) as reply:
                return json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error
        except urllib.error.URLError:
            return None

    @classmethod
    def query(cls, expression):
        """[(labels, value)] of an expression now."""
        data = cls.ask("query", query=expression)
        return [(entry["metric"], float(entry["value"][1]))
                for entry in data["result"]] if data else []

    def test_it_finds_the_run_and_sees_it_go_on(self):
        targets = self.ask("targets")["activeTargets"]
        self.assertEqual([target["health"] for target in targets], ["up"],
                         targets)
        self.await_that(lambda: self.query("changes(trireme_step[1m]) > 1"),
                        "steps to go on")
        ranks = {labels["rank"]: labels["host"] for labels, _ in
                 self.query("trireme_rank_silent_seconds")}
        self.assertEqual(ranks, dict.fromkeys("01", socket.gethostname()))
        ((_, age),) = self.query("trireme_age_seconds")
        self.assertGreater(age, 0)
        # A step is made of its causes.
        ((_, share),) = self.query(
            "sum(trireme_time_seconds) / sum(trireme_step_seconds)")
        self.assertLess(abs(share - 1), 0.5)

    def test_every_series_has_a_type_and_an_explanation(self):
        with urllib.request.urlopen(f"http://{self.endpoint}/metrics",
                                    timeout=20) as reply:
            text = reply.read()
        done = subprocess.run(
            ["promtool", "check", "metrics"], input=text, check=False,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual((done.returncode, done.stdout), (0, b""))

    def test_the_dashboard_asks_for_what_there_is(self):
        with open(DASHBOARD, encoding="utf-8") as file:
            panels = json.load(file)["panels"]
        targets = [target for panel in panels for target in panel["targets"]]
        self.assertGreater(len(targets), 8)
        for target in targets:
            found = self.query(target["expr"])
            self.assertTrue(found, target)
            named = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            for labels, _ in found:
                self.assertLessEqual(named, set(labels), target)


if __name__ == "__main__":
    sys.exit(test_cases.run(PrometheusTest))
