"""A relay in front of a server that cuts its connections at a chosen moment: as a network does, but on time."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

from servers import LOOPBACK

Cut = Literal["", "before", "within", "after"]
# PostgreSQL's last message of an answer, which says that a transaction has ended.
_N_LAST = 6


class Relay:
    """A client that says `word` loses its connection, once, while `cut` says so.

    Attributes:
        cut: `before` the server hears the word; `after` it answered, without the answer being passed on; or `within`
            the answer, of which all but the last message is.
    """

    def __init__(self, server_port: int, word: bytes) -> None:
        self.cut: Cut = ""
        self._word = word
        self._server_port = server_port
        self._listening = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listening.getsockname()[1]
        self._sockets = [self._listening]
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                server = socket.create_connection((LOOPBACK, self._server_port))
                self._sockets += [client, server]
                moments: list[Cut] = []
                for work in (self._up, self._down):
                    thread = threading.Thread(target=work, args=(client, server, moments))
                    self._threads.append(thread)
                    thread.start()

    def _up(self, client: socket.socket, server: socket.socket, moments: list[Cut]) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                if self._word in data:
                    moment, self.cut = self.cut, ""
                    if moment == "before":
                        break
                    if moment:
                        moments.append(moment)
                server.sendall(data)
        self._cut(client, server)

    def _down(self, client: socket.socket, server: socket.socket, moments: list[Cut]) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                if moments:
                    client.sendall(data[:-_N_LAST] if moments[0] == "within" else b"")
                    break
                client.sendall(data)
        self._cut(client, server)

    @staticmethod
    def _cut(*connections: socket.socket) -> None:
        for connection in connections:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        self._cut(*self._sockets)
        for thread in self._threads:
            thread.join(30)
        for connection in self._sockets:
            connection.close()


@contextmanager
def cutting(server_port: int, word: bytes) -> Iterator[Relay]:
    relay = Relay(server_port, word)
    try:
        yield relay
    finally:
        relay.close()
