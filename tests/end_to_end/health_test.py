"""Runs that go wrong: a sample that no number describes, one whose loss is a
spike, a bit that flips in a rank's weights.

  health_test.py TRIREME

Each is planted into a run of its own, and each policy of `health` (job.proto)
has to do what it says.
"""

import io
import json
import os
import signal
import struct
import subprocess
import sys
import tarfile
import tempfile
import time

TRIREME = os.path.abspath(sys.argv[1])
CHANNELS, SIDE, SAMPLES = 2, 4, 160
ELEMENTS = CHANNELS * SIDE * SIDE
# One that the seed brings at step 29 of the first epoch's 40.
BAD_SAMPLE = 3
PATIENCE_S = 300

JOB = """
model {{ dit {{ hidden: 32 layers: 2 heads: 4 patch: 2 }} }}
data {{ latents {{ path: "{latents}" }} }}
global_batch: {batch}
steps: 60
optimizer {{ learning_rate: {rate} ema_decay: 0 }}
checkpoint {{ every: {every} keep: 0 }}
sample {{ at_end: false }}
precision: FP32
health {{ {health} }}
"""


def write_latents(folder, bad_value):
    os.mkdir(folder)
    with open(f"{folder}/latents.json", "w", encoding="utf-8") as file:
        json.dump({"autoencoder": "/nowhere", "weights_xxh64": "0",
                   "channels": CHANNELS, "height": SIDE, "width": SIDE,
                   "scaling_factor": 1.0, "shift_factor": 0.0,
                   "pictures": SAMPLES, "pictures_hash": 1,
                   "pictures_per_shard": SAMPLES}, file)
    with tarfile.open(f"{folder}/shard-000000.tar", "w",
                      format=tarfile.USTAR_FORMAT) as tar:
        for sample in range(SAMPLES):
            mean = [bad_value if sample == BAD_SAMPLE
                    else 0.5 * ((sample + i) % 3 - 1) for i in range(ELEMENTS)]
            for ending, content in (
                    ("cls", b"0\n"),
                    ("latents",
                     struct.pack("<3I", CHANNELS, SIDE, SIDE) +
                     struct.pack(f"<{2 * ELEMENTS}f", *mean,
                                 *[-2.0] * ELEMENTS))):
                info = tarfile.TarInfo(f"{sample:09}.{ending}")
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))


def write_job(name, latents, health, batch=4, rate=1e-3, every=5):
    with open(f"{name}.textproto", "w", encoding="utf-8") as file:
        file.write(JOB.format(latents=os.path.abspath(latents), health=health,
                              batch=batch, rate=rate, every=every))


def launch(job, out, *options, ranks=2):
    """The status, and all that was printed."""
    done = subprocess.run(
        [TRIREME, "launch", f"{job}.textproto", "--ranks", str(ranks), "--out",
         out, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        timeout=PATIENCE_S, check=False)
    return done.returncode, done.stdout.decode(errors="replace")


def metrics(run):
    with open(f"{run}/metrics.jsonl", encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def text_of(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def checkpoint(run, step):
    """The files of a checkpoint, but for what says which step it is of."""
    folder = f"{run}/checkpoints/step_{step:08}"
    found = {}
    for name in os.listdir(folder):
        if name != "manifest.json":
            with open(f"{folder}/{name}", "rb") as file:
                found[name] = file.read()
    assert found
    return found


def expect(condition, *what):
    if not condition:
        raise AssertionError("\n".join(map(str, what)))


def skipped_samples_leave_no_trace():
    write_job("skip", "infinite", "on_bad_loss: SKIP", every=1)
    status, printed = launch("skip", "skip")
    expect(status == 0, printed)
    lines = metrics("skip")
    expect([line["step"] for line in lines] == list(range(1, 61)))
    bad = [line["step"] for line in lines if line.get("left_out")]
    expect(len(bad) in (1, 2) and 21 <= bad[0] <= 35, bad)
    expect(lines[bad[0] - 1]["loss"] is None, lines[bad[0] - 1])
    expect(lines[-1]["left_out_steps"] == len(bad), lines[-1])
    expect(checkpoint("skip", bad[0]) == checkpoint("skip", bad[0] - 1))
    told = text_of("skip/health.log")
    for text in (f"step {bad[0]}: the loss is ", "in forward of microbatch ",
                 " on rank ", "it is left out"):
        expect(text in told and text in printed, text, told, printed)
    subprocess.run([TRIREME, "report", "skip"], check=True,
                   stdout=subprocess.DEVNULL)
    page = text_of("skip/report.html")
    expect("Steps that went wrong" in page and "it is left out" in page)
    return bad[0]


def a_resumed_run_sees_the_same_spikes(bad):
    write_job("spike", "high", "on_bad_loss: SKIP spike_factor: 10")
    status, printed = launch("spike", "spike")
    expect(status == 0, printed)
    lines = metrics("spike")
    expect(lines[bad - 1].get("left_out") and lines[bad - 1]["loss"] > 100,
           lines[bad - 1])
    expect("(health.spike_factor)" in text_of("spike/health.log"), printed)
    # Without the losses before it nothing is a spike for 16 steps.
    status, printed = launch("spike", "resumed", "--steps", str(bad - 3))
    expect(status == 0, printed)
    status, printed = launch("spike", "resumed", "--resume")
    expect(status == 0, printed)
    expect(checkpoint("resumed", 60) == checkpoint("spike", 60))


def a_rolled_back_run_goes_on_behind_the_bad_samples(bad):
    write_job("back", "infinite", "on_bad_loss: ROLL_BACK")
    status, printed = launch("back", "back")
    expect(status == 0, printed)
    saved = (bad - 1) // 5 * 5
    expect(f"goes back to step {saved}, and on with the samples behind" in
           text_of("back/health.log"), text_of("back/health.log"))
    lines = metrics("back")
    expect([line["step"] for line in lines] == list(range(1, 61)))
    expect(all(line["loss"] is not None for line in lines))
    expect(lines[-1]["roll_backs"] in (1, 2), lines[-1])


def a_stopped_run_has_saved_what_was_before(bad):
    write_job("stop", "infinite", "")
    status, printed = launch("stop", "stop", "--restarts", "3")
    expect(status == 1, printed)
    for text in (f"step {bad}: the loss is ", "the first that is not finite: ",
                 f"the state after step {bad - 1} is saved"):
        expect(text in printed, text, printed)
    expect("ranks were lost" not in printed, printed)
    expect(checkpoint("stop", bad - 1) == checkpoint("skip", bad - 1))
    status, printed = launch("stop", "stop", "--resume", "--set",
                             "health.on_bad_loss=SKIP")
    expect(status == 0, printed)
    expect(checkpoint("stop", 60) == checkpoint("skip", 60))


def tensor_bytes(path, name):
    with open(path, "rb") as file:
        content = file.read()
    length = struct.unpack("<Q", content[:8])[0]
    begin, end = json.loads(content[8:8 + length])[name]["data_offsets"]
    return content[8 + length + begin:8 + length + end]


def process_of_rank(rank, out):
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{process}/environ", "rb") as file:
                environment = file.read().split(b"\0")
            with open(f"/proc/{process}/cmdline", "rb") as file:
                arguments = file.read().split(b"\0")
        except OSError:
            continue  # It has ended.
        if (f"OMPI_COMM_WORLD_RANK={rank}".encode() in environment and
                f"--out={out}".encode() in arguments):
            return int(process)
    return None


def flip_a_bit(process, wanted):
    """In each place of the process's memory where `wanted` lies."""
    flipped = 0
    with open(f"/proc/{process}/maps", encoding="utf-8") as file:
        regions = [line.split() for line in file]
    with open(f"/proc/{process}/mem", "r+b", buffering=0) as memory:
        for region in regions:
            if region[1].startswith("rw"):
                begin, end = (int(place, 16) for place in region[0].split("-"))
                try:
                    memory.seek(begin)
                    content = memory.read(end - begin)
                except OSError:
                    continue  # The kernel's own.
                place = content.find(wanted)
                while place >= 0:
                    memory.seek(begin + place)
                    memory.write(bytes([wanted[0] ^ 1]))
                    flipped += 1
                    place = content.find(wanted, place + 1)
    return flipped


def a_flipped_bit_is_found():
    # At a rate of 0 the weights stay what the first checkpoint has.
    write_job("flip", "high", "replica_hash_every: 1", batch=3, rate=0, every=1)
    out = os.path.abspath("flip")
    with open("flip.txt", "wb") as printed:
        run = subprocess.Popen(
            [TRIREME, "launch", "flip.textproto", "--ranks", "3", "--out", out,
             "--steps", "1000000", "--set", "checkpoint.keep=1"],
            stdout=printed, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + PATIENCE_S
        found = None
        while found is None:
            expect(time.monotonic() < deadline and run.poll() is None,
                   text_of("flip.txt"))
            time.sleep(0.05)
            try:
                folder = f"{out}/checkpoints"
                names = [name for name in os.listdir(folder)
                         if "." not in name]
                found = tensor_bytes(
                    f"{folder}/{names[0]}/model.safetensors",
                    "blocks.1.mlp.out.weight")
            except (OSError, IndexError, struct.error, ValueError):
                found = None
        process = process_of_rank(1, out)
        expect(process is not None, text_of("flip.txt"))
        expect(flip_a_bit(process, found[:256]) > 0, "no weight in memory")
        expect(run.wait(timeout=PATIENCE_S) == 1, text_of("flip.txt"))
    finally:
        if run.poll() is None:
            run.send_signal(signal.SIGTERM)
            run.send_signal(signal.SIGTERM)
            run.wait()
    told = text_of("flip/health.log")
    expect("'blocks.1.mlp.out.weight'" in told and
           "of rank 1 differs from what the 3 ranks that hold it alike" in told,
           told)
    expect("ranks were lost" not in text_of("flip.txt"), text_of("flip.txt"))


def main():
    with tempfile.TemporaryDirectory(prefix="trireme.") as work:
        os.chdir(work)
        os.environ["TMPDIR"] = work
        write_latents("infinite", 1e30)
        write_latents("high", 300.0)
        bad = skipped_samples_leave_no_trace()
        a_resumed_run_sees_the_same_spikes(bad)
        a_rolled_back_run_goes_on_behind_the_bad_samples(bad)
        a_stopped_run_has_saved_what_was_before(bad)
        a_flipped_bit_is_found()
        os.chdir("/")
    return 0


if __name__ == "__main__":
    sys.exit(main())
