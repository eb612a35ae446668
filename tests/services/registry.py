"""Debian's docker-registry, a registry of OCI distribution 1.0: it knows no referrers API."""

from __future__ import annotations

import base64
import json
import os
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from servers import LOOPBACK, folder, free_port, started, unprivileged

_CONFIG = """\
version: 0.1
log: {{ level: warn, accesslog: {{ disabled: true }} }}
storage:
  filesystem: {{ rootdirectory: {root} }}
  delete: {{ enabled: true }}
http: {{ addr: "{address}" }}
{auth}"""


class Registry(NamedTuple):
    """Where it listens, and the folder in which it keeps its blobs."""

    host: str
    root: Path

    def blob_file(self, digest: str) -> Path:
        name = digest.removeprefix("sha256:")
        return self.root / f"docker/registry/v2/blobs/sha256/{name[:2]}/{name}/data"


@contextmanager
def registry(htpasswd: str = "") -> Iterator[Registry]:
    """A registry for everybody, or with the lines of an htpasswd file for those in it."""
    with folder() as home:
        host = f"{LOOPBACK}:{free_port()}"
        root, settings, users = home / "data", home / "config.yml", home / "htpasswd"
        root.mkdir()
        users.write_text(htpasswd)
        auth = f"auth: {{ htpasswd: {{ realm: tests, path: {users} }} }}\n" if htpasswd else ""
        settings.write_text(_CONFIG.format(root=root, address=host, auth=auth))
        for path in (root, settings, users):
            os.chown(path, *unprivileged())
        with started(
            ["docker-registry", "serve", str(settings)],
            ready=lambda: _answers(host),
            log=home / "log",
            cwd=home,
        ):
            yield Registry(host, root)


def _answers(host: str) -> bool:
    try:
        urllib.request.urlopen(f"http://{host}/v2/", timeout=1).close()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code == 401
    except OSError:
        return False
    return True


def write_login(folder: Path, host: str, user: str, password: str) -> None:
    """A login as other tools keep it: `config.json` in the folder that DOCKER_CONFIG names."""
    known = base64.b64encode(f"{user}:{password}".encode()).decode()
    (folder / "config.json").write_text(json.dumps({"auths": {host: {"auth": known}}}))
