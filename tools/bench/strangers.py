"""Connections to a job's coordinator by those who have no token.

A tenth of them calls once a second and is refused; the others say nothing, or begin
like one who calls, and then say no more. Who is let go comes
again at once.
"""

import multiprocessing
import selectors
import socket
import struct
import time

AGAIN_S = 0.2
BETWEEN_CALLS_S = 1.0
LOOK_S = 0.1
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def frame(kind, flags, stream, payload=b""):
    """Of HTTP/2 (RFC 9113, section 4.1)."""
    return (struct.pack(">I", len(payload))[1:]
            + struct.pack(">BBI", kind, flags, stream) + payload)


SETTINGS = frame(4, 0, 0)


def call(stream, token):
    """GetStatus of coordinator.proto, as gRPC has it."""
    headers = b""
    for name, value in [
            (":method", "POST"), (":scheme", "http"),
            (":path", "/trireme.Coordinator/GetStatus"), (":authority", "a"),
            ("te", "trailers"), ("content-type", "application/grpc"),
            ("authorization", f"Bearer {token}")]:
        # Literals without indexing (RFC 7541, section 6.2.2).
        headers += b"\0" + bytes([len(name)]) + name.encode()
        headers += bytes([len(value)]) + value.encode()
    end_headers, end_stream = 4, 1
    return (frame(1, end_headers, stream, headers)
            + frame(0, end_stream, stream, bytes(5)))


OPENINGS = [b"", PREFACE[:10], PREFACE + SETTINGS]
CALLERS = 10  # every tenth


class Stranger:
    """One connection, again and again."""

    def __init__(self, number, endpoint, looking):
        self.calls = number % CALLERS == 0
        self.opening = (PREFACE + SETTINGS if self.calls
                        else OPENINGS[number % len(OPENINGS)])
        self.endpoint, self.looking = endpoint, looking
        self.socket, self.stream, self.next = None, 1, 0.0

    def connect(self, now):
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.connect_ex(self.endpoint)
        self.looking.register(self.socket, selectors.EVENT_WRITE, self)
        self.stream, self.next = 1, now + BETWEEN_CALLS_S

    def let_go(self, now):
        if self.socket is not None:
            self.looking.unregister(self.socket)
            self.socket.close()
        self.socket, self.next = None, now + AGAIN_S

    def say(self, content, now):
        try:
            self.socket.sendall(content)
        except OSError:
            self.let_go(now)

    def go_on(self, events, now):
        """What has come; the bytes heard."""
        if events & selectors.EVENT_WRITE:
            self.looking.modify(self.socket, selectors.EVENT_READ, self)
            self.say(self.opening, now)
            return b""
        try:
            heard = self.socket.recv(1 << 16)
        except OSError:
            heard = b""
        if not heard:
            self.let_go(now)
        return heard

    def wake(self, now):
        """Once it is time to."""
        if now < self.next:
            return
        if self.socket is None:
            self.connect(now)
        elif self.calls:
            self.next = now + BETWEEN_CALLS_S
            self.say(call(self.stream, "0" * 64), now)
            self.stream += 2


class Siege:
    """`count` connections to (host, port), held by a process of its own while
    `holds` is true."""

    def __init__(self, endpoint, count):
        self._wanted = multiprocessing.Value("b", False)
        self._connected = multiprocessing.Value("q", 0)
        self._refused = multiprocessing.Value("q", 0)
        self._open = multiprocessing.Value("q", 0)
        self.process = multiprocessing.Process(
            target=self._run, args=(endpoint, count), daemon=True)
        self.process.start()

    def hold(self, holds):
        self._wanted.value = holds

    def end(self):
        self.process.kill()
        self.process.join()

    # So far, and at the moment.
    connected = property(lambda self: self._connected.value)
    refused = property(lambda self: self._refused.value)
    open = property(lambda self: self._open.value)

    def _run(self, endpoint, count):
        looking = selectors.DefaultSelector()
        strangers = [Stranger(number, endpoint, looking)
                     for number in range(count)]
        while True:
            now = time.monotonic()
            for stranger in strangers:
                before = stranger.socket
                if self._wanted.value:
                    stranger.wake(now)
                elif before is not None:
                    stranger.let_go(now)
                    stranger.next = 0.0
                self._connected.value += stranger.socket not in (None, before)
            self._open.value = sum(stranger.socket is not None
                                   for stranger in strangers)
            while time.monotonic() < now + LOOK_S:
                for key, events in looking.select(LOOK_S):
                    heard = key.data.go_on(events, time.monotonic())
                    self._refused.value += b"the job's token" in heard
