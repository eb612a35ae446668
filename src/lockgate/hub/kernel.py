"""The one door to state, in process.

A command passes these steps, in this order; `at` is told each, so that a test may crash the process there:

    received    the same command id again returns its stored receipt: here, where facts are to be established, and
                under the lock in any case
    authorised  the session's roles hold the permission the message declares
    established slow facts (hashes, signatures, comparisons of packages) are made before any lock; under it only
                when others have made them stale again and again
    locked      nobody comes in between any more: the journal's head lock is held, or, the first time, what is decided
                will not be written when somebody has; documents the command `needs` are read
    decided     a pure function has turned documents, command and context into events and effects, or a refusal
    committed   events, chain, documents, edges, outbox and receipt are durable, in one transaction
    effected    what the command wants done outside has been tried; the rest stays in the outbox

Nothing is lost by a crash between any two steps: before `committed` nothing happened, after it the outbox
remembers. A refusal is journaled too.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec

from lockgate.core.clock import Clock
from lockgate.core.digests import Digest, canonical
from lockgate.core.documents import DocRef, Docs, DocumentKind
from lockgate.core.errors import Bug, Conflict, Corrupt, Forbidden, Invalid
from lockgate.core.journal import Entry, Head, extend
from lockgate.core.messages import (
    Command,
    Context,
    Decision,
    Effect,
    Event,
    Query,
    Receipt,
    Refusal,
    Stamp,
    tag_of,
)
from lockgate.hub.authority import Session, may
from lockgate.hub.messages import CommandRefused, WhoAmI, WhoAmIAnswer
from lockgate.hub.ports import Commit, Edge, Journal, StoredDocument, StoredEntry, Transaction
from lockgate.hub.table import COMMANDS, KIND_BY_NAME, KINDS, Handler
from lockgate.registry.messages import Tier
from lockgate.registry.state import MODEL

D = TypeVar("D")

# Spares the Python call behind the constructor: over a long journal, it counts.
_EDGE = functools.partial(tuple.__new__, Edge)
# `canonical`, without making an encoder each time.
_ENCODE = msgspec.json.Encoder(order="deterministic").encode
_NOTHING = (None, 0)
_FREE_ROUNDS = 3
_MAX_ID_LENGTH = 128
_MAX_DECODED_BYTES = 64 * 1024


class Hub(Protocol):
    """Everything that changes or answers, for one actor."""

    session: Session

    def execute(self, command: Command) -> Receipt:
        """Carry a command through, at most once per id. A refusal comes back inside the receipt."""
        ...

    def ask(self, query: Query) -> Any:
        """The answer, of the type that the query's class names."""
        ...


class NotAllowed(Forbidden):
    code = "hub.not-allowed"


class BadCommandId(Invalid):
    code = "hub.bad-command-id"


class CommandIdReused(Conflict):
    """One id, two different commands: of another content, or of another actor."""

    code = "hub.command-id-reused"
    retryable = False


class DocumentUnreadable(Corrupt):
    code = "journal.document-unreadable"


class Establish(Protocol):
    """Makes the dated, digest-named facts a command may rest on, before the lock."""

    def __call__(self, command: Command) -> Mapping[str, Any]: ...


class Inquire(Protocol):
    """Asks others about a command, over the network: once, whatever becomes stale, and never under the lock."""

    def __call__(self, command: Command) -> Mapping[str, Any]: ...


class Ask(Protocol):
    def __call__(self, query: Query, session: Session) -> Any: ...


class CarryOut(Protocol):
    """Tries to carry out the open effects of a subject; true when none is left."""

    def __call__(self, subject: str) -> bool: ...


class LeadTo(Protocol):
    """The blobs that a command gives a home, each with that home (`hub.homes`); asked once, before the lock."""

    def __call__(self, command: Command) -> tuple[tuple[Digest, str], ...]: ...


def _no_facts(command: Command) -> Mapping[str, Any]:
    return {}


def _to_nothing(command: Command) -> tuple[tuple[Digest, str], ...]:
    return ()


def _leave_to_controller(subject: str) -> bool:
    return False


class LocalHub:
    """The hub in this process, over a `Journal`. Cheap to make: one per actor.

    Args:
        establish: facts a command needs from outside the journal, by the ports of the composition root.
        inquire: facts that somebody else is asked for.
        lead_to: blobs that are read from now on where the command is about.
        answer: what answers queries.
        carry_out: the effect runner; without one, effects wait for a controller.
        prepare: puts right what must be before a command is looked at, outside of any transaction.
        at: told each step's name; for crash tests.
    """

    def __init__(
        self,
        journal: Journal,
        clock: Clock,
        session: Session,
        *,
        answer: Ask,
        establish: Establish = _no_facts,
        inquire: Inquire = _no_facts,
        lead_to: LeadTo = _to_nothing,
        carry_out: CarryOut = _leave_to_controller,
        prepare: Callable[[Command], None] = lambda command: None,
        at: Callable[[str], None] = lambda step: None,
    ) -> None:
        self.session = session
        self._journal = journal
        self._clock = clock
        self._answer = answer
        self._establish = establish
        self._inquire = inquire
        self._lead_to = lead_to
        self._carry_out = carry_out
        self._prepare = prepare
        self._at = at

    def authorise(self, query: Query) -> None:
        """Raises `NotAllowed` when the session may not ask that."""
        denied = may(self.session, query, self._tier(query))
        if denied is not None:
            reason = denied.reasons[0]
            raise NotAllowed(reason.message, remedy=reason.remedy or "", actor=self.session.actor)

    def ask(self, query: Query) -> Any:
        self.authorise(query)
        if isinstance(query, WhoAmI):
            return self._who()
        return self._answer(query, self.session)

    def _who(self) -> WhoAmIAnswer:
        session = self.session
        return WhoAmIAnswer(
            actor=session.actor,
            claimed=session.claimed,
            kind=session.kind,
            roles=tuple(sorted(session.roles)),
            grants=session.grants,
            credential=session.credential,
            groups=session.groups,
        )

    def _tier(self, message: Command | Query) -> Tier | None:
        """The tier of the model that a message is about; read only for a session whose grants depend on it."""
        if not any(grant.tiers for grant in self.session.grants):
            return None
        scope = message.scope()
        return tier_of(self._journal, f"{scope.namespace}/{scope.model}")

    def execute(self, command: Command) -> Receipt:
        handler = COMMANDS[type(command)]
        _check_id(command.id)
        self._at("received")
        first = _single(handler.needs(command, Docs({})))
        with self._journal.snapshot(command.id, first, hold=False):
            known = self._journal.receipt(command.id) if handler.looks_outside else None
            if known is not None:
                return _stored(known, command, self.session.actor)
            receipt, effects = self._carried_through(handler, command, first)
        return self._effect(receipt, effects)

    def _carried_through(
        self, handler: Handler[Any], command: Command, first: list[DocRef]
    ) -> tuple[Receipt, tuple[Effect, ...]]:
        denied = may(self.session, command, self._tier(command))
        if denied is None:
            self._prepare(command)
        self._at("authorised")
        asked, done = {} if denied else self._inquire(command), None
        homes = () if denied else self._lead_to(command)
        for number in range(_FREE_ROUNDS):
            facts = {} if denied else {**asked, **self._establish(command)}
            self._at("established")
            with self._journal.transaction(command.id, first, hold=number > 0) as transaction:
                done = self._pass(transaction, handler, command, facts, denied, homes)
            if done is not None:
                return done
        # Somebody was faster each time. While the lock is held, nobody is.
        with self._journal.transaction() as transaction:
            facts = {**asked, **self._establish(command)}
            self._at("established")
            done = self._pass(transaction, handler, command, facts, denied, homes)
        if done is None:
            raise Bug(f"the facts of {tag_of(type(command))} went stale under the lock", remedy="report this")
        return done

    def _pass(
        self,
        transaction: Transaction,
        handler: Handler[Any],
        command: Command,
        facts: Mapping[str, Any],
        denied: Refusal | None,
        homes: tuple[tuple[Digest, str], ...],
    ) -> tuple[Receipt, tuple[Effect, ...]] | None:
        """One pass under the lock; None when the facts no longer fit."""
        known = transaction.receipt(command.id)
        if known is not None:
            return _stored(known, command, self.session.actor), ()
        docs = load(transaction, handler, command)
        self._at("locked")
        session = self.session
        context = Context(
            actor=session.actor,
            now=self._clock.now(),
            person=session.kind == "person",
            claimed=session.claimed,
            credential=session.credential,
            groups=session.groups,
            started_by=session.started_by,
            facts=facts,
        )
        if denied is None and handler.stale(docs, command, context):
            return None
        outcome = denied or handler.decide(docs, command, context)
        self._at("decided")
        decision = _journaled(command, outcome) if isinstance(outcome, Refusal) else outcome
        refusal = outcome if isinstance(outcome, Refusal) else None
        commit, receipt = assemble(transaction, command, decision, refusal, context)
        transaction.commit(commit if refusal is not None else commit._replace(homes=homes))
        return receipt, decision.effects

    def _effect(self, receipt: Receipt, effects: tuple[Effect, ...]) -> Receipt:
        self._at("committed")
        if not effects:
            return receipt
        subjects = sorted({effect.subject for effect in effects})
        done = [self._carry_out(subject) for subject in subjects]
        self._at("effected")
        return msgspec.structs.replace(receipt, effects="done" if all(done) else "pending")


def load(transaction: Transaction, handler: Handler[Any], command: Command) -> Docs:
    """Read what the command needs, under the lock."""
    return gather(
        handler.needs,
        command,
        lambda ref: _read(transaction, ref),
        lambda refs: transaction.expect(_single(refs)),
    )


def gather(
    needs: Callable[[Any, Docs], Iterable[DocRef]],
    command: Command | Query,
    read: Callable[[DocRef], Any],
    expect: Callable[[Iterable[DocRef]], None] = lambda refs: None,
) -> Docs:
    """The documents a command needs; asked again until it names nothing new. `expect` is told each round first."""
    docs = Docs({})
    while missing := [ref for ref in needs(command, docs) if not docs.has(ref)]:
        expect(missing)
        docs = docs.with_({ref: read(ref) for ref in missing})
    return docs


def _single(refs: Iterable[DocRef]) -> list[DocRef]:
    return [ref for ref in refs if not ref.key.endswith("*")]


def _read(transaction: Transaction, ref: DocRef) -> Any:
    kind = KIND_BY_NAME[ref.kind]
    if ref.key.endswith("*"):
        found = transaction.documents(ref.kind, ref.key[:-1])
        return tuple(read_body(kind, document) for document in found)
    one = transaction.document(ref.kind, ref.key)
    return None if one is None else read_body(kind, one, again=True)


def body_of(journal: Journal, kind: DocumentKind[D], key: str) -> D | None:
    """The body of one document as it stands, or None; of those that commands and whoever watches come back to.

    Raises:
        DocumentUnreadable: as `read_body` does.
    """
    stored = journal.document(kind.name, key)
    return None if stored is None else read_body(kind, stored, again=True)


def tier_of(journal: Journal, model: str) -> Tier | None:
    """The tier of a model by its full name; None when nobody declared it."""
    known = body_of(journal, MODEL, model)
    return None if known is None else known.tier


def read_body(kind: DocumentKind[D], stored: StoredDocument, *, again: bool = False) -> D:
    """The body of a stored document.

    Args:
        again: it will be read again soon, as what commands need is. Whoever looks through many leaves it away: they
            would push out what others come back to.

    Raises:
        DocumentUnreadable: the bytes are no such document; somebody changed them.
    """
    try:
        if again and len(stored.body) <= _MAX_DECODED_BYTES:
            decoded: D = _decoded(stored.body, kind)
            return decoded
        return msgspec.json.decode(stored.body, type=kind.type)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise DocumentUnreadable(
            f"document {stored.kind} {stored.key} cannot be read: {error}",
            remedy="lockgate audit verify",
            kind=stored.kind,
            key=stored.key,
        ) from error


@functools.lru_cache(maxsize=256)
def _decoded(body: bytes, kind: DocumentKind[Any]) -> Any:
    """Bodies are frozen, and one command reads a dozen that the one before has read as well."""
    return msgspec.json.decode(body, type=kind.type)


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept under a command id: the receipt, the command it belongs to, and who gave it."""

    actor: str
    command: msgspec.Raw
    receipt: Receipt


def _check_id(command_id: str) -> None:
    if not 1 <= len(command_id) <= _MAX_ID_LENGTH:
        raise BadCommandId(
            f"a command id has 1 to {_MAX_ID_LENGTH} characters, this one {len(command_id)}",
            remedy="send the command with a fresh id",
        )


def _stored(raw: bytes, command: Command, actor: str) -> Receipt:
    stored = msgspec.json.decode(raw, type=_Stored)
    # The same words of another person are another command: an approval must never pass for somebody else's.
    if stored.actor != actor or not _is_same(stored.command, command):
        raise CommandIdReused(
            f"command id {command.id} was used before for another command",
            remedy="send the command with a fresh id",
            command=command.id,
        )
    return stored.receipt


def _is_same(stored: msgspec.Raw, command: Command) -> bool:
    """Compared as values: a field that a later release added, left at its default, changes nothing."""
    try:
        return bool(msgspec.json.decode(stored, type=type(command)) == command)
    except msgspec.MsgspecError:
        return False


def _journaled(command: Command, refusal: Refusal) -> Decision:
    scope = command.scope()
    subject = "/".join(part for part in (scope.environment, scope.namespace, scope.model) if part)
    refused = CommandRefused(command=tag_of(type(command)), subject=subject, reasons=refusal.reasons)
    return Decision((refused,))


def assemble(
    transaction: Transaction,
    command: Command,
    decision: Decision,
    refusal: Refusal | None,
    context: Context,
) -> tuple[Commit, Receipt]:
    """Everything one command writes: chained entries, folded documents, edges, effects, its receipt."""
    folded = Folded(transaction.document)
    touched = [
        (begins, (kind.name, key))
        for event in decision.events
        for kind, _, begins in _folds_of(type(event))
        for key in kind.keys(event)
    ]
    transaction.expect([one for begins, one in touched if begins], new=True)
    transaction.expect([one for _, one in touched])
    head, entries, events = _chained(transaction.head(), decision, context, command.id, folded)
    receipt = Receipt(
        command_id=command.id,
        head=head.seq,
        # Through JSON, so that the first answer equals the one a retry reads back.
        events=tuple(msgspec.json.decode(canonical(event)) for event in events),
        refusal=refusal,
        effects="pending" if decision.effects else "done",
    )
    kept = _Stored(actor=context.actor, command=msgspec.Raw(canonical(command)), receipt=receipt)
    return _commit(head, entries, folded, decision, command.id, canonical(kept)), receipt


@functools.cache
def _folds_of(event: type[Event]) -> tuple[tuple[DocumentKind[Any], Callable[..., Any], bool], ...]:
    """The kinds of documents that events of a class change, how, and whether a document may begin so."""
    return tuple(
        (kind, fold, event in kind.made_by)
        for kind in KINDS
        if (fold := kind.made_by.get(event) or kind.changed_by.get(event)) is not None
    )


@functools.cache
def _edges_of(event: type[Event]) -> tuple[Callable[[Event], tuple[tuple[str, str, str], ...]], ...]:
    return tuple(kind.edges[event] for kind in KINDS if event in kind.edges)


def assemble_refolded(transaction: Transaction, event: Event, context: Context, folded: Folded) -> Commit:
    """The commit of documents that were folded anew, together with the event that says so."""
    head = transaction.head()
    command_id = f"refold:{head.seq}"
    head, entries, _ = _chained(head, Decision((event,)), context, command_id, folded)
    return _commit(head, entries, folded, Decision((event,)), command_id, b"{}")


def _chained(
    head: Head, decision: Decision, context: Context, command_id: str, folded: Folded
) -> tuple[Head, list[StoredEntry], list[Event]]:
    """The entries of a decision's events, each folded in turn."""
    entries: list[StoredEntry] = []
    # As they will be read: a whole number where a float is declared would fold to other bytes now than then.
    events = [msgspec.json.decode(canonical(event), type=type(event)) for event in decision.events]
    for event in events:
        stamp = Stamp(head.seq + 1, context.now, context.actor, command_id)
        body = entry_bytes(event, stamp)
        head = extend(head, body)
        entries.append(StoredEntry(head.seq, body, head.hash))
        folded.apply(event, stamp)
    return head, entries, events


def _commit(
    head: Head,
    entries: list[StoredEntry],
    folded: Folded,
    decision: Decision,
    command_id: str,
    receipt: bytes,
) -> Commit:
    return Commit(
        head=head,
        entries=tuple(entries),
        documents=folded.changed(),
        edges=tuple(folded.edges),
        effects=tuple((effect.subject, effect.fence, canonical(effect)) for effect in decision.effects),
        command_id=command_id,
        receipt=receipt,
    )


def entry_bytes(event: Event, stamp: Stamp) -> bytes:
    """The bytes of an entry, made once; they are stored and hashed as they are here."""
    return canonical(
        Entry(
            seq=stamp.seq,
            at=stamp.at,
            actor=stamp.actor,
            command_id=stamp.command_id,
            event=msgspec.Raw(canonical(event)),
        )
    )


class _Way(NamedTuple):
    """What events of a class do to the documents of a kind."""

    kind: DocumentKind[Any]
    known: dict[str, tuple[Any, int]]
    keys: Callable[[Event], tuple[str, ...]]
    fold: Callable[[Any, Event, Stamp], Any]
    begins: bool


class _Ways(NamedTuple):
    documents: tuple[_Way, ...]
    edges: tuple[Callable[[Event], tuple[tuple[str, str, str], ...]], ...]


class Folded:
    """Documents as events change them: read once, folded in memory, given back as what is to be stored.

    Args:
        read: the stored document of a kind and key; without it all are made from nothing.
    """

    def __init__(self, read: Callable[[str, str], StoredDocument | None] | None = None) -> None:
        self._read = read
        self._known: dict[str, dict[str, tuple[Any, int]]] = {kind.name: {} for kind in KINDS}
        self._ways: dict[type[Event], _Ways] = {}
        self.edges: list[Edge] = []

    def apply(self, event: Event, stamp: Stamp) -> None:
        documents, edges = self._ways.get(type(event)) or self._look_up(type(event))
        for kind, known, keys, fold, begins in documents:
            for key in keys(event):
                body, rev = known.get(key) or self._before(kind, key)
                if body is None and not begins:
                    raise AssertionError(f"there is no {kind.name} {key} yet")
                # Kept only when the fold succeeds: an altered entry may not fit what came before it.
                known[key] = fold(body, event, stamp), rev + 1
        for added_by in edges:
            self.edges += map(_EDGE, added_by(event))

    def _look_up(self, event: type[Event]) -> _Ways:
        """Once for each class of events: over a long journal, asking every kind again would be most of the work."""
        documents = (
            _Way(kind, self._known[kind.name], kind.keys, fold, begins)
            for kind, fold, begins in _folds_of(event)
        )
        found = self._ways[event] = _Ways(tuple(documents), _edges_of(event))
        return found

    def get(self, kind: DocumentKind[D], key: str) -> D | None:
        """The body of a document, of those that were folded here."""
        known = self._known[kind.name].get(key)
        return None if known is None else known[0]

    def all(self, kind: DocumentKind[D], prefix: str) -> tuple[D, ...]:
        known = self._known[kind.name]
        return tuple(known[key][0] for key in sorted(known) if key.startswith(prefix))

    def _before(self, kind: DocumentKind[Any], key: str) -> tuple[Any, int]:
        stored = self._read(kind.name, key) if self._read else None
        return _NOTHING if stored is None else (read_body(kind, stored, again=True), stored.rev)

    def changed(self) -> tuple[StoredDocument, ...]:
        return tuple(
            StoredDocument(kind.name, key, rev, kind.fold_version, _ENCODE(body), *kind.columns(body))
            for kind in KINDS
            for key, (body, rev) in self._known[kind.name].items()
        )

    def compare(self, kind: DocumentKind[Any], stored: Iterable[StoredDocument]) -> Iterator[tuple[str, str]]:
        """How stored documents of a kind differ from those folded here: `(key, what is the matter)`."""
        known, version, columns = dict(self._known[kind.name]), kind.fold_version, kind.columns
        for one in stored:
            folded = known.pop(one[1], None)
            if folded is None:
                yield one.key, "has no events behind it"
                continue
            body, rev = folded
            if one[2:] != (rev, version, _ENCODE(body), *columns(body)):
                yield one.key, "is not what its events make of it"
        for key in known:
            yield key, "is missing"


def require(receipt: Receipt) -> Receipt:
    """For callers inside the program that cannot be refused: a refusal here is a bug."""
    if receipt.refusal is not None:
        raise Bug(
            f"an internal command was refused: {receipt.refusal.reasons[0].message}",
            remedy="report this with the output of: lockgate audit log",
        )
    return receipt


def iter_entries(journal: Journal, after: int = 0, *, page: int = 1000) -> Iterable[StoredEntry]:
    """All entries after `after`, page by page."""
    while batch := journal.entries(after, page):
        yield from batch
        after = batch[-1].seq
