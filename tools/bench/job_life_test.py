"""Tests of how job_life.py measures; they run no job."""

import socket
import struct
import time
import unittest

from tools.bench import job_life, strangers


def record(wall_time, step, rest=b""):
    """As trireme writes one: its checksums are not looked at."""
    event = b"\x09" + struct.pack("<d", wall_time)
    if step > 0:
        event += b"\x10"
        while step >= 0x80:
            event += bytes([step & 0x7f | 0x80])
            step >>= 7
        event += bytes([step])
    event += rest
    return struct.pack("<QI", len(event), 0) + event + bytes(4)


class StepsTest(unittest.TestCase):

    def test_the_last_scalar_of_a_step_is_its_end(self):
        events = (record(1.0, 0, b"\x1a\x0dbrain.Event:2")
                  + record(2.0, 1) + record(2.5, 1) + record(3.0, 300)
                  + record(4.0, 301)[:9])
        self.assertEqual(job_life.ends_of_steps(events), {1: 2.5, 300: 3.0})


class MedianTest(unittest.TestCase):

    def test_bounds_are_those_of_the_sign_test(self):
        # Tables of it: of 10 values the second and ninth, of 60 the 22nd and
        # 39th, counted from one.
        self.assertEqual(job_life.median_between(range(1, 11)), (5.5, 2, 9))
        self.assertEqual(job_life.median_between(range(60, 0, -1)),
                         (30.5, 22, 39))
        self.assertEqual(job_life.median_between([3, 1, 2]), (2, 1, 3))


class ConnectionsTest(unittest.TestCase):

    def test_a_window_is_held_against_its_neighbours(self):
        # Steps become slower all the time, and 2 % more in every other window.
        ends, now, step, windows = {}, 0.0, 0, []
        for number in range(7):
            begin, held = now, number % 2 == 1
            for _ in range(20):
                step += 1
                now += (0.1 + 0.01 * number) * (1.02 if held else 1)
                ends[step] = now
            windows.append((begin, now, held))
        medians, ratios = job_life.compare_windows(ends, windows)
        self.assertEqual(len(ratios), 3)
        for ratio in ratios:
            self.assertAlmostEqual(ratio, 1.02)
        self.assertAlmostEqual(medians[True], 1.02 * 0.13)

    def test_a_window_without_steps_is_left_out(self):
        ends = {step: 0.1 * step for step in range(1, 32)}
        windows = [(0, 1, False), (1, 1.05, True), (1, 2, False), (2, 3, True),
                   (3, 4, False)]
        medians, ratios = job_life.compare_windows(ends, windows)
        self.assertEqual(len(ratios), 1)
        self.assertAlmostEqual(ratios[0], 1)
        self.assertAlmostEqual(medians[True], 0.1)

    def test_strangers_come_again_and_go_when_told(self):
        server = socket.socket()
        self.addCleanup(server.close)
        server.bind(("127.0.0.1", 0))
        server.listen(20)
        siege = strangers.Siege(server.getsockname(), 12)
        self.addCleanup(siege.end)
        siege.hold(True)
        clients = [server.accept()[0] for _ in range(12)]
        clients.pop().close()
        clients.append(server.accept()[0])
        heard = b""
        deadline = time.monotonic() + 60
        while b"GetStatus" not in heard and time.monotonic() < deadline:
            for client in clients:
                client.settimeout(0.01)
                try:
                    heard += client.recv(4096)
                except TimeoutError:
                    pass
        self.assertIn(b"GetStatus", heard)
        siege.hold(False)
        while siege.open > 0 and time.monotonic() < deadline:
            time.sleep(0.05)
        self.assertEqual((siege.open, siege.connected), (0, 13))
        for client in clients:
            client.close()


class SavesTest(unittest.TestCase):

    def test_a_save_costs_what_the_steps_after_it_take_longer(self):
        ends, now = {}, 0.0
        for step in range(1, 33):
            now += 0.1
            if step in (9, 17):
                now += 0.03
            if step in (10, 18):
                now += 0.01
            ends[step] = now
        costs = job_life.costs_of_saves(ends, 8)
        self.assertEqual(len(costs), 3)
        for (cost, step), expected in zip(costs, (0.04, 0.04, 0.0)):
            self.assertAlmostEqual(cost, expected)
            self.assertAlmostEqual(step, 0.1)


if __name__ == "__main__":
    unittest.main()
