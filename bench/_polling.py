"""A client in a process of its own: asks one endpoint without pause and writes a line when the version changes.

    python bench/_polling.py PORT PATH BODY

A line is `VERSION NANOSECONDS ANSWER`: the monotonic clock, which all processes of a machine share, at the moment
the first answer of that version was there, and the prediction in it. Ends with 3 at the first answer that is not 200,
with 0 when its standard input is closed; then the last line is `n REQUESTS`.
"""

from __future__ import annotations

import http.client
import json
import select
import sys
import time

_PAUSE_S = 0.0005
"""Between two requests. Without any, client and server would take both of two processors from the hub."""


def main(port: str, path: str, body: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=30)
    payload, headers = body.encode(), {"content-type": "application/json"}
    last, n_requests = "", 0
    while True:
        connection.request("POST", path, payload, headers)
        reply = connection.getresponse()
        answer = reply.read()
        at = time.monotonic_ns()
        n_requests += 1
        if reply.status != 200:
            print(f"status {reply.status}: {answer!r}", file=sys.stderr)
            return 3
        version = reply.headers["x-lockgate-version"]
        if version != last:
            print(version, at, json.loads(answer)["predictions"][0], flush=True)
            last = version
        time.sleep(_PAUSE_S)
        if n_requests % 16 == 0 and select.select([sys.stdin], [], [], 0)[0]:
            print("n", n_requests, flush=True)
            return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
