"""A run's report as a browser shows it: report_page_test.py TRIREME [FOLDER].

Light and dark, on a desk and on a phone. Skipped where Chromium is not
installed. With FOLDER the pictures are left there, for people to look at.
"""

import html
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

TESTS = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
sys.path.insert(0, TESTS)
import test_cases  # pylint: disable=wrong-import-position

TRIREME = os.path.abspath(sys.argv[1])
PICTURES = os.path.abspath(sys.argv[2]) if len(sys.argv) > 2 else None
WIDTHS = {"phone": 390, "desk": 1200}
# As Chromium numbers them.
THEMES = {"dark": 0, "light": 1}
JOB = """
model { dit { hidden: 32 layers: 2 heads: 4 patch: 7 } }
data {
  idx { folder: "/usr/share/datasets/fashion-mnist" split: "test" }
  resolution: 28
  held_out: 16
}
global_batch: 8
steps: 120
optimizer { learning_rate: 3e-3 warmup_steps: 20 decay: COSINE }
validation { every: 20 samples: 16 }
sample { per_class: 2 steps: 4 }
precision: FP32
"""
# In a frame, since no window is as narrow as a phone. What it finds is the
# page's title.
FRAME = """<!doctype html><html><body style="margin:0">
<iframe id="page" width="{width}" height="{height}" style="border:0"
srcdoc="{page}"></iframe>
<script>
onload = () => {{
  const page = document.getElementById('page').contentDocument;
  const style = element => getComputedStyle(element);
  const shown = [...page.querySelectorAll('svg, img, table, pre')].map(
    element => element.getBoundingClientRect());
  const sizes = [...page.querySelectorAll('svg text')].map(element =>
    parseFloat(style(element).fontSize) * element.ownerSVGElement
      .getScreenCTM().a);
  const labels = [...page.querySelectorAll('svg')].map(svg =>
    [...svg.querySelectorAll('text')].map(element => {{
      const box = element.getBoundingClientRect();
      return [element.textContent, box.left, box.right, box.top, box.bottom];
    }}));
  document.title = JSON.stringify({{
    wide: page.documentElement.scrollWidth,
    window: page.documentElement.clientWidth,
    high: page.documentElement.scrollHeight,
    back: style(page.body).backgroundColor,
    text: style(page.body).color,
    label: style(page.querySelector('svg text')).fill,
    charts: page.querySelectorAll('svg').length,
    empty: shown.filter(box => box.width < 1 || box.height < 1).length,
    smallest: Math.min(...sizes),
    labels: labels,
  }});
}};
</script></body></html>
"""


def luminance(colour):
    """Relative, of "rgb(r, g, b)", as WCAG 2 defines it."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055)**2.4
              for part in parts]
    return sum(w * part for w, part in zip((0.2126, 0.7152, 0.0722), linear))


def contrast(a, b):
    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def overlapping(labels):
    """The first two labels of a chart that lie over one another."""
    for i, (a, left, right, top, bottom) in enumerate(labels):
        for b, left_b, right_b, top_b, bottom_b in labels[i + 1:]:
            # Lines of text may touch.
            if (left < right_b and left_b < right and
                    top + 3 < bottom_b and top_b + 3 < bottom):
                return a, b
    return None


class ReportPageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        missing = test_cases.missing_program("chromium")
        if missing:
            raise unittest.SkipTest(missing)
        cls.work = cls.enterClassContext(
            tempfile.TemporaryDirectory(prefix="trireme."))
        with open(f"{cls.work}/job.textproto", "w", encoding="utf-8") as file:
            file.write(JOB)
        for command in (["launch", "job.textproto", "--ranks", "2", "--trace",
                         "--out", "run"], ["report", "run"]):
            done = subprocess.run(
                [TRIREME, *command], cwd=cls.work, check=False,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            if done.returncode != 0:
                raise AssertionError(done.stdout.decode())
        with open(f"{cls.work}/run/report.html", encoding="utf-8") as file:
            cls.page = file.read()
        cls.shown = {(width, theme): cls.show(width, theme)
                     for width in WIDTHS for theme in THEMES}

    @classmethod
    def chromium(cls, theme, *options):
        return subprocess.run(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu",
             f"--user-data-dir={cls.work}/browser",
             f"--blink-settings=preferredColorScheme={THEMES[theme]}",
             *options], check=True, timeout=120, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL).stdout.decode()

    @classmethod
    def show(cls, width, theme):
        """What the frame finds of the page."""
        path = f"{cls.work}/{width}_{theme}.html"

        def write(height):
            with open(path, "w", encoding="utf-8") as file:
                file.write(FRAME.format(width=WIDTHS[width], height=height,
                                        page=html.escape(cls.page)))
        write(800)
        dom = cls.chromium(theme, "--dump-dom", f"file://{path}")
        found = json.loads(html.unescape(
            re.search(r"<title>(.*?)</title>", dom, re.DOTALL)[1]))
        if PICTURES:
            write(found["high"])
            cls.chromium(theme, f"--window-size={max(WIDTHS[width], 500)},"
                         f"{found['high']}", "--hide-scrollbars",
                         f"--screenshot={PICTURES}/{width}_{theme}.png",
                         f"file://{path}")
        return found

    def test_nothing_is_wider_than_the_window(self):
        for place, found in self.shown.items():
            self.assertLessEqual(found["wide"], found["window"], place)

    def test_everything_is_drawn(self):
        for place, found in self.shown.items():
            # Loss, norm, rate, speed, and the timeline.
            self.assertEqual(found["charts"], 5, place)
            self.assertEqual(found["empty"], 0, place)

    def test_text_is_seen_on_its_background(self):
        for place, found in self.shown.items():
            self.assertGreater(contrast(found["text"], found["back"]), 7,
                               place)
            self.assertGreater(contrast(found["label"], found["back"]), 4.5,
                               place)
        backs = {theme: luminance(self.shown["desk", theme]["back"])
                 for theme in THEMES}
        self.assertGreater(backs["light"], 0.8)
        self.assertLess(backs["dark"], 0.1)

    def test_labels_are_large_enough_and_apart(self):
        for place, found in self.shown.items():
            self.assertGreater(found["smallest"], 9, place)
            for labels in found["labels"]:
                self.assertIsNone(overlapping(labels), place)


if __name__ == "__main__":
    sys.exit(test_cases.run(ReportPageTest))
