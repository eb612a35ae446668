"""A SeaweedFS with its S3 gateway, as a server that honours conditional writes."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from servers import LOOPBACK, folder, free_port, is_listening, started, unprivileged

ACCESS_KEY, SECRET_KEY = "lockgate-tests", "only-for-tests-0123456789"
_SETTINGS = {
    "identities": [
        {
            "name": "tests",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
    ]
}


class Seaweed(NamedTuple):
    endpoint: str

    def url(self, place: str) -> str:
        """An `s3:` URL whose secrets are in the variables LG_S3_ACCESS and LG_S3_SECRET."""
        return (
            f"s3://{place}?endpoint={self.endpoint}&access_key=env:LG_S3_ACCESS&secret_key=env:LG_S3_SECRET"
        )


def environment() -> dict[str, str]:
    return {"LG_S3_ACCESS": ACCESS_KEY, "LG_S3_SECRET": SECRET_KEY}


def secret(reference: str, where: str) -> str:
    """The secrets of `Seaweed.url`, for tests in this process."""
    return environment()[reference.removeprefix("env:")]


@contextmanager
def seaweed() -> Iterator[Seaweed]:
    """A server with one bucket, `models`."""
    with folder() as home:
        settings = home / "s3.json"
        settings.write_text(json.dumps(_SETTINGS))
        os.chown(settings, *unprivileged())
        s3 = free_port()
        ports = {
            "-master.port": free_port(),
            "-master.port.grpc": free_port(),
            "-volume.port": free_port(),
            "-volume.port.grpc": free_port(),
            "-filer.port": free_port(),
            "-filer.port.grpc": free_port(),
            "-s3.port": s3,
            "-s3.port.grpc": free_port(),
            "-s3.port.iceberg": 0,
            "-s3.port.lance": 0,
        }
        command = [
            str(Path(sys.executable).parent / "weed"),
            "server",
            "-s3",
            f"-dir={home}",
            f"-ip={LOOPBACK}",
            f"-ip.bind={LOOPBACK}",
            f"-s3.config={settings}",
            f"-filer.localSocket={home / 'filer.sock'}",
            f"-s3.localSocket={home / 's3.sock'}",
            "-volume.max=20",
            "-master.volumeSizeLimitMB=128",
            "-master.volumePreallocate=false",
            *(f"{name}={port}" for name, port in ports.items()),
        ]
        at = Seaweed(f"http://{LOOPBACK}:{s3}")
        with started(
            command,
            ready=lambda: is_listening(s3) and _serves(at),
            log=home / "log",
            cwd=home,
            env={"HOME": str(home)},
            # Asked politely it takes twenty seconds, and there is nothing to keep.
            stop=signal.SIGKILL,
        ):
            yield at


def _serves(at: Seaweed) -> bool:
    """Whether a bucket can be made, and an object in it: the volumes come up after the gateway."""
    import obstore
    from obstore.exceptions import BaseError
    from obstore.store import S3Store

    store = S3Store(
        "models",
        endpoint=at.endpoint,
        region="us-east-1",
        access_key_id=ACCESS_KEY,
        secret_access_key=SECRET_KEY,
        client_options={"allow_http": True, "timeout": "2s"},
        retry_config={"max_retries": 0},
    )
    try:
        obstore.put(store, "ready", b"yes")
    except BaseError:
        return False
    return True
