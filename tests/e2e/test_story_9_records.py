"""Story 9: a registry is proved to an outsider, carried elsewhere, kept for the law, and forgets what it must."""

from __future__ import annotations

import json
import os
import shutil
import tarfile

from operator_story import Given, Then, When

from command_line import CONFLICT, CORRUPT, NOT_FOUND, USAGE

LONG_AGO_S = 1_600_000_000


def test_an_auditor_checks_one_entry_with_nothing_but_the_key(given: Given, when: When, then: Then) -> None:
    project = given.version_one_is_live()
    (approval,) = project.journal("governance.version-approved/")[:1]
    when.somebody("audit key")
    key = then.it_succeeds() and when.typed.out.strip()
    when.somebody(f"audit prove {approval['seq']} --out proof.json")
    then.it_succeeds().it_says("audit check proof.json")
    proof = (project.root / "proof.json").read_bytes()
    assert len(proof) - len(json.loads(proof)["entry"]) < 1500
    # Elsewhere: no project, no journal.
    elsewhere = project.root.parent / "auditor"
    elsewhere.mkdir()
    shutil.copy(project.root / "proof.json", elsewhere)
    when.somebody(f"audit check {elsewhere}/proof.json --key {key}")
    then.it_succeeds().it_says("ok: entry", "grace", "governance.version-approved/")
    (elsewhere / "forged.json").write_bytes(proof.replace(b"grace", b"gracy"))
    when.somebody(f"audit check {elsewhere}/forged.json --key {key}")
    then.it_ends_with(CORRUPT).it_is_no_bug()
    when.somebody(f"audit check {elsewhere}/proof.json --key {key[:-4]}AAA=")
    then.it_ends_with(USAGE).it_is_no_bug()


def test_a_checkpoint_that_was_kept_is_what_a_rewritten_journal_cannot_pass(
    given: Given, when: When, then: Then
) -> None:
    project = given.version_one_is_live()
    notes = (project.root / ".lockgate" / "checkpoints").read_text().split("=====\n")
    kept = project.root.parent / "january.txt"
    kept.write_text(notes[0])
    size = notes[0].split("\n")[1]
    when.somebody(f"audit verify --since {kept}")
    then.it_succeeds().it_says("ok:")
    when.somebody(f"audit consistency {kept} --out both.json")
    then.it_succeeds()
    when.somebody("audit check both.json")
    then.it_succeeds().it_says("nothing was changed or taken away")
    when.somebody(f"audit consistency {size} {int(size) + 100_000}")
    then.it_ends_with(NOT_FOUND).it_is_no_bug()
    when.somebody("audit verify --chain --json")
    then.it_succeeds()
    assert then.answer["documents"] is False


def test_acceptance_10_exported_wiped_and_imported_it_is_what_it_was(
    given: Given, when: When, then: Then
) -> None:
    project = given.version_one_is_live()
    before = {
        what: project.asks(what)
        for what in ("audit verify", "explain flight-delay@1.0.0", "audit log --since 0")
    }
    when.somebody("export registry.tar --json")
    then.it_succeeds()
    manifest = then.answer["manifest"]
    with tarfile.open(project.root / "registry.tar") as tar:
        assert {"oci-layout", "index.json", "events.jsonl", "checkpoints", "checkpoint-keys"} <= set(
            tar.getnames()
        )
    when.somebody("import registry.tar")
    then.it_succeeds().it_says("entries")
    for name in ("state.db", "state.db-wal", "state.db-shm", "checkpoints"):
        (project.root / ".lockgate" / name).unlink(missing_ok=True)
    shutil.rmtree(project.root / ".lockgate" / "store")

    when.somebody("import registry.tar")
    then.it_succeeds().it_says("entries")
    after = {what: project.asks(what) for what in before}
    assert after == before
    assert after["audit verify"]["head"] == manifest["hash"]
    when.somebody("package verify flight-delay@1.0.0")
    then.it_succeeds()
    when.somebody("export again.tar --json")
    assert then.it_succeeds().answer["manifest"] == manifest

    # Life goes on there; a history of its own is no place for another one.
    when.ada("reject flight-delay@1.0.0 --reason test")
    then.it_succeeds()
    when.somebody("import registry.tar")
    then.it_ends_with(CONFLICT).it_is_no_bug().it_says("two histories")
    then.the_audit_holds()


def test_a_journal_that_is_handed_on_is_checked_where_it_arrives(
    given: Given, when: When, then: Then
) -> None:
    project = given.version_one_is_live()
    when.somebody("audit export part.tar --since 10")
    then.it_succeeds().it_says("entries 11 to")
    when.somebody("audit check part.tar")
    then.it_succeeds().it_says("ok: entries 11 to")
    data = bytearray((project.root / "part.tar").read_bytes())
    data[data.index(b'"actor":"') + 9] ^= 1
    (project.root / "part.tar").write_bytes(data)
    when.somebody("audit check part.tar")
    then.it_ends_with(CORRUPT).it_is_no_bug()
    when.somebody("audit check lockgate.toml")
    then.it_ends_with(USAGE).it_is_no_bug()


def test_erased_rows_are_said_to_be_erased_wherever_they_are_asked_for(
    given: Given, when: When, then: Then
) -> None:
    project = given.version_one_is_live()
    (flights,) = [
        one
        for one in project.asks("explain flight-delay@1.0.0")["datasets"]
        if one["dataset"].endswith("flights")
    ]
    snapshot = flights["snapshot"]
    when.ada(f"erase snapshot:{snapshot[7:19]} --reason 'request 4711' --json")
    then.it_succeeds()
    assert then.answer["n_blobs"] > 1 and len(then.answer["packages"]) == 1
    when.somebody("explain flight-delay@1.0.0")
    then.it_succeeds().it_says("erased", "request 4711", "by ada")
    when.somebody("reproduce flight-delay@1.0.0")
    then.it_ends_with(NOT_FOUND).it_says("erased inputs", "request 4711").it_is_no_bug()
    when.ada("judge flight-delay@1.0.0 --for prod")
    then.it_ends_with(NOT_FOUND).it_says("erased inputs", "request 4711").it_is_no_bug()
    when.ada("erase snapshot:00000000 --reason x")
    then.it_ends_with(NOT_FOUND).it_is_no_bug()
    # What serves goes on serving: its package holds all it needs.
    when.somebody("package verify flight-delay@1.0.0")
    then.it_succeeds()
    then.version_is_live("1.0.0").the_audit_holds()


def test_what_ended_long_ago_is_collected_unless_somebody_holds_it(
    given: Given, when: When, then: Then
) -> None:
    project = given.version_two_is_live()
    toml = project.root / "lockgate.toml"
    toml.write_text(toml.read_text() + "\n[retention]\nmoderate = 0\nunneeded = 1\n")
    for blob in (project.root / ".lockgate" / "store" / "blobs" / "sha256").iterdir():
        os.utime(blob, (LONG_AGO_S, LONG_AGO_S))
    # 1.0.0 is what every endpoint would fall back to.
    when.ada("reject flight-delay@1.0.0 --reason test")
    then.it_succeeds()
    when.ada("collect --json")
    then.it_succeeds()
    (kept,) = then.answer["kept"]
    assert then.answer["versions"] == [] and "may fall back to it" in " ".join(kept["reasons"])
    when.somebody("package verify flight-delay@1.0.0")
    then.it_succeeds()
    when.ada("hold flight-delay@1.0.0 --matter case-17 --reason complaint")
    then.it_succeeds()
    when.somebody("explain flight-delay@1.0.0")
    then.it_succeeds().it_says("held", "case-17")
    when.ada("hold flight-delay@1.0.0 --matter other --reason x --lift --json")
    then.it_is_refused_by("registry.not-held")
    then.version_is_live("1.1.0").the_audit_holds()
