"""A project whose model is made in microseconds: real keys, a real store, a real command line, no training."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lockgate.app.control import Control
from lockgate.app.declare import declare
from lockgate.core.digests import Digest, sha256
from lockgate.hub.kernel import require
from lockgate.registry.messages import AttachAttestation, RegisterVersion
from lockgate.registry.packages.package import BuiltPackage, build_package, store_package
from lockgate.registry.packages.signing import (
    PAYLOAD_TYPE,
    package_facts,
    seal,
    signature_envelope,
    statement_bytes,
    store_signature,
)
from lockgate.testing.packages import package_config, package_files
from lockgate.workshop.layout import Layout
from lockgate.workshop.templates import create

MODEL = "main/flight-delay"
SBOM = "https://cyclonedx.org/bom"
RUN = sha256(b"a run")


class Typed(NamedTuple):
    code: int
    out: str
    err: str

    def must(self, code: int) -> Typed:
        assert self.code == code, f"status {self.code}\n{self.out}\n{self.err}"
        return self

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def text(self) -> str:
        return self.out + self.err


class TinyProject:
    """A folder with a project in it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def types(self, line: str, *, env: Mapping[str, str] | None = None) -> Typed:
        """Run the command line as a process of its own, in the project."""
        done = subprocess.run(
            [sys.executable, "-P", "-m", "lockgate.app.cli", *line.split()],
            cwd=self.root,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=120,
        )
        return Typed(done.returncode, done.stdout, done.stderr)

    def control(self) -> Control:
        return Control(Layout(self.root))

    def edit(self, old: str, new: str) -> None:
        file = self.root / "lockgate.toml"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    def register(self, *, sbom: bool = False, **files: bytes) -> BuiltPackage:
        """A version of the tiny model, signed as `lockgate train` signs; `files` makes the package another one."""
        control = self.control()
        hub = control.hub("ann")
        declare(control, hub)
        more = {path.replace("__", "/"): data for path, data in files.items()}
        built = build_package(package_config(model=MODEL), package_files(**more))
        store_package(built, control.blobs)
        signer = control.signer()
        facts = package_facts(built.manifest, control.blobs, run=RUN, commit="c0ffee", dirty=False)
        envelope = signature_envelope(built.digest, signer, model=MODEL, predicate=facts)
        signature = store_signature(built.descriptor, envelope, control.blobs).envelope
        command = RegisterVersion(
            id=control.ids.new(), model=MODEL, package=built.digest, run=RUN, signatures=(signature,)
        )
        version = require(hub.execute(command)).events[0]["version"]
        if sbom:
            self.attach(control, version, built.digest)
        control.checkpoint()
        return built

    def attach(self, control: Control, version: str, package: Digest) -> Digest:
        words = statement_bytes(package, MODEL, SBOM, {"bomFormat": "CycloneDX"})
        envelope = control.blobs.put(seal(words, PAYLOAD_TYPE, control.signer()))
        command = AttachAttestation(
            id=control.ids.new(), version=version, predicate_type=SBOM, envelope=envelope
        )
        require(control.hub("ann").execute(command))
        return envelope

    def blob_file(self, digest: Digest) -> Path:
        return self.root / ".lockgate/store/blobs/sha256" / digest.removeprefix("sha256:")

    def trust(self, other: TinyProject) -> None:
        """Trust the key of another project, in every environment."""
        (self.root / "trust/other.pub").write_bytes((other.root / "trust/signing.pub").read_bytes())
        self.edit('trust = ["trust/signing.pub"]', 'trust = ["trust/signing.pub", "trust/other.pub"]')


def tiny_project(folder: Path) -> TinyProject:
    create(folder, "flights")
    return TinyProject(folder)


def flip(file: Path, at: int = 0) -> None:
    """Change one byte of a file."""
    data = bytearray(file.read_bytes())
    data[at] ^= 1
    file.chmod(0o600)
    file.write_bytes(bytes(data))
