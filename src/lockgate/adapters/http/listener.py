"""A listening HTTP server over an ASGI application: uvicorn with the limits it lacks, a port that is known before it
runs, and a stop that lets what was begun come to its end.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import signal
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvicorn
from cryptography import x509

from lockgate.core.clock import Micros, iso
from lockgate.core.errors import Invalid, Unavailable, Unsupported

LOOPBACK = "127.0.0.1"
_GRACE_S = 10


class IdentitiesUnproven(Unsupported):
    """Whoever can reach the port could act in any name."""

    code = "http.identities-unproven"


class CertificateInvalid(Invalid):
    """Certificate and key cannot be read, do not belong together, or are out of date."""

    code = "http.certificate-invalid"


class PortTaken(Unavailable):
    code = "http.port-taken"


class Listener(uvicorn.Server):
    """A server over a port that is already bound, so that its number is known before it runs.

    Args:
        app: an ASGI application.
        port: 0 for any free one.
        host: an address; of the loopback interface, unless names are proven.
        certfile, keyfile: for TLS.
        proven: whether whoever is authenticated proved a name.
        ready: called once, when requests are answered.

    Attributes:
        protocol: how uvicorn reads HTTP; set by a subclass.

    Raises:
        IdentitiesUnproven: the host is not of the loopback interface, and names are believed.
        CertificateInvalid.
        PortTaken: somebody else listens there.
    """

    protocol: type[asyncio.Protocol]

    def __init__(
        self,
        app: Any,
        port: int,
        *,
        host: str = LOOPBACK,
        proven: bool = False,
        certfile: str | None = None,
        keyfile: str | None = None,
        ready: Callable[[int], None] = lambda port: None,
    ) -> None:
        if not (proven or _is_loopback(host)):
            raise IdentitiesUnproven(
                f"the hub does not listen on {host}: anybody who reaches it could claim any name",
                remedy=f"listen on {LOOPBACK}",
                host=host,
            )
        check_certificate(certfile, keyfile)
        self._listener = _listen(host, port)
        self._ready = ready
        self.port: int = self._listener.getsockname()[1]
        super().__init__(
            uvicorn.Config(
                app,
                http=self.protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                ssl_certfile=certfile,
                ssl_keyfile=keyfile,
                timeout_graceful_shutdown=_GRACE_S,
            )
        )

    @property
    def url(self) -> str:
        host, scheme = self._listener.getsockname()[0], "https" if self.config.is_ssl else "http"
        return f"{scheme}://[{host}]:{self.port}" if ":" in host else f"{scheme}://{host}:{self.port}"

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer until `stop`, or until SIGTERM or SIGINT when this is the main thread."""
        super().run(sockets or [self._listener])

    def stop(self) -> None:
        """Finish what was begun, then return from `run`. From any thread, or a signal."""
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready(self.port)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """uvicorn's own would raise the signal again at the end and turn a clean stop into a killed process."""
        if threading.current_thread() is threading.main_thread():
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.stop)
        yield


def check_certificate(certfile: str | None, keyfile: str | None) -> None:
    """Whether TLS can be spoken with these files; without any, it is not spoken.

    Raises:
        CertificateInvalid.
    """
    if certfile is None:
        return
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certfile, keyfile)
    except OSError as error:
        raise CertificateInvalid(
            f"{certfile} and {keyfile} cannot be used for TLS: {error.strerror or error}",
            remedy="give PEM files that belong together, the key without a password: certfile and keyfile in [listen]",
            certfile=certfile,
        ) from error


def require_current(certfile: str, now: Micros) -> Micros:
    """Until when callers take the certificate.

    Raises:
        CertificateInvalid: they do not take it now.
    """
    own = x509.load_pem_x509_certificates(Path(certfile).read_bytes())[0]
    begins, ends = (
        int(at.timestamp() * 1_000_000) for at in (own.not_valid_before_utc, own.not_valid_after_utc)
    )
    if not begins <= now <= ends:
        raise CertificateInvalid(
            f"{certfile} is good from {iso(begins)} to {iso(ends)} only, so no caller takes it now",
            remedy="put a new certificate there, and start the hub again",
            certfile=certfile,
        )
    return ends


def _listen(host: str, port: int) -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise PortTaken(
            f"port {port} of {host} cannot be had: {error.strerror}",
            remedy="choose another port, or 0 for any free one",
            port=port,
        ) from error
    return listener


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        # A name is whatever the resolver makes of it.
        return False
