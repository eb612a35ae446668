"""The release plan: what could fail, what would show it, and the way back. Plain data; part of what is approved.

A risk names the *signal* that would show it, and only a signal that exists counts: a guard of the endpoint, which
watches releases on their way and takes them back. A draft is made of what the journal knows; the owner edits it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from lockgate.core.clock import Micros, iso
from lockgate.core.digests import Digest, digest_of
from lockgate.core.errors import Invalid
from lockgate.core.messages import Reason
from lockgate.core.toml_lines import Misfit, read_toml

MAX_RISKS = 50
_MOST_DRAFTED = 10


class Risk(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What could fail, and the guard that would show it."""

    what: str
    signal: str


class ReleasePlan(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is expected of a release.

    Attributes:
        back_to: the version that a rollback leads to, or `fallback` where none was live before.
        drilled_at, drilled_ms: when the way back was last rehearsed with success, and its time to the first answer of
            the other version (p99); None when it never was.
    """

    risks: tuple[Risk, ...]
    back_to: str
    drilled_at: Micros | None = None
    drilled_ms: float | None = None
    note: str = ""

    @property
    def digest(self) -> Digest:
        return digest_of(self)


class Mishap(msgspec.Struct, frozen=True, kw_only=True):
    """A release that failed or was taken back: which version, how it ended, the guards that said so."""

    version: str
    how: str
    why: str
    guards: tuple[str, ...] = ()


def drafted(guards: Mapping[str, str], mishaps: Iterable[Mishap]) -> tuple[Risk, ...]:
    """Risks to begin with: what has happened before, newest first, then what each guard watches for.

    Args:
        guards: of the endpoint, each with what it would show in words.
    """
    risks: dict[tuple[str, str], Risk] = {}
    for mishap in mishaps:
        # What no guard has said is put to the one that every rollout has.
        for signal in [guard for guard in mishap.guards if guard in guards] or list(guards)[:1]:
            why = f": {mishap.why}" if mishap.why else ""
            risk = Risk(what=f"as {mishap.version}, which {mishap.how}{why}", signal=signal)
            risks.setdefault((signal, mishap.why), risk)
    seen = list(risks.values())[:_MOST_DRAFTED]
    covered = {risk.signal for risk in seen}
    return (
        *seen,
        *(Risk(what=words, signal=guard) for guard, words in guards.items() if guard not in covered),
    )


def plan_reasons(risks: Sequence[Risk], guards: Iterable[str], endpoint: str) -> list[Reason]:
    """Why these risks are no plan: none at all, one without words, one that nothing would show."""
    known = sorted(guards)
    configure = f'configure guards under [endpoints."{endpoint}".rollout] in lockgate.toml'
    if not 1 <= len(risks) <= MAX_RISKS:
        return [
            Reason(
                rule="governance.no-risk",
                message="a release plan says what could fail",
                measured=f"{len(risks)} risks",
                limit=f"1 to {MAX_RISKS}",
                remedy=f"name what could fail, and the guard that would show it: {', '.join(known)}"
                if known
                else f"{configure}; each is a risk to begin with",
            )
        ]
    return [
        _unseen(risk, known, endpoint, configure)
        for risk in risks
        if risk.signal not in known or not risk.what.strip()
    ]


def _unseen(risk: Risk, known: Sequence[str], endpoint: str, configure: str) -> Reason:
    if not risk.what.strip():
        return Reason(
            rule="governance.no-risk",
            message=f"a risk with signal {risk.signal!r} does not say what fails",
            remedy="write what fails, or leave the risk out",
        )
    return Reason(
        rule="governance.no-signal",
        message=f"nothing would show that {risk.what!r} happens",
        measured=risk.signal or "no signal",
        limit=", ".join(known) or "no guard is configured",
        remedy=f"name one of the guards of {endpoint}, or add one to its rollout" if known else configure,
    )


def plan_lines(plan: ReleasePlan | None) -> list[str]:
    """The plan as approvers read it, beside the evidence."""
    if plan is None:
        return []
    drilled = (
        f", drilled {iso(plan.drilled_at)[:16]}Z, p99 {plan.drilled_ms:.1f} ms" if plan.drilled_at else ""
    )
    rows = [f"release plan: rollback leads to {plan.back_to}{drilled}"]
    rows += [f"  risk: {risk.what}; shown by {risk.signal}" for risk in plan.risks]
    return rows + ([f"  {plan.note}"] if plan.note else [])


class PlanInvalid(Invalid):
    code = "governance.plan-invalid"


class PlanFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The part of a release plan that people write, as a file of TOML."""

    risk: tuple[Risk, ...] = ()
    note: str = ""


def plan_text(plan: PlanFile) -> str:
    rows = [f"note = {_quoted(plan.note)}"] if plan.note else []
    for risk in plan.risk:
        rows += ["", "[[risk]]", f"what = {_quoted(risk.what)}", f"signal = {_quoted(risk.signal)}"]
    return "\n".join(rows)


def _quoted(text: str) -> str:
    """A TOML basic string; JSON's escapes are among TOML's."""
    return msgspec.json.encode(text).decode()


def parse_plan(text: str, *, where: str) -> PlanFile:
    """What `plan_text` writes. Raises `PlanInvalid` with the place of the mistake."""
    try:
        return read_toml(text, PlanFile)
    except Misfit as error:
        raise PlanInvalid(error.said(where), remedy=error.remedy, where=where) from error
