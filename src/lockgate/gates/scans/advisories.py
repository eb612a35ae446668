"""Security advisories from a file, in the Open Source Vulnerability format (https://ossf.github.io/osv-schema/).

The file is JSON (one record, or a list of them) or a zip of such files, which is how the OSV project publishes a whole
ecosystem. Nothing is fetched: who runs Lockgate decides where the file comes from and when it is renewed.

Read are the records about PyPI. Versions are compared by the rules of PEP 440. Whether a version is affected follows
the algorithm of the schema: it is listed, or lies in a range. A range that cannot be evaluated for a distribution that
is really installed is no "not affected": `affected_by` raises.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
from packaging.version import InvalidVersion, Version

from lockgate.core.errors import Invalid
from lockgate.registry.packages.lock import Pinned, normalised

Severity = Literal["low", "moderate", "high", "critical", "unknown"]

LEVELS: Final[tuple[Severity, ...]] = ("low", "moderate", "high", "critical", "unknown")
"""By rising weight. What nobody has rated may be anything, so it weighs most."""

_WORDS: Final[Mapping[str, Severity]] = {
    "none": "low",
    "low": "low",
    "moderate": "moderate",
    "medium": "moderate",
    "high": "high",
    "critical": "critical",
}
_ECOSYSTEM: Final = "PyPI"
_MAX_BYTES: Final = 1_000_000_000


class AdvisoriesUnreadable(Invalid):
    """The file holds no advisories in the OSV format; names it, and the record."""

    code = "gates.advisories-unreadable"


class NotComparable(Invalid):
    """A version or a range that PEP 440 gives no order for, of something that is installed."""

    code = "gates.version-not-comparable"


class _Event(msgspec.Struct, frozen=True):
    introduced: str | None = None
    fixed: str | None = None
    last_affected: str | None = None
    limit: str | None = None


class _Range(msgspec.Struct, frozen=True):
    type: str
    events: tuple[_Event, ...] = ()


class _Package(msgspec.Struct, frozen=True):
    name: str = ""
    ecosystem: str = ""


class _Rating(msgspec.Struct, frozen=True):
    type: str
    score: str


class _Affected(msgspec.Struct, frozen=True):
    package: _Package = _Package()
    ranges: tuple[_Range, ...] = ()
    versions: tuple[str, ...] = ()
    severity: tuple[_Rating, ...] = ()


class Advisory(msgspec.Struct, frozen=True):
    """One record, as far as it is used; what else stands in it is left alone.

    Attributes:
        modified, published, withdrawn: RFC 3339 texts.
    """

    id: str
    modified: str = ""
    published: str = ""
    withdrawn: str | None = None
    aliases: tuple[str, ...] = ()
    summary: str = ""
    severity: tuple[_Rating, ...] = ()
    affected: tuple[_Affected, ...] = ()
    database_specific: dict[str, Any] = {}


class Hole(msgspec.Struct, frozen=True, kw_only=True):
    """A known weakness of something that is installed.

    Attributes:
        ids: all names it has, the advisory's own first.
        fixed: versions that are said to be free of it.
    """

    name: str
    version: str
    ids: tuple[str, ...]
    severity: Severity
    summary: str
    fixed: tuple[str, ...]

    def __str__(self) -> str:
        also = f", also {', '.join(self.ids[1:])}" if self.ids[1:] else ""
        cure = f"; fixed in {', '.join(self.fixed)}" if self.fixed else "; no fix is known"
        return (
            f"{self.name} {self.version}: {self.ids[0]} ({self.severity}{also}) {self.summary}{cure}".strip()
        )


def parse_advisories(data: bytes, *, where: str) -> tuple[Advisory, ...]:
    """The records of a file that are not withdrawn, by id.

    Raises:
        AdvisoriesUnreadable: it is neither JSON nor zip, a record is none of OSV's, or there is none at all.
    """
    found: dict[str, Advisory] = {}
    for name, text in _texts(data, where):
        for record in _records(text, name):
            found[record.id] = record
    if not found:
        raise _unreadable(where, "it holds no advisory")
    return tuple(found[key] for key in sorted(found) if found[key].withdrawn is None)


def _texts(data: bytes, where: str) -> Iterator[tuple[str, bytes]]:
    if not zipfile.is_zipfile(io.BytesIO(data)):
        yield where, data
        return
    left = _MAX_BYTES
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            for entry in archive.infolist():
                if entry.filename.endswith(".json"):
                    with archive.open(entry) as file:
                        text = file.read(left + 1)
                    left -= len(text)
                    if left < 0:
                        raise _unreadable(where, f"it unpacks to over {_MAX_BYTES:,} bytes")
                    yield f"{where}!{entry.filename}", text
    except (zipfile.BadZipFile, RuntimeError, NotImplementedError, OSError) as error:
        raise _unreadable(where, f"it cannot be unpacked: {error}") from error


def _records(text: bytes, where: str) -> tuple[Advisory, ...]:
    try:
        if text.lstrip()[:1] == b"[":
            return msgspec.json.decode(text, type=tuple[Advisory, ...])
        return (msgspec.json.decode(text, type=Advisory),)
    except msgspec.MsgspecError as error:
        raise _unreadable(where, str(error)) from error


def _unreadable(where: str, why: str) -> AdvisoriesUnreadable:
    return AdvisoriesUnreadable(
        f"{where} holds no advisories: {why}",
        remedy="give a file in the OSV format, for example https://osv.dev's dump of PyPI",
        where=where,
    )


def newest(advisories: Iterable[Advisory]) -> str:
    """The day of the newest record, `2026-11-20`; empty when none is dated."""
    return max((max(one.modified, one.published)[:10] for one in advisories), default="")


def holes(lock: Sequence[Pinned], advisories: Sequence[Advisory]) -> tuple[Hole, ...]:
    """Every known weakness of what a lock pins, the gravest first; one that several databases tell is one.

    Raises:
        NotComparable: whether something that is installed is affected cannot be said.
    """
    told: dict[str, list[tuple[Advisory, _Affected]]] = {}
    for advisory in advisories:
        for affected in advisory.affected:
            if affected.package.ecosystem.partition(":")[0] == _ECOSYSTEM:
                told.setdefault(normalised(affected.package.name), []).append((advisory, affected))
    found: list[Hole] = []
    for name, version in sorted({(pin.name, pin.version) for pin in lock}):
        hits = [
            _hole(name, version, advisory, affected)
            for advisory, affected in told.get(name, ())
            if _is_affected(name, version, advisory.id, affected)
        ]
        found += _merged(hits)
    return tuple(sorted(found, key=lambda one: (-LEVELS.index(one.severity), one.name, one.version, one.ids)))


def _is_affected(name: str, version: str, advisory: str, affected: _Affected) -> bool:
    here = _version(version, f"{name} {version} is installed")
    if version in affected.versions or here in _known_versions(affected.versions):
        return True
    ranges = [one for one in affected.ranges if one.type in ("ECOSYSTEM", "SEMVER")]
    if not ranges and not affected.versions:
        raise NotComparable(
            f"{advisory} says of {name} only in commits which versions are affected",
            remedy="use a source that names versions, such as OSV's dump of PyPI",
            advisory=advisory,
        )
    where = f"{advisory} tells of {name}"
    return any(_in_range(here, one.events, where) for one in ranges)


def _known_versions(versions: Iterable[str]) -> set[Version]:
    """Those that are versions by PEP 440; others can only be equal as text, which was looked at."""
    found = set()
    for text in versions:
        try:
            found.add(Version(text))
        except InvalidVersion:
            continue
    return found


def _in_range(version: Version, events: Sequence[_Event], where: str) -> bool:
    limits = [event.limit for event in events if event.limit is not None]
    if limits and not any(limit == "*" or version < _version(limit, where) for limit in limits):
        return False
    vulnerable = False
    for at, _, kind in sorted(_points(events, where)):
        passed = version > at if kind == "last_affected" else version >= at
        if passed:
            vulnerable = kind == "introduced"
    return vulnerable


def _points(events: Sequence[_Event], where: str) -> Iterator[tuple[Version, int, str]]:
    """What happens at which version. Introduced where it was fixed is introduced again."""
    for event in events:
        for order, kind in enumerate(("fixed", "last_affected", "introduced")):
            text = getattr(event, kind)
            if text is not None:
                yield _version("0.dev0" if text == "0" else text, where), order, kind


def _version(text: str, where: str) -> Version:
    try:
        return Version(text)
    except InvalidVersion as error:
        raise NotComparable(
            f"{where}, and {text!r} is no version by PEP 440", remedy="pin a version that has an order"
        ) from error


def _hole(name: str, version: str, advisory: Advisory, affected: _Affected) -> Hole:
    fixed = {event.fixed for one in affected.ranges for event in one.events if one.type != "GIT"} - {None}
    return Hole(
        name=name,
        version=version,
        ids=(advisory.id, *sorted(set(advisory.aliases) - {advisory.id})),
        severity=_severity(advisory, affected),
        summary=" ".join(advisory.summary.split())[:160],
        fixed=tuple(sorted(text for text in fixed if text)),
    )


def _merged(hits: Sequence[Hole]) -> list[Hole]:
    """Records of one weakness share a name; the gravest stands for all of them."""
    groups: list[list[Hole]] = []
    for hit in hits:
        same = [group for group in groups if any(set(hit.ids) & set(other.ids) for other in group)]
        groups = [group for group in groups if group not in same]
        groups.append([hit, *(one for group in same for one in group)])
    return [_one_of(group) for group in groups]


def _one_of(group: Sequence[Hole]) -> Hole:
    # Someone's rating is worth more than nobody's.
    rated = [one for one in group if one.severity != "unknown"] or group
    first = max(rated, key=lambda one: (LEVELS.index(one.severity), one.ids))
    names = {name for one in group for name in one.ids} - {first.ids[0]}
    fixed = first.fixed or tuple(sorted({text for one in group for text in one.fixed}))
    return msgspec.structs.replace(first, ids=(first.ids[0], *sorted(names)), fixed=fixed)


def _severity(advisory: Advisory, affected: _Affected) -> Severity:
    """The gravest rating somebody gave; CVSS 3 is computed, the word of the database taken."""
    word = str(advisory.database_specific.get("severity", "")).lower()
    found: list[Severity] = [_WORDS[word]] if word in _WORDS else []
    for rating in (*advisory.severity, *affected.severity):
        score = cvss3(rating.score) if rating.type == "CVSS_V3" else None
        if score is not None:
            found.append(
                "critical" if score >= 9 else "high" if score >= 7 else "moderate" if score >= 4 else "low"
            )
    return max(found, key=LEVELS.index, default="unknown")


_WEIGHTS: Final[Mapping[str, Mapping[str, float]]] = {
    "AV": {"N": 0.85, "A": 0.62, "L": 0.55, "P": 0.2},
    "AC": {"L": 0.77, "H": 0.44},
    "PR": {"N": 0.85, "L": 0.62, "H": 0.27},
    "UI": {"N": 0.85, "R": 0.62},
    **{name: {"H": 0.56, "L": 0.22, "N": 0.0} for name in ("C", "I", "A")},
}


def cvss3(vector: str) -> float | None:
    """The base score of a CVSS 3.0 or 3.1 vector; None when it is none.

    Formulas: FIRST, Common Vulnerability Scoring System v3.1, section 7.1, and Roundup of its appendix A.
    """
    parts = dict(part.partition(":")[::2] for part in vector.split("/"))
    scope = parts.get("S")
    if parts.get("CVSS") not in ("3.0", "3.1") or scope not in ("U", "C"):
        return None
    try:
        weight = {name: weights[parts[name]] for name, weights in _WEIGHTS.items()}
    except KeyError:
        return None
    if scope == "C":
        weight["PR"] = {"N": 0.85, "L": 0.68, "H": 0.5}[parts["PR"]]
    base = 1 - (1 - weight["C"]) * (1 - weight["I"]) * (1 - weight["A"])
    impact = 6.42 * base if scope == "U" else 7.52 * (base - 0.029) - 3.25 * (base - 0.02) ** 15
    if impact <= 0:
        return 0.0
    exploitability = 8.22 * weight["AV"] * weight["AC"] * weight["PR"] * weight["UI"]
    total = impact + exploitability
    return _rounded_up(min(total if scope == "U" else 1.08 * total, 10))


def _rounded_up(score: float) -> float:
    """To one decimal, upwards, without what binary fractions add."""
    whole = round(score * 100_000)
    return whole / 100_000 if whole % 10_000 == 0 else (whole // 10_000 + 1) / 10
