"""What the laboratory's tests and its study have in common: jobs, emulated
devices, and the trireme commands run on a Network."""

import os
import re

# Devices slow enough that two processor cores sleep and send for sixteen.
DEVICE = """
devices {
  name: "emulated"
  peak_bf16_flops: 1.6e11
  peak_fp32_flops: 8e10
  achieved_bf16_flops: 8e10
  achieved_fp32_flops: 4e10
  memory_bytes: 17179869184
  memory_bytes_per_s: 1e11
}
"""

JOB = """
name: "laboratory"
model { dit { hidden: 256 layers: LAYERS heads: 4 patch: 2 } }
objective { rectified_flow { } }
data {
  idx { folder: "/usr/share/datasets/fashion-mnist" }
  resolution: 28
}
optimizer { learning_rate: 1e-3 }
precision: BF16
steps: 10
"""


class Laboratory:
    """Files in `folder`, commands of the program `trireme` on `network`."""

    def __init__(self, trireme, network, folder, global_batch, layers=8):
        self._trireme = os.path.abspath(trireme)
        self._network = network
        self._folder = folder
        self.job = self.write(
            "job.textproto", JOB.replace("LAYERS", str(layers)) +
            f"global_batch: {global_batch}\n")

    def write(self, name, text):
        path = os.path.join(self._folder, name)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def run(self, *arguments, timeout=300):
        return self._network.run([self._trireme, *arguments], timeout)

    def profile(self):
        """The measured cluster's file, and what was printed."""
        path = os.path.join(self._folder, "measured.textproto")
        printed = self.run("profile", "--hosts", self._network.hosts, "--out",
                           path, "--overwrite")
        return path, printed

    def emulated(self, measured):
        """The cluster with the measured links and emulated devices."""
        with open(measured, encoding="utf-8") as file:
            text = file.read()
        text = text[text.index("nodes {"):]
        text = re.sub(r'device: "[^"]*"', 'device: "emulated"', text)
        return self.write("cluster.textproto", DEVICE + text)

    def plan(self, cluster):
        """The planner's choice: its file, and what was printed."""
        path = os.path.join(self._folder, "planned.textproto")
        return path, self.run("plan", self.job, "--cluster", cluster, "--out",
                              path)

    def rehearse(self, cluster, plan, steps=3):
        """Predicted and measured seconds of a step."""
        printed = self.run("rehearse", self.job, "--cluster", cluster, "--plan",
                           plan, "--hosts", self._network.hosts, "--steps",
                           str(steps))
        row = re.search(r"^step +([0-9.]+) +([0-9.]+)$", printed, re.MULTILINE)
        return float(row[1]), float(row[2])


def links_of(measured):
    """{(from, to): bytes per second} and [a node's card or None], of a file
    that `trireme profile` wrote."""
    with open(measured, encoding="utf-8") as file:
        text = file.read()
    links = {}
    for block in re.findall(r"^links \{\n(.*?)^\}", text, re.M | re.S):
        def number(field, block=block):
            found = re.search(rf"^\s*{field}: (\S+)", block, re.M)
            return float(found[1]) if found else 0.0
        links[int(number("from")), int(number("to"))] = number("bytes_per_s")
    cards = []
    for block in re.findall(r"^nodes \{\n(.*?)^\}", text, re.M | re.S):
        found = re.search(r"card_bytes_per_s: (\S+)", block)
        cards.append(float(found[1]) if found else None)
    return links, cards
