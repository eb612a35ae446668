"""Verbs about packages: show, verify, export, diff, reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import msgspec

from lockgate.app.cli.main import Exit
from lockgate.app.cli.progress import Counts, watching
from lockgate.app.cli.session import Session, verb
from lockgate.app.cli.verbs.supply import carry
from lockgate.core.digests import short
from lockgate.core.names import parse_endpoint, parse_version
from lockgate.hub.messages import ExplainVersion, VersionAnswer
from lockgate.registry.messages import SignVersion
from lockgate.registry.packages.difference import differences
from lockgate.registry.packages.lock import LockUnreadable, moved, parse_lock
from lockgate.registry.packages.package import ENVIRONMENT_PATH, GOLDEN_PATH, Package, decode_golden
from lockgate.registry.sbom import attested_bill
from lockgate.workshop.rebuild import rebuild, require_inputs
from lockgate.workshop.transport.carriage import lay_out, sign_again


def _version(session: Session, ref: str) -> VersionAnswer:
    query = (
        ExplainVersion(version=str(parse_version(ref)))
        if "@" in ref
        else ExplainVersion(endpoint=str(parse_endpoint(ref)))
    )
    answer: VersionAnswer = session.ask(query)
    return answer


@click.group()
def package() -> None:
    """Show, verify, sign or export a package. REF is NAME@VERSION or ENV/NAME."""


@verb
@click.argument("ref")
def show(session: Session, ref: str) -> None:
    """The whole boundary of the artifact: every file, its digest and size."""
    answer = _version(session, ref)
    opened = session.package(answer.version.package)
    rows = [f"{parse_version(answer.version.version).shown}  {opened.digest}"]
    rows += [f"  {short(one.digest)}  {one.n_bytes:>10,}  {one.path}" for one in opened.layers]
    config = opened.config
    rows.append(f"  inputs: {', '.join(f'{field.name} ({field.dtype})' for field in config.contract.inputs)}")
    rows.append(f"  output: {config.contract.output.name} ({config.contract.output.kind})")
    session.answer({"digest": opened.digest, "layers": opened.layers, "config": config}, "\n".join(rows))


@verb
@click.argument("version")
def sign(session: Session, version: str) -> None:
    """Sign a version once more, with the key that the project signs with now.

    After a rotation, or when the key that signed it was revoked. Promote it again, and its endpoints know.
    """
    state = _version(session, version).version
    control = session.control
    envelope = sign_again(state, control.signer(), session.blobs)
    command = SignVersion(id=session.new_id(), version=state.version, signature=envelope)
    session.tell(command, headline=f"{version} is not signed again", through=session.working)
    key_id = control.signer().key_id
    session.answer(
        {"version": state.version, "signature": envelope, "signed_by": key_id},
        f"{parse_version(state.version).shown} signed by {short(key_id)}; promote it again where it runs",
    )


@verb
@click.argument("ref")
@click.argument("folder")
@carry.without
def export(session: Session, ref: str, folder: str, without: tuple[str, ...]) -> None:
    """Write the package as an OCI image layout of its own, with all that `push` brings along."""
    parcel, blobs, name = carry.of_version(session, ref)
    lay_out(parcel, blobs, Path(folder), carry.attesting(session, name, parcel, blobs, without))
    layers = len(session.package(parcel.digest).layers)
    session.answer({"folder": folder, "digest": parcel.digest}, f"{folder}: {parcel.digest}, {layers} layers")


@verb
@click.argument("ref")
def golden(session: Session, ref: str) -> None:
    """The golden rows a package carries, with the answers every engine must give."""
    opened = session.package(_version(session, ref).version.package)
    found = decode_golden(opened.read(GOLDEN_PATH, session.blobs), opened.digest)
    rows = [f"{answer:.6f}  {row}" for row, answer in zip(found.rows, found.predictions, strict=True)]
    session.answer(found, "\n".join(rows))


@verb
@click.argument("ref")
def sbom(session: Session, ref: str) -> None:
    """Print the bill of materials of a version, CycloneDX in JSON; its signature is checked first.

    Example: lockgate package sbom flight-delay@1.0.0 > bom.json
    """
    known = _version(session, ref)
    trusted = session.control.trusted()
    bill = attested_bill(known.attestations, known.version.version, session.blobs, trusted)
    session.answer(bill, msgspec.json.format(msgspec.json.encode(bill), indent=2).decode())


for one in (show, carry.verify, sign, export, golden, sbom):
    package.add_command(one)


@verb
@click.argument("old")
@click.argument("new")
def diff(session: Session, old: str, new: str) -> None:
    """What changed between two versions: data, features, code, params, environment down to each distribution,
    contract, files, and what the gates measured.

    Example: lockgate diff flight-delay@1.0.0 flight-delay@1.1.0
    """
    before, after = _version(session, old), _version(session, new)
    one, two = session.package(before.version.package), session.package(after.version.package)
    found = differences(one, two)
    rows = [f"{each.section:<12} {each.name:<32} {_cut(each.before)} -> {_cut(each.after)}" for each in found]
    libraries = _libraries(session, one, two)
    rows += [f"{'environment':<12} {name:<32} {was or '-'} -> {now or '-'}" for name, was, now in libraries]
    values, others = _values(before), _values(after)
    record: dict[str, Any] = {
        "old": before.version.package,
        "new": after.version.package,
        "differences": [msgspec.to_builtins(each) for each in found],
        "libraries": [{"name": name, "before": was, "after": now} for name, was, now in libraries],
        "evidence": {"old": values, "new": others},
    }
    rows += [
        f"{'evidence':<12} {name:<32} {values.get(name, '-')} -> {others.get(name, '-')}"
        for name in sorted(values | others)
        if values.get(name) != others.get(name)
    ]
    session.answer(record, "\n".join(rows) or "no difference")


def _libraries(session: Session, old: Package, new: Package) -> tuple[tuple[str, str, str], ...]:
    """The distributions that differ; a lock that cannot be read differs by its digest only."""
    if old.config.environment == new.config.environment:
        return ()
    try:
        return moved(*(parse_lock(one.read(ENVIRONMENT_PATH, session.blobs)) for one in (old, new)))
    except LockUnreadable:
        return ()


def _cut(text: str | None) -> str:
    if text is None:
        return "-"
    return short(text) if text.startswith("sha256:") else text[:60]


def _values(answer: VersionAnswer) -> dict[str, str]:
    """What was measured, by gate, metric and slice, and where it was measured for an environment."""
    return {
        f"{line.name}@{line.environment}" if line.environment else line.name: line.value
        for line in answer.evidence
        if line.value
    }


@verb
@click.argument("version")
def reproduce(session: Session, version: str) -> None:
    """Build a version again, from its package and snapshots alone, and compare the digests.

    Says `identical`, or `different` and the first step that is. Exit 3 when different; 4 when it says `erased
    inputs`, or that the package was collected.
    """
    key = str(parse_version(version))
    known: VersionAnswer = session.ask(ExplainVersion(version=key))
    require_inputs(known)
    with watching(Counts()) as observer:
        outcome = rebuild(
            session.premises, session.package(known.version.package), known.version.run, observer
        )
    text = f"{outcome.verdict}: {version} rebuilt as {outcome.rebuilt}"
    if outcome.first_difference:
        text += f"\n  registered as {outcome.expected}\n  first different step: {outcome.first_difference}"
    if not outcome.environment_matches:
        text += "\n  it was built by another minor version of Python, or with another lock, than here"
    session.answer(outcome, text)
    if outcome.verdict != "identical":
        raise Exit(3)
