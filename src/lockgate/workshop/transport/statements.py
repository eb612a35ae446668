"""What is said of a package beside its signature: how it was built, what judged it, who approved it, where it may go,
and where it went past its policy.

Each is an in-toto statement that follows, word for word, from entries of the journal. It carries these entries along,
with the proof that a signed checkpoint holds them, so that to check one is to make it again and compare: whoever pushes
can leave statements out, and cannot make one up. The first entry is the registration, which says what package the
version is; the second is what the statement is about; one checkpoint holds both. A release in an emergency brings those
of its right along.

The types are those of in-toto and SLSA where there is one. What is ours in them stands under names of ours (`urn:`), as
the rules of in-toto for extensions ask for; other tools pass over it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

import msgspec

from lockgate.core.blobs import BlobStore
from lockgate.core.clock import iso
from lockgate.core.digests import Digest, sha256, short
from lockgate.core.errors import Corrupt, LockgateError
from lockgate.core.journal import NoteVerifier, verifier_key
from lockgate.core.messages import Event, Stamp
from lockgate.core.names import parse_endpoint
from lockgate.delivery.messages import ReleaseStarted
from lockgate.gates.messages import EvidenceLine, EvidenceRecorded
from lockgate.governance.judgement import bound_digest
from lockgate.governance.messages import (
    ApprovalRevoked,
    BreakGlassSeconded,
    GlassBroken,
    ReviewClosed,
    VersionApproved,
    VersionDeclined,
)
from lockgate.governance.proof import InclusionProof, check_proof
from lockgate.hub.audit import read_entry
from lockgate.hub.messages import ProvedEmergency, ProvedEntry, VersionProofs
from lockgate.hub.ports import StoredEntry
from lockgate.pipeline.messages import RunFinished
from lockgate.registry.messages import VersionRegistered
from lockgate.registry.packages.package import PackageConfig, manifest_of, open_package
from lockgate.registry.packages.signing import Attested, Statement, statement_bytes

PROVENANCE = "https://slsa.dev/provenance/v1"
TEST_RESULT = "https://in-toto.io/attestation/test-result/v0.1"
SUMMARY = "https://slsa.dev/verification_summary/v1"
APPROVAL = "urn:lockgate:attestation:approval:1"
EMERGENCY = "urn:lockgate:attestation:emergency:1"
PROOFS = "urn:lockgate:inclusion-proofs:1"
EVIDENCE = "urn:lockgate:evidence:1"
PROMOTION = "urn:lockgate:promotion:1"
BUILD_TYPE = "urn:lockgate:build:train:1"
BUILDER = "urn:lockgate:builder:train:1"

Kind = Literal["provenance", "evidence", "approval", "promotion", "emergency"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Proved = Literal["none", "holds", "unchecked", "unknown-journal"]


class AttestationForged(Corrupt):
    """A trusted key has signed a statement that the journal does not bear out. Facts: `envelope`, `why`."""

    code = "transport.attestation-forged"


class About(NamedTuple):
    """The package that statements are about; `recipe` is the digest of its description."""

    package: Digest
    recipe: Digest
    config: PackageConfig

    @classmethod
    def of(cls, package: Digest, blobs: BlobStore) -> About:
        recipe = manifest_of(blobs.get(package), package).config.digest
        return cls(package, recipe, open_package(package, blobs).config)


class Told(NamedTuple):
    """An entry of the journal, read, and the verifier key of the journal."""

    event: Event
    stamp: Stamp
    key: str


class Right(NamedTuple):
    """What became of an emergency right, as its entries tell."""

    glass: GlassBroken
    broken: Stamp
    seconded: Stamp | None
    review: ReviewClosed | None
    reviewed: Stamp | None

    @property
    def newest(self) -> int:
        """The number of its last entry."""
        return max(stamp.seq for stamp in (self.broken, self.seconded, self.reviewed) if stamp is not None)


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """What a statement comes to.

    Attributes:
        result: `approved`, `revoked`, `declined`; `PASSED`, `WARNED`, `FAILED`; `OWED` or `REVIEWED` in an emergency.
        by: who did it, by the journal's account.
        seq: the number of the newest entry; of two about one matter, the later one counts.
        right: by which right it went out in an emergency.
    """

    kind: Kind
    says: str
    environment: str = ""
    role: str = ""
    result: str = ""
    by: str = ""
    seq: int
    right: str = ""


class Words(NamedTuple):
    """A statement before anybody signs it."""

    kind: Kind
    data: bytes
    told: Told

    @property
    def digest(self) -> Digest:
        return sha256(self.data)


class Checked(NamedTuple):
    """Whether a statement is borne out, by which journal's key, and what it then says."""

    proved: Proved
    key: str = ""
    claim: Claim | None = None


def statements(proofs: VersionProofs, about: About) -> list[Words]:
    """The statements that follow from the journal's proofs about a version (`hub.prove-version`)."""
    read = [(one, _read(one.entry)) for one in proofs.entries]
    plain = [_words(one, told, about) for one, told in read if not isinstance(told.event, ReleaseStarted)]
    promoted = [
        _words(one, told, about, _rests_on(told, plain))
        for one, told in read
        if isinstance(told.event, ReleaseStarted)
    ]
    emergencies = [_words(one, _read(one.entry), about) for one in proofs.emergencies]
    return [*plain, *promoted, *emergencies]


def check(attested: Attested, about: About, journals: Sequence[NoteVerifier], envelope: Digest) -> Checked:
    """Whether the journal bears out a statement that a trusted key has signed.

    Args:
        envelope: where it was found, for the message.
        journals: the verifier keys of the journals that are believed.
    Raises:
        AttestationForged: it says that it follows from such a journal, and does not.
    """
    statement = attested.statement
    if PROOFS not in statement.predicate:
        return Checked("none")
    known = {verifier_key(one): one for one in journals}
    try:
        form = ProvedEmergency if statement.predicate_type == EMERGENCY else ProvedEntry
        proved = msgspec.convert(statement.predicate[PROOFS], form)
        key = proved.entry.key
        if not known:
            return Checked("unchecked")
        if key not in known:
            return Checked("unknown-journal", key)
        for one in (proved.registration, proved.entry, *_of_right(proved)):
            check_proof(one, known[key])
            # Two journals may call two packages by one name; one root is of one journal.
            if (one.checkpoint, one.key) != (proved.entry.checkpoint, key):
                raise _unfit("its entries rest on two checkpoints")
        told = _read(proved.entry)
        words = _words(proved, told, about, _inputs_of(statement.predicate))
    except (msgspec.ValidationError, LockgateError) as error:
        raise _forged(statement, envelope, str(error)) from error
    if attested.digest != words.digest:
        raise _forged(statement, envelope, "it says something else than the entry that it rests on")
    return Checked("holds", key, claim_of(told, _right_of(proved, told)))


def claim_of(told: Told, right: Right | None = None) -> Claim:
    """What an entry comes to, in one line.

    Args:
        right: by which it went out, where that was an emergency.
    """
    event, seq, by = told.event, told.stamp.seq, told.stamp.actor
    match event:
        case RunFinished():
            return Claim(kind="provenance", says=_built(event), by=by, seq=seq)
        case EvidenceRecorded(environment=where):
            result, says = _judged(event)
            return Claim(kind="evidence", says=says, environment=where, result=result, by=by, seq=seq)
        case VersionApproved() | ApprovalRevoked() | VersionDeclined():
            where, role, result = event.environment, event.role, _DECISIONS[type(event)]
            says = f"{result} for {where} by {by} in the name of {role}"
            if not isinstance(event, ApprovalRevoked):
                says += f", on evidence {short(event.evidence_set)} under policy {short(event.policy)}"
            return Claim(
                kind="approval", says=says, environment=where, role=role, result=result, by=by, seq=seq
            )
        case ReleaseStarted() if right is not None:
            return Claim(
                kind="emergency",
                says=_past_the_policy(event, by, right),
                environment=right.glass.environment,
                result="OWED" if right.reviewed is None else "REVIEWED",
                by=by,
                seq=max(seq, right.newest),
                right=event.break_glass,
            )
        case ReleaseStarted():
            where = parse_endpoint(event.endpoint).environment
            return Claim(
                kind="promotion", says=_let_in(event), environment=where, result="PASSED", by=by, seq=seq
            )
    raise _unfit("an entry that is never attested")


_DECISIONS: Mapping[type[Event], str] = {
    VersionApproved: "approved",
    ApprovalRevoked: "revoked",
    VersionDeclined: "declined",
}
_TYPES: Mapping[Kind, str] = {
    "provenance": PROVENANCE,
    "evidence": TEST_RESULT,
    "approval": APPROVAL,
    "promotion": SUMMARY,
    "emergency": EMERGENCY,
}


class _Unfit(Corrupt):
    code = "transport.entry-unfit"


def _read(proof: InclusionProof) -> Told:
    event, stamp = read_entry(StoredEntry(proof.seq, proof.entry.encode(), b""))
    if stamp.seq != proof.seq:
        raise _unfit(f"entry {proof.seq} calls itself entry {stamp.seq}")
    return Told(event, stamp, proof.key)


def _of_right(proved: ProvedEntry) -> tuple[InclusionProof, ...]:
    return proved.right if isinstance(proved, ProvedEmergency) else ()


def _right_of(proved: ProvedEntry, told: Told) -> Right | None:
    """The right by which a version went out in an emergency; None when it was none.

    Raises:
        _Unfit: the entries are not those of the right that the release names, in their order.
    """
    if not isinstance(proved, ProvedEmergency):
        return None
    release, read = told.event, [_read(one) for one in proved.right]
    glass = read[0].event if read else None
    if not isinstance(release, ReleaseStarted) or not isinstance(glass, GlassBroken):
        raise _unfit("it is about no release by an emergency right")
    endpoint, rest = parse_endpoint(release.endpoint), {type(one.event): one for one in read[1:]}
    about = (release.break_glass, endpoint.environment, str(endpoint.model))
    if about != (f"B-{glass.number}", glass.environment, glass.model):
        raise _unfit("the glass that was broken is another one")
    numbers = [one.stamp.seq for one in read]
    if len(rest) != len(read) - 1 or numbers != sorted(set(numbers)) or numbers[0] > told.stamp.seq:
        raise _unfit("its entries are not in the order of the journal")
    for one in rest.values():
        if not isinstance(one.event, BreakGlassSeconded | ReviewClosed):
            raise _unfit("one of its entries is not about an emergency right")
        if (one.event.model, one.event.number) != (glass.model, glass.number):
            raise _unfit("one of its entries is about another emergency")
    second, closed = rest.get(BreakGlassSeconded), rest.get(ReviewClosed)
    review = closed.event if closed is not None and isinstance(closed.event, ReviewClosed) else None
    return Right(glass, read[0].stamp, second and second.stamp, review, closed and closed.stamp)


def _words(proved: ProvedEntry, told: Told, about: About, inputs: Iterable[Digest] = ()) -> Words:
    """The one statement that follows from an entry about the package.

    Raises:
        _Unfit: the entry is about another package or version, or is none that is attested.
    """
    registered = _read(proved.registration).event
    if not isinstance(registered, VersionRegistered) or registered.package != about.package:
        raise _unfit(f"its registration is not of package {about.package}")
    right = _right_of(proved, told)
    kind = claim_of(told, right).kind
    predicate = _predicate(registered, told, about, inputs, right)
    predicate[PROOFS] = msgspec.to_builtins(proved)
    return Words(kind, statement_bytes(about.package, registered.model, _TYPES[kind], predicate), told)


def _predicate(
    registered: VersionRegistered,
    told: Told,
    about: About,
    inputs: Iterable[Digest],
    right: Right | None,
) -> dict[str, Any]:
    event = told.event
    match event:
        case RunFinished(run=registered.run, package=about.package):
            return _provenance(event, told.stamp, about)
        case EvidenceRecorded(version=registered.version, package=about.package):
            return _test_result(event, about)
        case VersionApproved(version=registered.version) | ApprovalRevoked(version=registered.version):
            return _approval(event, told.stamp)
        case VersionDeclined(version=registered.version):
            return _approval(event, told.stamp)
        case ReleaseStarted(break_glass="") if event.served.package == about.package and right is None:
            return _summary(event, told, inputs)
        case ReleaseStarted() if event.served.version == registered.version and right is not None:
            return _emergency(event, told.stamp, right)
    raise _unfit("the entry is about another version or package, or about an emergency without its right")


def _provenance(event: RunFinished, stamp: Stamp, about: About) -> dict[str, Any]:
    """SLSA provenance v1, of what is known: no host, no start, and the end as the journal was told of it."""
    source = {"digest": {"gitCommit": event.commit}} if event.commit else {}
    data = [
        {"name": name, "uri": f"urn:lockgate:snapshot:{digest}", "digest": _hash(digest)}
        for name, digest in sorted(event.snapshots.items())
    ]
    parts = [
        {"name": name, "digest": _hash(digest)}
        for name, digest in (("code", about.config.code), ("environment", about.config.environment))
    ]
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"model": event.model, "source": {**source, "dirty": event.dirty}},
            "resolvedDependencies": [*([{"name": "source", **source}] if source else []), *data, *parts],
        },
        "runDetails": {
            "builder": {"id": BUILDER},
            "metadata": {"invocationId": event.run, "finishedOn": iso(stamp.at)},
            "byproducts": [{"name": "run", "digest": _hash(event.run)}],
        },
    }


def _test_result(event: EvidenceRecorded, about: About) -> dict[str, Any]:
    """in-toto test-result v0.1; a test is a gate. Its configuration is the recipe in the package's description."""
    result, tests = _result(event.lines)
    configuration = [{"name": "recipe", "digest": _hash(about.recipe)}]
    if event.baseline:
        configuration.append({"name": "baseline", "digest": _hash(event.baseline)})
    return {
        "result": result,
        "configuration": configuration,
        **{f"{word}Tests": names for word, names in tests.items()},
        EVIDENCE: {
            "set": event.evidence_set,
            "environment": event.environment,
            "records": [
                {"name": one.name, "verdict": one.verdict, "digest": one.digest} for one in event.lines
            ],
        },
    }


def _result(lines: Iterable[EvidenceLine]) -> tuple[str, dict[str, list[str]]]:
    """The result of a set of evidence, and its gates by the worst of what each found. What did not run never passes."""
    worst: dict[str, int] = {}
    for one in lines:
        failed = one.verdict == "error" or (one.verdict == "fail" and one.severity == "block")
        rank = 2 if failed else 0 if one.verdict == "pass" else 1
        worst[one.gate] = max(worst.get(one.gate, 0), rank)
    words = ("passed", "warned", "failed")
    tests = {
        word: sorted(gate for gate, rank in worst.items() if rank == at) for at, word in enumerate(words)
    }
    return words[max(worst.values(), default=2)].upper(), tests


def _approval(event: VersionApproved | ApprovalRevoked | VersionDeclined, stamp: Stamp) -> dict[str, Any]:
    said: dict[str, Any] = {
        "decision": _DECISIONS[type(event)],
        "version": event.version,
        "environment": event.environment,
        "role": event.role,
        "by": stamp.actor,
        "at": iso(stamp.at),
        "comment": event.comment if isinstance(event, VersionApproved) else event.reason,
    }
    if not isinstance(event, ApprovalRevoked):
        said |= {"evidenceSet": event.evidence_set, "policy": {"digest": _hash(event.policy)}}
    return said


def _summary(event: ReleaseStarted, told: Told, inputs: Iterable[Digest]) -> dict[str, Any]:
    """SLSA verification summary v1. The verifier is whoever keeps the journal, and is known by its key."""
    journal = hashlib.sha256(told.key.encode()).hexdigest()
    return {
        "verifier": {"id": f"urn:lockgate:journal:sha256:{journal}"},
        "timeVerified": iso(told.stamp.at),
        "resourceUri": f"urn:lockgate:endpoint:{event.endpoint}",
        "policy": {"uri": f"urn:lockgate:policy:{event.policy}", "digest": _hash(event.policy)},
        "inputAttestations": [{"digest": _hash(one)} for one in inputs],
        "verificationResult": "PASSED",
        "verifiedLevels": ["LOCKGATE_PROMOTED"],
        PROMOTION: {
            "version": event.served.version,
            "release": event.release,
            "evidenceSet": event.evidence_set,
            "approvedBy": list(event.approved_by),
            "waivers": list(event.waivers),
        },
    }


def _emergency(event: ReleaseStarted, stamp: Stamp, right: Right) -> dict[str, Any]:
    """That it went out past the policy. `review` is None as far as these entries go; none proves that there is none."""
    glass, review = right.glass, right.review
    return {
        "version": event.served.version,
        "environment": glass.environment,
        "endpoint": event.endpoint,
        "release": event.release,
        "by": stamp.actor,
        "at": iso(stamp.at),
        "ticket": event.ticket,
        "policy": {"digest": _hash(event.policy)},
        "right": {
            "name": event.break_glass,
            "incident": glass.incident,
            "reason": glass.reason,
            "by": right.broken.actor,
            "at": iso(right.broken.at),
            "until": iso(glass.until),
            "seconded": None if right.seconded is None else right.seconded.actor,
        },
        "reviewDue": iso(glass.review_due),
        "review": None
        if review is None or right.reviewed is None
        else {"by": right.reviewed.actor, "at": iso(right.reviewed.at), "finding": review.finding},
    }


def _past_the_policy(event: ReleaseStarted, by: str, right: Right) -> str:
    glass, second = right.glass, right.seconded
    people = (
        by if second is None else f"{by}, with {second.actor if by != second.actor else right.broken.actor}"
    )
    says = (
        f"went to {parse_endpoint(event.endpoint).shown} past the policy, by break-glass {event.break_glass} of "
        f"{people} (incident {glass.incident}: {glass.reason})"
    )
    if right.review is None or right.reviewed is None:
        return f"{says}; no review of it was told, due at {iso(glass.review_due)[:16]}Z"
    at = iso(right.reviewed.at)[:16]
    return f"{says}; reviewed by {right.reviewed.actor} at {at}Z: {right.review.finding}"


def _rests_on(told: Told, made: Sequence[Words]) -> tuple[Digest, ...]:
    """The statements that a promotion was decided on, of those that are made; evidence of before or after is not."""
    event = told.event
    assert isinstance(event, ReleaseStarted)
    environment = parse_endpoint(event.endpoint).environment
    before = [one for one in made if one.told.stamp.seq < told.stamp.seq]
    judged: dict[str, tuple[Words, Digest]] = {}
    for one in before:
        match one.told.event:
            case EvidenceRecorded(environment=where, evidence_set=found) if where in ("", environment):
                judged[where] = one, found
    sets = [judged[where][1] if where in judged else "" for where in ("", environment)]
    grounds = [one for one, _ in judged.values()]
    if bound_digest(sets[0], sets[1], event.plan) != event.evidence_set:
        grounds = []
    about = (environment, event.evidence_set, event.policy)
    for one in before:
        match one.told.event:
            case VersionApproved(environment=where, evidence_set=bound, policy=policy):
                grounds += [one] if (where, bound, policy) == about else []
    return tuple(one.digest for one in grounds)


class _Input(msgspec.Struct):
    digest: dict[str, str]


def _inputs_of(predicate: Mapping[str, Any]) -> list[Digest]:
    """What a summary says it rests on: its signer's word, for the entry names evidence and people, no statements."""
    named = msgspec.convert(predicate.get("inputAttestations", []), list[_Input])
    return ["sha256:" + one.digest.get("sha256", "") for one in named]


def _judged(event: EvidenceRecorded) -> tuple[str, str]:
    result, tests = _result(event.lines)
    told = []
    for word, names in tests.items():
        named = f" ({', '.join(names)})" if word != "passed" else ""
        told += [f"{len(names)} {'gate' if len(names) == 1 else 'gates'} {word}{named}"] if names else []
    where = f" for {event.environment}" if event.environment else ""
    return result, f"{result}{where}: {', '.join(told) or 'no gate ran'}"


def _let_in(event: ReleaseStarted) -> str:
    says = f"PASSED: let in to {parse_endpoint(event.endpoint).shown} under policy {short(event.policy)}"
    says += f", approved by {', '.join(event.approved_by)}" if event.approved_by else ""
    return says + (f", with waivers {', '.join(event.waivers)}" if event.waivers else "")


def _built(event: RunFinished) -> str:
    dirty = " with changes that were not committed" if event.dirty else ""
    commit = f"commit {event.commit[:12]}{dirty}" if event.commit else "outside of Git"
    data = ", ".join(f"{name} {short(digest)}" for name, digest in sorted(event.snapshots.items()))
    return f"built from {commit} in run {short(event.run)}" + (f", of {data}" if data else "")


def _hash(digest: Digest) -> dict[str, str]:
    return {"sha256": digest.removeprefix("sha256:")}


def _unfit(why: str) -> _Unfit:
    return _Unfit(why, remedy="ask whoever signed it where it comes from")


def _forged(statement: Statement, envelope: Digest, why: str) -> AttestationForged:
    return AttestationForged(
        f"the {statement.predicate_type} in {envelope} does not follow from the journal: {why}",
        remedy="do not rely on it; ask whoever signed it, and take it away",
        envelope=envelope,
        why=why,
    )
