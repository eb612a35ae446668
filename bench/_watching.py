"""A client in a process of its own: asks both workers behind one port in turn, writes a line when one changes versions.

    python bench/_watching.py PORT PATH BODY N_WORKERS

A line is `WORKER VERSION NANOSECONDS ANSWER`: the worker by the prefix of its request ids, the monotonic clock, which
all processes of a machine share, at the first answer of that version from that worker, and the prediction in it. The
kernel chooses the worker of a connection, so connections are opened until each worker has one. Ends with 3 at the
first answer that is not 200, with 0 when its standard input is closed; then the last line is `n REQUESTS`.
"""

from __future__ import annotations

import json
import select
import socket
import sys
import time

_PAUSE_S = 0.0003
"""Between two requests. Without any, client and workers would take both of two processors from the one who applies."""
_MOST_CONNECTIONS = 200


class Connection:
    """One connection, hence one worker."""

    def __init__(self, port: int, request: bytes) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._request = request
        self.version = ""

    def ask(self) -> tuple[int, dict[str, object]]:
        """Since when the answer is there, and the answer."""
        self._socket.sendall(self._request)
        received = self._socket.recv(65_536)
        while not complete(received):
            received += self._socket.recv(65_536)
        at = time.monotonic_ns()
        head, _, body = received.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            print(received.decode(errors="replace"), file=sys.stderr)
            sys.exit(3)
        answer: dict[str, object] = json.loads(body)
        return at, answer

    def close(self) -> None:
        self._socket.close()


def complete(received: bytes) -> bool:
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return False
    length = next(line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:"))
    return len(body) >= int(length.partition(b":")[2])


def connect(port: int, request: bytes, n_workers: int) -> dict[str, Connection]:
    """One connection to each worker."""
    found: dict[str, Connection] = {}
    spare = []
    for _ in range(_MOST_CONNECTIONS):
        connection = Connection(port, request)
        worker = worker_of(connection.ask()[1])
        if worker in found:
            spare.append(connection)
        else:
            found[worker] = connection
        if len(found) == n_workers:
            break
    else:
        sys.exit(f"only {len(found)} of {n_workers} workers answer")
    for connection in spare:
        connection.close()
    return found


def worker_of(answer: dict[str, object]) -> str:
    return str(answer["request_id"]).rpartition("-")[0]


def main(port: str, path: str, body: str, n_workers: str) -> int:
    head = f"POST {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    workers = connect(int(port), f"{head}\r\n\r\n{body}".encode(), int(n_workers))
    n_requests = 0
    while True:
        for worker, connection in workers.items():
            at, answer = connection.ask()
            n_requests += 1
            if answer["version"] != connection.version:
                connection.version = str(answer["version"])
                predictions = answer["predictions"]
                assert isinstance(predictions, list)
                print(worker, connection.version, at, predictions[0], flush=True)
        time.sleep(_PAUSE_S)
        if n_requests % 16 == 0 and select.select([sys.stdin], [], [], 0)[0]:
            print("n", n_requests, flush=True)
            return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
