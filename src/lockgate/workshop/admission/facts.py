"""The facts that decisions rest on: made before the lock, of the bytes that a command names and of how this hub is set.

One way for a project and for the hub of a team. What the facts say of packages and signatures: `registry.facts`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any, TypeVar

from lockgate.access.decide import TOKEN_DAYS
from lockgate.access.messages import IssueServiceToken, IssueToken
from lockgate.core.blobs import BlobStore
from lockgate.core.clock import Clock
from lockgate.core.documents import DocumentKind
from lockgate.core.messages import Command
from lockgate.data.messages import EraseSnapshot
from lockgate.delivery.messages import PromoteVersion, ReleaseInEmergency, Served
from lockgate.delivery.standing import asks_tracker, question_of
from lockgate.delivery.way_back import TERMS_FACT
from lockgate.gates.evidence import check_line
from lockgate.gates.messages import RecordEvidence
from lockgate.governance.tickets.facts import ticket_fact
from lockgate.governance.tickets.ports import Tracker
from lockgate.governance.tickets.tracker import TICKET_FACT
from lockgate.hub.holdings import same_rows
from lockgate.hub.kernel import body_of
from lockgate.hub.ports import Journal
from lockgate.pipeline.decide import SAME_ROWS_FACT
from lockgate.registry.decide import ATTESTATION_FACT, PACKAGE_FACT
from lockgate.registry.facts import attestation_fact, package_fact, signature_fact, trust_fact
from lockgate.registry.messages import AttachAttestation, CollectPackage, RegisterVersion, SignVersion
from lockgate.registry.packages.ports import Verifier
from lockgate.registry.state import KEY, MODEL, VERSION
from lockgate.registry.trust import TRUST_FACT, load_reasons

D = TypeVar("D")


class Facts:
    """Called with a command; says what must hold outside the journal before it may be decided, and what that is.

    Args:
        trusted: the keys that are trusted in an environment (None: in any); read when a signature is checked.
        tracker: opens who is asked about tickets; None where nobody is.
        token_days: how long an API token may live.
        terms: how many days packages are kept at least after the end of a version, by tier.
    """

    def __init__(
        self,
        journal: Journal,
        blobs: BlobStore,
        trusted: Callable[[str | None], Sequence[Verifier]],
        clock: Clock,
        tracker: Callable[[], Tracker | None],
        token_days: int,
        terms: Mapping[str, int],
    ) -> None:
        self._journal = journal
        self._blobs = blobs
        self._trusted = trusted
        self._clock = clock
        self._open_tracker = tracker
        self._token_days = token_days
        self._terms = terms

    def __call__(self, command: Command, seen: BlobStore) -> Mapping[str, Any]:
        """Raises what the bytes raise, when they do not hold.

        Args:
            seen: the blobs as the sender of the command sees them. What he names himself is looked at there, so that no
                answer tells him of what he may not read; what documents name is looked at where it is.
        """
        match command:
            case IssueToken() | IssueServiceToken():
                return {TOKEN_DAYS: self._token_days}
            case CollectPackage():
                return {TERMS_FACT: self._terms}
            case EraseSnapshot(snapshot=snapshot):
                return {SAME_ROWS_FACT: same_rows(snapshot, self._journal, self._blobs.get)}
            case RecordEvidence():
                for line in command.lines:
                    check_line(line, seen.get(line.digest), command.package)
            case AttachAttestation():
                return {ATTESTATION_FACT: attestation_fact(command, seen, self._trusted(None))}
            case RegisterVersion():
                known = self._journal.document(MODEL.name, command.model)
                latest = (known.digest or None) if known is not None else None
                return {PACKAGE_FACT: package_fact(command, seen, self._trusted(None), latest)}
            case (
                PromoteVersion(version=key, environment=environment)
                | ReleaseInEmergency(version=key, environment=environment)
            ):
                version = self._document(VERSION, key)
                if version is not None:
                    return {TRUST_FACT: trust_fact(version, self._blobs, self._trusted(environment))}
            case SignVersion(version=key):
                version = self._document(VERSION, key)
                if version is not None:
                    fact = signature_fact(command, version, seen, self._trusted(None))
                    return {TRUST_FACT: fact}
        return {}

    def inquire(self, command: Command, actor: str) -> Mapping[str, Any]:
        """What somebody else is asked before a command may be decided."""
        if not isinstance(command, PromoteVersion) or not asks_tracker(self._document, command):
            return {}
        now = self._clock.now()
        return {TICKET_FACT: ticket_fact(self._tracker, question_of(command, actor, now), now)}

    @cached_property
    def _tracker(self) -> Tracker | None:
        return self._open_tracker()

    def vet(self, served: Served, environment: str) -> str:
        """Why a package may not be brought to a target now, whatever was decided before; empty when it may."""
        version = self._document(VERSION, served.version)
        if version is None:
            return f"there is no version {served.version}"
        fact = trust_fact(version, self._blobs, self._trusted(environment), whole=False)
        keys = frozenset(stored.key for stored in self._journal.documents(KEY.name, bodies=False))
        return "; ".join(reason.message for reason in load_reasons(version, fact, keys))

    def _document(self, kind: DocumentKind[D], key: str) -> D | None:
        return body_of(self._journal, kind, key)
