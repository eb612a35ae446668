"""The data plane's composition root: `python -m lockgate.app.dataplane --run-dir D --store S --trust prod=P.pem`.

One process, one worker; several may share a run directory, and with `--reuse-port` a port. It needs no hub and
no database: plans come from the control files in the run directory, packages from the store (a directory, or a bucket
of which it keeps copies), features by key from the directory of `--online`, and what it may load is what the trusted
keys of an environment have signed.

When it listens it prints one JSON line, `{"ready": true, "port": 8080, "pid": 4711}`, and nothing else; failures
go to standard error. It binds the loopback interface unless told otherwise, keeps no access log, and logs
nothing of a request; what a plan keeps of its traffic is in the run directory (serving/capture.py). SIGTERM and
SIGINT finish the requests under way, write down what waits, then leave with exit code 0.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import errno
import functools
import gc
import itertools
import json
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import uvicorn
import uvloop

from lockgate.adapters.blobs.directory import DirectoryBlobs
from lockgate.adapters.engines.onnx_engine import OnnxEngine
from lockgate.adapters.identity.keys import PublicKey
from lockgate.adapters.online.lmdb_store import LmdbOnline
from lockgate.app.plugins import resolve
from lockgate.app.system import SystemClock
from lockgate.core.blobs import BlobStore
from lockgate.core.errors import LockgateError, Unavailable
from lockgate.core.names import check_part
from lockgate.serving.asgi import PlaneApp
from lockgate.serving.capture import Captures
from lockgate.serving.control import Presence, revoked_keys
from lockgate.serving.guarded_http import GuardedHttp
from lockgate.serving.loader import PackageLoader
from lockgate.serving.plane import Plane
from lockgate.serving.shadow import Shadow
from lockgate.serving.watch import Watcher
from lockgate.traffic.control_file import worker_name

_GRACE_S = 10
_SWITCH_S = 0.0001
"""How long a loading thread may keep a request waiting for the interpreter (the default is 5 ms)."""


class PortTaken(Unavailable):
    """Somebody else listens where the data plane was told to."""

    code = "running.port-taken"


class Options(NamedTuple):
    """The command line.

    Attributes:
        trust: public key files per environment.
        store: a directory, or an `s3:` URL.
        cache: where copies of packages are kept that come from elsewhere.
        port: 0 for any free one.
        follow: leave when standard input ends.
        online: directory of the online store; None serves without features by key.
    """

    run_dir: Path
    store: str
    cache: Path
    trust: dict[str, tuple[Path, ...]]
    host: str
    port: int
    reuse_port: bool
    follow: bool
    online: Path | None


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal; returns the exit code: 0 ended, 2 wrong usage, 6 port or directory unusable."""
    options = parse(argv)
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr, format="%(levelname)s %(name)s %(message)s")
    sys.setswitchinterval(_SWITCH_S)
    try:
        listener = listen(options)
        loader = build_loader(options)
        presence = Presence(options.run_dir, pid=os.getpid(), token=time.time_ns() // 1_000)
    except LockgateError as error:
        sys.stderr.write(f"{error.message}\n{error.remedy}\n")
        return 6 if error.retryable else 2
    except OSError as error:
        sys.stderr.write(f"the data plane cannot start: {error}\n")
        return 6
    clock = SystemClock()
    captures = Captures(options.run_dir, worker_name(presence.pid, presence.token), clock.now)
    shadow = Shadow(clock.now)
    plane = Plane(ids=_request_ids(presence), now=clock.now, shadow=shadow)
    watcher = Watcher(plane, presence, options.run_dir, loader, captures=captures)
    captures.start()
    shadow.start()
    watcher.start()
    if options.follow:
        threading.Thread(target=_follow, name="follow", daemon=True).start()
    try:
        uvloop.run(_serve(plane, listener))
    finally:
        watcher.stop()
        shadow.stop()
        captures.stop()
    return 0


def parse(argv: Sequence[str] | None) -> Options:
    """Read the command line; argparse prints usage and exits with 2 when it is wrong."""
    parser = argparse.ArgumentParser(
        prog="lockgate.app.dataplane", description="Serve packages on this machine."
    )
    parser.add_argument("--run-dir", type=Path, required=True, help="directory of the control files")
    parser.add_argument(
        "--store",
        required=True,
        help="the packages: a directory (OCI layout), or s3://BUCKET/PREFIX?... as in hub.toml",
    )
    parser.add_argument(
        "--cache", type=Path, help="for copies of packages out of s3: (default: RUN_DIR/packages)"
    )
    parser.add_argument(
        "--trust",
        action="append",
        default=[],
        metavar="ENV=PEM[,PEM]",
        help="public keys whose packages may be served in ENV; repeat for each environment",
    )
    parser.add_argument("--online", type=Path, help="directory of the online store, for features by key")
    parser.add_argument("--host", default="127.0.0.1", help="address to bind (default: loopback only)")
    parser.add_argument("--port", type=_port, default=8080, help="0 for any free port")
    parser.add_argument("--reuse-port", action="store_true", help="share the port with other workers")
    parser.add_argument(
        "--follow",
        action="store_true",
        help="leave when standard input ends: when the parent process is gone",
    )
    given = parser.parse_args(argv)
    trust: dict[str, tuple[Path, ...]] = {}
    for item in given.trust:
        environment, _, files = item.partition("=")
        try:
            check_part(environment, what="environment")
        except LockgateError as error:
            parser.error(f"--trust {item}: {error.message}")
        if not files:
            parser.error(f"--trust {item}: write ENV=PEMFILE")
        trust[environment] = trust.get(environment, ()) + tuple(Path(file) for file in files.split(","))
    return Options(
        given.run_dir,
        given.store,
        given.cache or given.run_dir / "packages",
        trust,
        given.host,
        given.port,
        given.reuse_port,
        given.follow,
        given.online,
    )


def _port(text: str) -> int:
    number = int(text) if text.isdecimal() else -1
    if not 0 <= number <= 65_535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: 0 to 65535")
    return number


def build_loader(options: Options) -> PackageLoader:
    """Assemble the stores, the engines and the keys. Raises the keys' and the store's own errors."""
    engine = OnnxEngine()
    trust = {
        environment: [PublicKey.from_file(file) for file in files]
        for environment, files in options.trust.items()
    }
    # Opened by the first request that needs it: there may be no store yet, and without one the rest is served.
    online = LmdbOnline(options.online, readonly=True) if options.online is not None else None
    revoked = functools.partial(revoked_keys, options.run_dir)
    return PackageLoader(_packages(options), {engine.format: engine}, trust, online, revoked)


def _packages(options: Options) -> BlobStore:
    """Where packages are read. What lies elsewhere is copied once, and loads again while that cannot be reached."""
    if not options.store.startswith("s3:"):
        return DirectoryBlobs(options.store.removeprefix("file:"))
    opened = resolve("lockgate.app.stores:open_blobs")
    there = opened(options.store, base=Path(), cache=options.cache, writes=False)
    copies: BlobStore = resolve("lockgate.adapters.blobs.copies:Copies")(DirectoryBlobs(options.cache), there)
    return copies


def listen(options: Options) -> socket.socket:
    """A bound socket, so that a port that is taken is known before anything is loaded."""
    family = socket.AF_INET6 if ":" in options.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if options.reuse_port:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        listener.bind((options.host, options.port))
    except OSError as error:
        listener.close()
        if error.errno != errno.EADDRINUSE:
            raise
        raise PortTaken(
            f"port {options.port} of {options.host} is taken by another program",
            remedy="name another one with --port; --port 0 takes any that is free",
            port=options.port,
        ) from error
    return listener


class _Server(uvicorn.Server):
    """uvicorn's server, but it announces itself, and ends by returning instead of raising the signal
    again."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and sockets:
            port = sockets[0].getsockname()[1]
            sys.stdout.write(json.dumps({"ready": True, "port": port, "pid": os.getpid()}) + "\n")
            sys.stdout.flush()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._leave)
        yield

    def _leave(self) -> None:
        self.should_exit = True


async def _serve(plane: Plane, listener: socket.socket) -> None:
    config = uvicorn.Config(
        PlaneApp(plane),
        http=GuardedHttp,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        # Its warnings are about malformed requests: anybody could fill a disk with them.
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=2_048,
        timeout_graceful_shutdown=_GRACE_S,
    )
    # What is alive now lives as long as the process: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    await _Server(config).serve(sockets=[listener])


def _follow() -> None:
    """Leave as on SIGTERM once nobody holds the other end of standard input, were the parent ended by kill -9."""
    while os.read(0, 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


def _request_ids(presence: Presence) -> Callable[[], str]:
    """Ids that no other worker gives, before or after: pid and token name this one."""
    count = itertools.count(1)
    prefix = f"{presence.token:x}-{presence.pid:x}-"
    return lambda: f"{prefix}{next(count):x}"


if __name__ == "__main__":
    sys.exit(main())
