"""Gate `dossier.complete`: what only people can know of a model is written down, and travels with it.

Most of a dossier is generated. These sections are not: no measurement tells what a model must not be used for, or who
may overrule it. Their files are named in `lockgate.toml` and packed. A section that is empty, or holds headings and
notes to oneself only, is as missing as one that is not there. For the tiers high and critical a missing section
refuses the version; for the others the gate says so and stands in nobody's way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from lockgate.gates.evidence import ANYTHING, Evidence, Subject, guarded, record
from lockgate.gates.messages import Verdict
from lockgate.registry.messages import Tier

GATE = "dossier.complete"
_METRIC = "n_missing_sections"

SECTIONS: Final[Mapping[str, str]] = {
    "intended_use": "what it is for, and what it must not be used for",
    "limitations": "where it is known to be weak or wrong",
    "human_oversight": "who watches it, who may overrule it, and how",
    "risk_assessment": "what could go wrong for whom, and what was done about it",
    "fairness": "which groups could be treated worse, and why that is or is not measured",
    "monitoring_plan": "what is watched once it runs, by whom, and when it is looked at again",
}
"""What an owner writes, and the question each section answers."""

_COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
_PLACEHOLDER = re.compile(
    r"\W*(todo|tbd|tba|fixme|xxx|to be (written|done|defined)|n/?a|lorem ipsum\b.*)\W*", re.IGNORECASE
)
_STRICT: Final = ("high", "critical")


def is_written(text: bytes | None) -> bool:
    """Whether a section says something: a line that is neither a heading nor a note that it is still to be written."""
    if text is None:
        return False
    lines = _COMMENT.sub("", text.decode(errors="replace")).splitlines()
    said = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return any(not _PLACEHOLDER.fullmatch(line) and re.search(r"\w", line) for line in said)


def dossier_complete(
    declared: Mapping[str, str],
    read: Callable[[str], bytes | None],
    *,
    tier: Tier,
    subject: Subject = ANYTHING,
) -> Evidence:
    """Gate `dossier.complete`: every section that an owner has to write is written.

    Args:
        declared: section -> the file that holds it.
        read: the bytes of such a file in the package; None when it is not there.
    Returns:
        One record: `value` sections missing of `n`, limit 0. It blocks for the tiers high and critical only.
    """
    about = msgspec.structs.replace(subject, severity="block" if tier in _STRICT else "warn")

    def judge() -> Evidence:
        missing = [name for name in SECTIONS if name not in declared or not is_written(read(declared[name]))]
        verdict: Verdict = "fail" if missing else "pass"
        return record(
            GATE,
            _METRIC,
            about,
            n=len(SECTIONS),
            value=float(len(missing)),
            comparator="at_most",
            threshold=0.0,
            verdict=verdict,
            reason="beyond_limit" if missing else None,
            details=_details(missing, declared),
        )

    return guarded(GATE, _METRIC, judge, subject=about, comparator="at_most", threshold=0.0)


def _details(missing: list[str], declared: Mapping[str, str]) -> tuple[str, ...]:
    if not missing:
        return tuple(f"{name}: {declared[name]}" for name in SECTIONS)
    names = ", ".join(missing)
    said = [f"{name}: {declared[name]} says nothing yet" for name in missing if name in declared]
    asked = [f"{name}: {SECTIONS[name]}" for name in missing if name not in declared]
    where = "" if declared else "; lockgate.toml names no file of them under [models.NAME.dossier]"
    return (f"missing: {names}{where}", *said, *asked)
