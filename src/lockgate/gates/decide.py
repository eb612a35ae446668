"""Decisions of the gates room."""

from __future__ import annotations

import msgspec

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest, digest_of
from lockgate.core.documents import DocRef, Docs
from lockgate.core.messages import Context, Decision, Reason, Refusal, refuse
from lockgate.core.names import check_part
from lockgate.gates.messages import (
    TIMED,
    EvidenceLine,
    EvidenceRecorded,
    JudgingStarted,
    RecordEvidence,
    StartJudging,
)
from lockgate.gates.state import EVIDENCE, JUDGING, EvidenceState, JudgingState, evidence_key
from lockgate.registry.decide import known_version
from lockgate.registry.makers import maker_refs, makers_of, not_by_a_maker
from lockgate.registry.state import VersionState

# Judging again renews the date that policies measure the age of evidence by; doing so twice a day is no news.
_STILL_FRESH_US = 12 * 3600 * 1_000_000


def set_digest(lines: tuple[EvidenceLine, ...]) -> Digest:
    """Names a set of evidence whatever its order: every verdict and figure in it, and the records behind them."""
    return digest_of(sorted(digest_of(line) for line in lines))


def needs_judging(command: StartJudging, docs: Docs) -> tuple[DocRef, ...]:
    return maker_refs(docs, command.version)


def start_judging(docs: Docs, command: StartJudging, context: Context) -> Decision | Refusal:
    """The beginning of a run, by whoever may say what it found."""
    if command.environment:
        check_part(command.environment, what="environment")
    version = _to_judge(docs, command.version, context)
    if isinstance(version, Refusal):
        return version
    begun = JudgingStarted(version=command.version, environment=command.environment, judging=command.id)
    return Decision((begun,))


def _to_judge(docs: Docs, key: str, context: Context) -> VersionState | Refusal:
    """The version, unless it is the sender's own, or its judgement is over.

    Where names are only claimed, one person may well build and judge.
    """
    version = known_version(docs, key)
    if isinstance(version, Refusal):
        return version
    own = [] if context.claimed else not_by_a_maker(context, makers_of(docs, version), "judge it")
    if own:
        remedy = "let a validator judge it: an account of its own, or somebody else"
        return Refusal(reasons=tuple(msgspec.structs.replace(one, remedy=remedy) for one in own))
    if version.state not in ("rejected", "retired"):
        return version
    return refuse(
        Reason(
            rule="registry.state",
            message=f"{version.version} is {version.state}; its judgement is over",
            measured=version.state,
            remedy=version.way_on,
        )
    )


def needs_evidence(command: RecordEvidence, docs: Docs) -> tuple[DocRef, ...]:
    return (
        *maker_refs(docs, command.version),
        DocRef(EVIDENCE.name, evidence_key(command.version, command.environment)),
        *((DocRef(JUDGING.name, command.judging),) if command.judging else ()),
    )


def record_evidence(docs: Docs, command: RecordEvidence, context: Context) -> Decision | Refusal:
    """Evidence must be about the very bytes of the version it is attached to, and not by who made it.

    It is as old as its measurement. To send it again makes it no younger: neither the same, nor some of it among other
    pieces, nor under the name of a run of the gates that was told of before, nor of one that never was.
    """
    version = _to_judge(docs, command.version, context)
    if isinstance(version, Refusal):
        return version
    if version.package != command.package:
        return refuse(
            Reason(
                rule="gates.other-package",
                message=f"the evidence is about another package than {command.version}",
                measured=command.package,
                limit=version.package,
                remedy=f"lockgate judge {command.version}",
            )
        )
    run = docs.get(JUDGING, command.judging) if command.judging else None
    foreign = _foreign(command) + _of_another(run, command, context)
    if foreign:
        return Refusal(reasons=foreign)
    evidence_set = set_digest(command.lines)
    known = docs.get(EVIDENCE, evidence_key(command.version, command.environment))
    measured_at = _measured_at(version, known, run, command, context)
    same = known is not None and (known.evidence_set, known.baseline) == (evidence_set, command.baseline)
    if known is not None and same and _is_fresh(known, version, measured_at):
        return Decision(())
    return Decision(
        (
            EvidenceRecorded(
                version=command.version,
                package=command.package,
                environment=command.environment,
                baseline=command.baseline,
                evidence_set=evidence_set,
                lines=command.lines,
                judging=command.judging if run is not None or context.claimed else "",
                measured_at=measured_at,
            ),
        )
    )


def _is_fresh(known: EvidenceState, version: VersionState, measured_at: Micros) -> bool:
    """What was found before a version was shut away is found anew when it is measured again."""
    shut_since = known.measured_at <= (version.quarantined_at or 0) < measured_at
    return measured_at - known.measured_at < _STILL_FRESH_US and not shut_since


def _measured_at(
    version: VersionState,
    known: EvidenceState | None,
    run: JudgingState | None,
    command: RecordEvidence,
    context: Context,
) -> Micros:
    """When evidence was measured, by what is known of it here and by the clock here.

    What a run found that was begun here is as old as its beginning; but no two runs measure one and the same time, so
    that such a piece is as old as it was. What came without a run that was begun here may have been measured at any
    moment since the version is here.

    Where names are only claimed, whoever sends it could as well write the journal: there, a run of the gates is
    believed once, and to have begun when it says, but not later than now.
    """
    before, now = {} if known is None else known.measured, context.now
    began_at = now if command.began_at is None else min(command.began_at, now)
    if run is not None:
        copied = [before[line.digest] for line in command.lines if _is_timed(line) and line.digest in before]
        return min([run.started_at, began_at, *copied])
    if context.claimed and command.judging:
        return min(before.get(command.judging, began_at), began_at)
    unknown = began_at if context.claimed else min(version.registered_at, began_at)
    return min([before.get(line.digest, unknown) for line in command.lines], default=unknown)


def _is_timed(line: EvidenceLine) -> bool:
    return line.gate in TIMED and line.measured is not None


def _of_another(run: JudgingState | None, command: RecordEvidence, context: Context) -> tuple[Reason, ...]:
    """A run of the gates that somebody else began, or on something else."""
    if run is None:
        return ()
    about = (run.version, run.environment, run.started_by)
    if about == (command.version, command.environment, context.actor):
        return ()
    place = f" for {run.environment}" if run.environment else ""
    return (
        Reason(
            rule="gates.other-run",
            message=f"that run of the gates was begun by {run.started_by} on {run.version}{place}",
            measured=run.started_by if run.started_by != context.actor else f"{run.version}{place}",
            limit=f"{command.version}, by {context.actor}",
            remedy=f"lockgate judge {command.version}"
            + (f" --for {command.environment}" if command.environment else ""),
        ),
    )


def _foreign(command: RecordEvidence) -> tuple[Reason, ...]:
    """Lines that speak of another environment or another champion than the set they are put into."""
    reasons = []
    judge = f"lockgate judge {command.version}" + (
        f" --for {command.environment}" if command.environment else ""
    )
    for line in command.lines:
        if line.environment != command.environment:
            reasons.append(
                Reason(
                    rule="gates.other-environment",
                    message=f"{line.name} was judged for another environment",
                    measured=line.environment or "none",
                    limit=command.environment or "none",
                    remedy=judge,
                    evidence=line.digest,
                )
            )
        if line.baseline is not None and line.baseline != command.baseline:
            reasons.append(
                Reason(
                    rule="gates.other-baseline",
                    message=f"{line.name} was judged against another champion",
                    measured=line.baseline or "no baseline",
                    limit=command.baseline or "no baseline",
                    remedy=judge,
                    evidence=line.digest,
                )
            )
    return tuple(reasons)
