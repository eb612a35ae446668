"""Ways to a server of another process that break, count, or hold what goes there."""

from __future__ import annotations

import socket
import struct
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def breaking(
    host: str, after: int, *, sent: list[int] | None = None, holds_at: int = sys.maxsize
) -> Iterator[str]:
    """A way to a server that breaks once, after so many bytes in one direction of one connection.

    Args:
        sent: counts what goes there instead; then nothing breaks.
        holds_at: as many bytes go there, and the rest waits.
    """
    name, _, port = host.partition(":")
    listener = socket.create_server(("127.0.0.1", 0))
    unbroken, threads, opened = [True], list[threading.Thread](), list[socket.socket]()
    over = threading.Event()

    def pump(source: socket.socket, sink: socket.socket, counts: bool) -> None:
        n = 0
        with suppress(OSError):
            while data := source.recv(65536):
                n += len(data)
                if counts and sent is not None:
                    if sent[0] >= holds_at and over.wait():
                        break
                    sent[0] += len(data)
                if n > after and unbroken[0]:
                    unbroken[0] = False
                    # Closed with a reset, as a machine does that goes away.
                    for one in (source, sink):
                        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    break
                sink.sendall(data)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                upstream = socket.create_connection((name, int(port)))
                opened.extend((client, upstream))
                for way in ((client, upstream, True), (upstream, client, False)):
                    threads.append(threading.Thread(target=pump, args=way))
                    threads[-1].start()

    threads.append(threading.Thread(target=serve))
    threads[0].start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        assert sent is not None or not unbroken[0], "nothing broke"
    finally:
        over.set()
        for one in (listener, *opened):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in threads:
            thread.join(10)


@contextmanager
def counting(host: str, *, holds_at: int = sys.maxsize) -> Iterator[tuple[str, list[int]]]:
    """A way to a server that counts the bytes that go there, in the first place of a list."""
    sent = [0]
    with breaking(host, sys.maxsize, sent=sent, holds_at=holds_at) as way:
        yield way, sent
