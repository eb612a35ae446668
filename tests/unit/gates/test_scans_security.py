"""Gates `security.format` and `security.deps`, and the advisories behind the second."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from typing import Any

import pytest

from lockgate.core.digests import canonical, sha256
from lockgate.core.errors import NotFound
from lockgate.gates.evidence import Evidence, Subject, explain
from lockgate.gates.scans.advisories import (
    AdvisoriesUnreadable,
    NotComparable,
    cvss3,
    holes,
    newest,
    parse_advisories,
)
from lockgate.gates.scans.security import AdvisoryFile, is_too_old, security_deps, security_format
from lockgate.registry.packages.lock import Pinned
from lockgate.registry.packages.package import ModelForm

SUBJECT = Subject(inputs={"package": sha256(b"package")})
FORMS = (ModelForm(format="onnx", path="model/model.onnx"),)
ONNX = ("model/model.onnx", b"\x08\x07onnx")
CRITICAL = "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"
LOW = "CVSS:3.1/AV:L/AC:H/PR:H/UI:R/S:U/C:L/I:N/A:N"
LOCK = b"numpy==2.0.0\nlightgbm==4.5.0\n"


def notice(name: str = "LightGBM", **changes: Any) -> dict[str, Any]:
    """An advisory about everything below 4.6.0."""
    events = changes.pop("events", [{"introduced": "0"}, {"fixed": "4.6.0"}])
    affected = {
        "package": {"ecosystem": changes.pop("ecosystem", "PyPI"), "name": name},
        "ranges": [{"type": changes.pop("type", "ECOSYSTEM"), "events": events}],
        "versions": changes.pop("versions", []),
    }
    return {
        "id": "EX-1",
        "modified": "2026-11-20T08:00:00Z",
        "summary": "an invented hole",
        "severity": [{"type": "CVSS_V3", "score": CRITICAL}],
        "affected": [affected],
        **changes,
    }


def judged(*notices: dict[str, Any], lock: bytes = LOCK, **file: Any) -> Evidence:
    given = AdvisoryFile(path="osv.json", data=canonical(list(notices)), **file)
    return security_deps(lambda: lock, given, subject=SUBJECT)


def found(version: str, *notices: dict[str, Any], name: str = "lightgbm") -> list[str]:
    advisories = parse_advisories(canonical(list(notices)), where="osv.json")
    return [one.ids[0] for one in holes([Pinned(name, version)], advisories)]


def test_a_known_hole_is_refused_by_name_with_its_cure() -> None:
    evidence = judged(notice(aliases=["CVE-2026-1"]))
    assert (evidence.verdict, evidence.value, evidence.n, evidence.threshold) == ("fail", 1.0, 2, 0.0)
    assert evidence.details[0] == (
        "lightgbm 4.5.0: EX-1 (critical, also CVE-2026-1) an invented hole; fixed in 4.6.0"
    )
    assert "EX-1" in explain(evidence)


def test_the_source_and_its_day_are_part_of_the_evidence() -> None:
    data = canonical([notice("somethingelse")])
    evidence = judged(notice("somethingelse"))
    assert evidence.verdict == "pass" and evidence.inputs == {**SUBJECT.inputs, "advisories": sha256(data)}
    assert evidence.details == ("1 advisories of osv.json, the newest of 2026-11-20",)
    assert judged(notice("somethingelse", modified="2026-11-21T00:00:00Z")).digest != evidence.digest


def test_lesser_holes_are_told_and_let_through_and_unrated_ones_are_not() -> None:
    lesser = judged(notice(severity=[{"type": "CVSS_V3", "score": LOW}]))
    assert lesser.verdict == "pass" and lesser.details[0].startswith("below high: lightgbm 4.5.0: EX-1 (low)")
    assert judged(notice(severity=[{"type": "CVSS_V3", "score": LOW}]), threshold="low").verdict == "fail"
    for unrated in ([], [{"type": "CVSS_V4", "score": "CVSS:4.0/AV:N"}], [{"type": "CVSS_V3", "score": "?"}]):
        assert judged(notice(severity=unrated)).verdict == "fail"
    said = judged(notice(severity=[], database_specific={"severity": "MODERATE"}))
    assert said.verdict == "pass" and "(moderate)" in said.details[0]


ERRORS: dict[str, tuple[AdvisoryFile | None, bytes, str]] = {
    "no file is named": (None, LOCK, "nothing was scanned"),
    "the file is not there": (AdvisoryFile(path="osv.json", data=None), LOCK, "osv.json is not there"),
    "the file is something else": (AdvisoryFile(path="osv.json", data=b"[1]"), LOCK, "holds no advisories"),
    "the file is empty": (AdvisoryFile(path="osv.json", data=b"[]"), LOCK, "holds no advisory"),
    "the file is too old": (
        AdvisoryFile(path="osv.json", data=canonical([notice()]), older_than_days=30), LOCK,
        "of 2026-11-20, more than 30 days ago",
    ),
    "the lock pins nothing": (AdvisoryFile(path="osv.json", data=canonical([notice()])), b"numpy>=2\n", "pinned"),
    "the lock is empty": (AdvisoryFile(path="osv.json", data=canonical([notice()])), b"", "pins nothing"),
    "what is installed has no order": (
        AdvisoryFile(path="osv.json", data=canonical([notice()])), b"lightgbm==latest\n", "no version by PEP 440",
    ),
    "only commits are named": (
        AdvisoryFile(path="osv.json", data=canonical([notice(type="GIT")])), LOCK, "only in commits",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_a_scan_that_did_not_take_place_is_an_error(case: str) -> None:
    file, lock, words = ERRORS[case]
    evidence = security_deps(lambda: lock, file, subject=SUBJECT)
    assert evidence.verdict == "error" and evidence.value is None
    assert words in " ".join(evidence.details)


def test_a_lock_that_cannot_be_read_is_an_error() -> None:
    def gone() -> bytes:
        raise NotFound("no such layer", remedy="build it again")

    evidence = security_deps(gone, AdvisoryFile(path="osv.json", data=canonical([notice()])))
    assert (evidence.verdict, evidence.reason) == ("error", "exception")


@pytest.mark.parametrize(
    ("version", "hit"),
    [
        ("4.5.0", True),
        ("4.5", True),
        ("4.6.0", False),
        ("4.6", False),
        ("4.6.0rc1", True),
        ("4.6.0.post1", False),
        ("4.5.9+local", True),
        ("4.10.0", False),
        ("1!0.1", False),
        ("0.0.dev0", True),
    ],
)
def test_versions_are_compared_as_pep_440_says_and_not_as_text(version: str, hit: bool) -> None:
    assert found(version, notice()) == (["EX-1"] if hit else [])


def test_ranges_follow_the_algorithm_of_the_schema() -> None:
    events = [
        {"introduced": "1.0"}, {"fixed": "1.2"}, {"introduced": "2.0"}, {"last_affected": "2.3"},
    ]  # fmt: skip
    affected = [
        v
        for v in ("0.9", "1.0", "1.1", "1.2", "1.9", "2.0", "2.3", "2.3.1")
        if found(v, notice(events=events))
    ]
    assert affected == ["1.0", "1.1", "2.0", "2.3"]
    assert found("1.1", notice(events=list(reversed(events)))) == ["EX-1"]
    limited = [{"introduced": "1.0"}, {"limit": "2.0"}]
    assert found("1.5", notice(events=limited)) and not found("2.0", notice(events=limited))
    assert found("1.5", notice(events=[*limited, {"limit": "*"}]))
    assert found("7.0.0", notice(events=[], versions=["7.0"])) == ["EX-1"]
    assert found("7.1", notice(events=[], versions=["7.0", "odd-1"])) == []


def test_other_ecosystems_withdrawn_records_and_other_names_do_not_count() -> None:
    kept = notice("other")
    assert found("4.5.0", notice(ecosystem="npm"), kept) == []
    assert found("4.5.0", notice(withdrawn="2026-11-21T00:00:00Z"), kept) == []
    assert found("4.5.0", notice("Light_GBM"), name="light-gbm") == ["EX-1"]
    with pytest.raises(NotComparable):
        found("4.5.0", notice(events=[{"introduced": "zero"}]))
    # A strange version matters only where something that is installed is concerned.
    assert found("4.5.0", notice("other", events=[{"introduced": "zero"}])) == []


def test_one_hole_that_two_databases_tell_is_one() -> None:
    lock = [Pinned("lightgbm", "4.5.0")]
    told = [
        notice(id="PYSEC-1", aliases=["CVE-1"], severity=[]),
        notice(id="GHSA-1", aliases=["CVE-1"], severity=[], database_specific={"severity": "HIGH"}),
        notice(id="GHSA-2", aliases=["CVE-2"]),
    ]
    both = holes(lock, parse_advisories(canonical(told), where="x"))
    assert [(one.ids, one.severity) for one in both] == [
        (("GHSA-2", "CVE-2"), "critical"), (("GHSA-1", "CVE-1", "PYSEC-1"), "high")
    ]  # fmt: skip


def test_a_file_is_one_record_a_list_or_a_zip_of_records() -> None:
    one, two = notice(id="A"), notice(id="B", modified="2026-11-22T00:00:00Z")
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("A.json", json.dumps(one))
        archive.writestr("B.json", json.dumps(two))
        archive.writestr("README", "no record")
    for data, ids in (
        (canonical(one), ["A"]),
        (canonical([two, one]), ["A", "B"]),
        (buffer.getvalue(), ["A", "B"]),
    ):
        assert [each.id for each in parse_advisories(data, where="x")] == ids
    assert newest(parse_advisories(buffer.getvalue(), where="x")) == "2026-11-22"
    with pytest.raises(AdvisoriesUnreadable) as caught:
        parse_advisories(canonical([{"summary": "no id"}]), where="osv.json")
    assert "osv.json" in caught.value.message


@pytest.mark.parametrize(
    ("vector", "score"),
    [  # from the examples of the specification (FIRST, CVSS v3.1 Examples) and its calculator
        (CRITICAL, 9.8),
        (LOW, 1.8),
        ("CVSS:3.1/AV:N/AC:L/PR:L/UI:N/S:C/C:L/I:L/A:N", 6.4),
        ("CVSS:3.0/AV:N/AC:H/PR:N/UI:R/S:U/C:L/I:N/A:N", 3.1),
        ("CVSS:3.0/AV:N/AC:L/PR:N/UI:R/S:C/C:H/I:H/A:H", 9.6),
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:C/C:H/I:H/A:H", 10.0),
        ("CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:N/I:N/A:N", 0.0),
        ("CVSS:2.0/AV:N", None),
        ("CVSS:3.1/AV:N/AC:L", None),
        ("", None),
    ],
)
def test_cvss_scores(vector: str, score: float | None) -> None:
    assert cvss3(vector) == score


def test_format_passes_plain_files_and_names_each_one_that_is_not() -> None:
    sound = security_format(lambda: [ONNX, ("code.tar", b"text")], FORMS, subject=SUBJECT)
    assert (sound.verdict, sound.value, sound.n) == ("pass", 0.0, 2)
    bad = [ONNX, ("include/a.pkl", pickle.dumps(dict)), ("include/b", b"cos\nsystem\n(S'id'\ntR.")]
    evidence = security_format(lambda: bad, FORMS, subject=SUBJECT)
    assert (evidence.verdict, evidence.value, evidence.n) == ("fail", 2.0, 3)
    assert "include/a.pkl: reading it looks up builtins.dict" in explain(evidence)
    assert "os.system" in evidence.details[1]


def test_format_refuses_a_form_outside_the_allowlist() -> None:
    forms = (ModelForm(format="pickle", path="model/model.pkl"),)
    evidence = security_format(lambda: [("model/model.pkl", pickle.dumps([1]))], forms)
    assert evidence.verdict == "fail" and "'pickle' is not allowed" in evidence.details[0]


def test_format_that_cannot_read_a_file_is_an_error() -> None:
    def damaged() -> list[tuple[str, bytes]]:
        raise NotFound("no blob", remedy="copy it again")

    assert security_format(damaged, FORMS).verdict == "error"
    assert security_format(list, FORMS).verdict == "error"


DAY_US = 24 * 3600 * 1_000_000
NOVEMBER_20 = 1_795_132_800_000_000


@pytest.mark.parametrize(
    ("days", "limit", "too_old"), [(0, 1, False), (30, 30, False), (32, 30, True), (400, None, False)]
)
def test_the_age_of_the_file_is_that_of_its_newest_record(
    days: int, limit: int | None, too_old: bool
) -> None:
    data = canonical([notice(), notice(id="EX-0", modified="2020-01-01T00:00:00Z")])
    assert is_too_old(data, "osv.json", limit, NOVEMBER_20 + days * DAY_US) is too_old


def test_what_is_not_dated_or_not_readable_is_too_old_and_what_is_not_there_is_not() -> None:
    assert is_too_old(canonical([notice(modified="")]), "osv.json", 30, NOVEMBER_20)
    assert is_too_old(b"?", "osv.json", 30, NOVEMBER_20)
    assert not is_too_old(None, "osv.json", 30, NOVEMBER_20)
