"""Gates `security.format` and `security.deps`: nothing in the package runs when it is read, and none of the code it was
built with is known to have holes.

The first looks at every byte of the package by an allowlist (`registry.packages.formats`). The second holds the lock of
the environment against advisories that the project keeps in a file. The day of the newest advisory is part of the
evidence: a scan is worth what its source is. With a file older than the project allows, or without one, the scan did
not take place, which is an error and never a pass.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

import msgspec

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest, sha256
from lockgate.core.errors import LockgateError
from lockgate.gates.evidence import ANYTHING, Evidence, MissingInput, Subject, guarded, record
from lockgate.gates.messages import Verdict
from lockgate.gates.scans.advisories import LEVELS, Advisory, Hole, Severity, holes, newest, parse_advisories
from lockgate.registry.packages.formats import Refused, scan_file
from lockgate.registry.packages.lock import parse_lock
from lockgate.registry.packages.package import FormatRefused, ModelForm, check_form

FORMAT, DEPS = "security.format", "security.deps"
_N_SHOWN = 20
_DAY_US = 24 * 3600 * 1_000_000


class AdvisoryFile(msgspec.Struct, frozen=True, kw_only=True):
    """The advisories a project keeps, and how it wants them read.

    Attributes:
        path: how people know the file.
        data: its bytes; None when it is not there.
        threshold: from which severity on a finding is refused. What nobody rated always is.
        older_than_days: set when the newest record is older than so many days, which is more than is allowed.
    """

    path: str
    data: bytes | None
    threshold: Severity = "high"
    older_than_days: int | None = None


def security_format(
    files: Callable[[], Iterable[tuple[str, bytes]]],
    forms: Sequence[ModelForm],
    *,
    subject: Subject = ANYTHING,
) -> Evidence:
    """Gate `security.format`: the model's formats are allowed, and no file runs anything when it is read.

    Args:
        files: gives path and bytes of everything in the package; what it raises makes the gate an error.
        forms: the model's forms.
    Returns:
        One record: `value` findings in `n` files, limit 0.
    """
    metric = "n_refused"

    def judge() -> Evidence:
        by_path = {form.path: form for form in forms}
        seen, found = set[str](), list[Refused]()
        for path, data in files():
            seen.add(path)
            found += [*_form_problem(by_path.get(path), data), *scan_file(path, data)]
        missing = sorted(set(by_path) - seen)
        if missing:
            raise MissingInput(f"the form {missing[0]} is not in the package", remedy="build it again")
        verdict: Verdict = "fail" if found else "pass"
        return record(
            FORMAT,
            metric,
            subject,
            n=len(seen),
            value=float(len(found)),
            comparator="at_most",
            threshold=0.0,
            verdict=verdict,
            reason="beyond_limit" if found else None,
            details=_shown([str(one) for one in found]) or (f"{len(seen)} files hold plain data only",),
        )

    return guarded(FORMAT, metric, judge, subject=subject, comparator="at_most", threshold=0.0)


def _form_problem(form: ModelForm | None, data: bytes) -> list[Refused]:
    if form is None:
        return []
    try:
        check_form(form, data)
    except FormatRefused as error:
        return [Refused(form.path, error.message.removeprefix(f"{form.path}: "))]
    return []


def security_deps(
    lock: Callable[[], bytes], file: AdvisoryFile | None, *, subject: Subject = ANYTHING
) -> Evidence:
    """Gate `security.deps`: nothing the lock pins has a known hole of the threshold's severity or above.

    Args:
        lock: gives the environment lock of the package.
        file: the advisories; None when the project names none, which is an error.
    Returns:
        One record: `value` holes in `n` distributions, limit 0. Its inputs name the advisories' bytes. Lesser holes
        are told in the details.
    """
    metric = "n_holes"

    def judge() -> Evidence:
        advisories, digest = _advisories(file)
        assert file is not None
        pins = parse_lock(lock())
        names = {(pin.name, pin.version) for pin in pins}
        found = holes(pins, advisories)
        counted = [one for one in found if LEVELS.index(one.severity) >= LEVELS.index(file.threshold)]
        verdict: Verdict = "fail" if counted else "pass"
        return record(
            DEPS,
            metric,
            msgspec.structs.replace(subject, inputs={**subject.inputs, "advisories": digest}),
            n=len(names),
            value=float(len(counted)),
            comparator="at_most",
            threshold=0.0,
            verdict=verdict,
            reason="beyond_limit" if counted else None,
            details=_told(counted, found, file, advisories),
        )

    return guarded(DEPS, metric, judge, subject=subject, comparator="at_most", threshold=0.0)


def _advisories(file: AdvisoryFile | None) -> tuple[tuple[Advisory, ...], Digest]:
    if file is None:
        raise MissingInput(
            "the project names no file of advisories, so nothing was scanned",
            remedy='add [security] advisories = "PATH" to lockgate.toml; OSV publishes one for PyPI',
        )
    if file.data is None:
        raise MissingInput(
            f"{file.path} is not there, so nothing was scanned", remedy="put the advisories there"
        )
    found = parse_advisories(file.data, where=file.path)
    if file.older_than_days is not None:
        raise MissingInput(
            f"the newest advisory of {file.path} is of {newest(found) or 'no known day'}, more than "
            f"{file.older_than_days} days ago",
            remedy="renew the file, or raise [security] max_age_days",
        )
    return found, sha256(file.data)


def _told(
    counted: Sequence[Hole], found: Sequence[Hole], file: AdvisoryFile, advisories: Sequence[Advisory]
) -> tuple[str, ...]:
    lesser = [f"below {file.threshold}: {one}" for one in found if one not in counted]
    source = (
        f"{len(advisories):,} advisories of {file.path}, the newest of {newest(advisories) or 'no known day'}"
    )
    return (*_shown([str(one) for one in counted]), *_shown(lesser), source)


def _shown(sentences: Sequence[str]) -> tuple[str, ...]:
    more = len(sentences) - _N_SHOWN
    return (*sentences[:_N_SHOWN], *((f"and {more:,} more",) if more > 0 else ()))


def is_too_old(data: bytes | None, path: str, max_age_days: int | None, now: Micros) -> bool:
    """Whether the newest record lies further back than allowed. What is not dated is; of what is not there no age is
    known.

    Evidence takes up this answer and no age: it must not change with the hour it is made at.
    """
    if data is None or max_age_days is None:
        return False
    try:
        written = datetime.fromisoformat(f"{newest(parse_advisories(data, where=path))}T00:00:00+00:00")
    except (LockgateError, ValueError):
        return True
    return now - int(written.timestamp()) * 1_000_000 > (max_age_days + 1) * _DAY_US
