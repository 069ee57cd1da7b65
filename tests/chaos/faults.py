"""What strikes a run: one method a kind of fault.

A method returns when the fault is over, and what is to follow: START, that the
ranks are started again; NONE, that nobody but who waits notices; EITHER.
"""

import os
import random
import signal
import struct
import time

from hurt_run import RANKS

START, NONE, EITHER = "start", "none", "either"
# A disk is slow for so long.
SLOW_DISK_S = 1.0
# What a run says of a disk that fails, by fault.
DISK_ERRORS = {"full": "No space left on device",
               "read_only": "Read-only file system",
               "broken": "Input/output error"}
# Shorter than a launch puts up with silence (10 s), and longer than that after
# which it says so (3 s).
SHORT_CUT_S = (1.0, 5.0)
SLOW_BYTES_PER_S = 50e3
SLOW_S = 3.0
# TCP sends again at intervals that double from 0.2 s: of more it could wait for
# longer than a launch puts up with.
LOSSES = [0.01, 0.05, 0.2]

KINDS = ["kill_rank", "kill_ranks", "kill_mpirun", "kill_launch", "kill_twice",
         "stop_rank", "stop_mpirun", "stop_launch", "slow_rank", "disk_full",
         "disk_broken", "disk_read_only", "disk_slow", "torn_write", "torn_recovery",
         "torn_checkpoint", "clock_jump"]
# Those that are over as soon as ranks have started again, or the run has said
# what is wrong.
QUICK = ["kill_rank", "kill_ranks", "kill_mpirun", "stop_rank", "torn_write",
         "torn_checkpoint", "disk_full", "disk_broken", "disk_read_only"]
# These need hosts and links between them.
LINK_KINDS = ["cut", "cut_long", "cut_twice", "one_way", "slow_link",
              "lossy_link", "kill_daemon", "lose_host"]


def of_every_kind(on_hosts):
    return KINDS + (LINK_KINDS if on_hosts else [])


class Faults:
    def __init__(self, run, seed):
        self.run = run
        self.random = random.Random(seed)

    @staticmethod
    def send(signal_number, *processes):
        for process in processes:
            try:
                os.kill(process, signal_number)
            except ProcessLookupError:
                pass  # The fault before it was faster.

    # Processes.

    def kill_rank(self):
        self.send(signal.SIGKILL, self.random.choice(self.run.ranks()))
        return START

    def kill_ranks(self):
        self.send(signal.SIGKILL, *self.run.ranks())
        return START

    def kill_mpirun(self):
        self.send(signal.SIGKILL, self.run.parent(0))
        return START

    def kill_daemon(self):
        self.send(signal.SIGKILL, self.run.parent(1))
        return START

    # The ranks go on, and another launch takes them up.
    def kill_launch(self):
        self.run.process.kill()
        self.run.process.wait()
        time.sleep(self.random.random())
        taken = self.run.printed().count("takes up the run")
        self.run.launch("--resume")
        self.run.await_that(
            lambda: self.run.printed().count("takes up the run") > taken,
            "the run to be taken up")
        return EITHER

    # The second time while the ranks start again.
    def kill_twice(self):
        first = self.run.ranks()
        self.send(signal.SIGKILL, first[0])
        self._await_new_rank(first[1])
        self.send(signal.SIGKILL, *filter(None, [self.run.rank(1)]))
        return START

    def _await_new_rank(self, before):
        self.run.await_that(
            lambda: self.run.rank(1) not in (None, before), "a new rank 1")
        time.sleep(self.random.random())

    def stop_rank(self):
        self.send(signal.SIGSTOP, self.random.choice(self.run.ranks()))
        return START

    def stop_mpirun(self):
        self.send(signal.SIGSTOP, self.run.parent(0))
        return START

    # As Ctrl-Z and fg: nobody is given up for what it did not hear.
    def stop_launch(self):
        self.send(signal.SIGSTOP, self.run.process.pid)
        time.sleep(4)
        self.send(signal.SIGCONT, self.run.process.pid)
        return EITHER

    # It may be seen while it is stopped, and taken for lost: either is right.
    def slow_rank(self):
        rank = self.random.choice(self.run.ranks())
        for _ in range(10):
            self.send(signal.SIGSTOP, rank)
            time.sleep(0.02)
            self.send(signal.SIGCONT, rank)
            time.sleep(0.02)
        return EITHER

    # Disks (faulty_disk.cc).

    def _set_disk(self, fault):
        with open(self.run.fault_file, "w", encoding="utf-8") as file:
            file.write(fault)

    # Until the run says that it could not save, and why. Ranks may be killed
    # then: they go on from what was saved before.
    def _disk_fails(self, fault):
        told = self.run.not_saved(DISK_ERRORS[fault])
        self._set_disk(fault)
        self.run.await_that(
            lambda: self.run.not_saved(DISK_ERRORS[fault]) > told,
            f"word of a disk that is {fault}")
        kills = self.random.random() < 0.5
        if kills:
            self.kill_ranks()
        os.remove(self.run.fault_file)
        return START if kills else NONE

    def disk_full(self):
        return self._disk_fails("full")

    def disk_broken(self):
        return self._disk_fails("broken")

    def disk_read_only(self):
        return self._disk_fails("read_only")

    # Steps go on meanwhile, and nobody is taken for lost.
    def disk_slow(self):
        self._set_disk("slow")
        time.sleep(SLOW_DISK_S)
        os.remove(self.run.fault_file)
        return NONE

    def torn_write(self):
        self._set_disk("torn")
        self.run.await_that(
            lambda: not os.path.exists(self.run.fault_file) or
            self.run.process.poll() is not None, "a write to be torn")
        return START

    # The ranks that start again are torn from what they write first.
    def torn_recovery(self):
        self.kill_ranks()
        return self.torn_write()

    # What ranks would go on from has become something else since it was
    # written, on disk or in memory; they take the one before, or the other.
    def torn_checkpoint(self):
        places = [self.run.newest_checkpoint(),
                  self.run.newest_checkpoint(in_memory=True)]
        for folder in self.random.choice([places[:1], places[1:], places]):
            names = sorted(os.listdir(folder)) if folder else []
            if names:
                self._damage(os.path.join(folder, self.random.choice(names)))
        self.kill_ranks()
        return START

    def _damage(self, path):
        try:
            size = os.path.getsize(path)
            if self.random.random() < 0.5:
                os.truncate(path, size // 2)
                return
            with open(path, "r+b") as file:
                file.seek(size // 2)
                byte = file.read(1)
                file.seek(size // 2)
                file.write(bytes([byte[0] ^ 1]))
        except FileNotFoundError:
            pass  # A newer one has taken its place.

    # Clocks (faulty_clock.cc): from now on one or all of them are wrong.
    def clock_jump(self):
        seconds = self.random.choice([-1, 1]) * self.random.choice(
            [5, 3600, 3 * 86400])
        who = self.random.randrange(RANKS + 2)
        with open(self.run.clock_file, "r+b") as file:
            for slot in range(RANKS + 1):
                if who in (slot, RANKS + 1):
                    file.seek(8 * slot)
                    file.write(struct.pack("<q", seconds))
        time.sleep(1)
        return NONE

    # Links.

    def cut(self):
        host = self.run.hosts()[1]
        self.run.network.set_link(host, "down")
        time.sleep(self.random.uniform(*SHORT_CUT_S))
        self.run.network.set_link(host, "up")
        return NONE

    # It is there again when hosts are asked for the last time whether they are;
    # a spare takes its place if it is slow to answer.
    def cut_long(self):
        lost = self.run.printed().count("all ranks are ended")
        host = self.run.hosts()[1]
        self.run.network.set_link(host, "down")
        self.run.await_that(
            lambda: self.run.printed().count("all ranks are ended") > lost,
            "ranks behind the link to be lost")
        self.run.network.set_link(host, "up")
        return START

    # The second time while the ranks start again.
    def cut_twice(self):
        before = self.run.ranks()[1]
        self.cut_long()
        self._await_new_rank(before)
        self.cut()
        return START

    def one_way(self):
        here, there = self.run.hosts()
        if self.random.random() < 0.5:
            here, there = there, here
        self.run.network.set_heard(here, there, False)
        time.sleep(self.random.uniform(*SHORT_CUT_S))
        self.run.network.set_heard(here, there, True)
        return NONE

    def slow_link(self):
        network = self.run.network
        here, there = self.run.hosts()
        network.set_rate(here, there, SLOW_BYTES_PER_S)
        network.set_rate(there, here, SLOW_BYTES_PER_S)
        time.sleep(SLOW_S)
        network.set_rate(here, there)
        network.set_rate(there, here)
        return NONE

    # Which packets, no seed says.
    def lossy_link(self):
        here, there = self.run.hosts()
        share = self.random.choice(LOSSES)
        for source, target in [(here, there), (there, here)]:
            self.run.network.set_loss(source, target, share)
        time.sleep(SLOW_S)
        for source, target in [(here, there), (there, here)]:
            self.run.network.set_loss(source, target, 0)
        return NONE

    # A spare takes its place.
    def lose_host(self):
        lost = self.run.hosts()[1]
        self.run.network.set_link(lost, "down")
        self.run.await_that(lambda: lost not in self.run.hosts(),
                            "a spare to take a host's place")
        self.run.lost.add(lost)
        return START
