"""What a rank's trace says of its streams: how long the compute stream had
nothing to do, and how much of messages and reductions ran beside it.

    stream_gaps.py RUN/trace/rank_0.json

Prints one JSON object, of the mean step: `step_s`, from its first instruction to
its last end; `compute_idle_percent` of that in which no instruction computed;
`communication_s` in which others of its streams sent, received, reduced or
gathered, and `overlapped_percent` of it beside which something computed.

A trace has instructions, not kernels: what a GPU waits for the host within one
is part of it. So is a collective that one of them makes for itself (of tensor
parallelism, or of a bucket of gradients that is ready), until the end of which
only the wait is seen.
"""

import json
import sys

COMPUTE, COMMUNICATION = "compute", "communication"


def merged(spans):
    """Disjoint (begin, end), ascending."""
    found = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1][1] = max(found[-1][1], end)
        else:
            found.append([begin, end])
    return found


def total(spans):
    return sum(end - begin for begin, end in merged(spans))


def common(a, b):
    """How long something of a and something of b ran at once."""
    return total(a) + total(b) - total([*a, *b])


def steps_of(events):
    """The events of each step: it begins with the first instruction to compute,
    which it has once, or with what its streams did since the one before."""
    first = next((event["name"] for event in events
                  if event["cat"] == COMPUTE), None)
    begins = sorted(event["ts"] for event in events if event["name"] == first)
    steps = [[] for _ in begins]
    for event in events:
        at = sum(event["ts"] >= begin for begin in begins) - 1
        if at >= 0:
            steps[at].append(event)
    return steps


def measure(trace):
    events = [event for event in trace["traceEvents"] if event["ph"] == "X"]
    found = []
    for step in steps_of(events):
        spans = {kind: [(event["ts"], event["ts"] + event["dur"])
                        for event in step if event["cat"] == kind]
                 for kind in (COMPUTE, COMMUNICATION)}
        everything = [(event["ts"], event["ts"] + event["dur"])
                      for event in step]
        length = max(end for _, end in everything) - min(
            begin for begin, _ in everything)
        found.append((length, total(spans[COMPUTE]),
                      total(spans[COMMUNICATION]),
                      common(spans[COMPUTE], spans[COMMUNICATION])))
    if not found:
        sys.exit("stream_gaps: found no instruction that computes")
    length, compute, communication, both = (
        sum(column) / len(found) for column in zip(*found))
    return {
        "steps": len(found),
        "step_s": length / 1e6,
        "compute_idle_percent": 100 * (1 - compute / length),
        "communication_s": communication / 1e6,
        "overlapped_percent":
            100 * both / communication if communication > 0 else None,
    }


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with open(sys.argv[1], encoding="utf-8") as file:
        print(json.dumps(measure(json.load(file))))
