"""What every message must declare, checked over the whole table; and who may send which."""

from __future__ import annotations

import re
from typing import Any, Union

import msgspec
import pytest
from msgspec import inspect as shape

from lockgate.access.roles import PEOPLES_ROLES, ROLES, Grant, everywhere
from lockgate.core.digests import canonical
from lockgate.core.documents import DocumentKind
from lockgate.core.messages import Command, Effect, Event, Query, Scope, Stamp, tag_of
from lockgate.delivery.messages import CapturesErased
from lockgate.governance.messages import ApproveVersion
from lockgate.hub.authority import Session, embedded, may
from lockgate.hub.kernel import Folded
from lockgate.hub.messages import CommandRefused, DocumentsRefolded, Status, WhoAmI
from lockgate.hub.questions import _ANSWERS, _LIMITED
from lockgate.hub.table import COMMANDS, EVENTS, HANDLERS, KINDS, QUERIES, UPCASTS
from lockgate.registry.messages import BlobsSwept

ROOMS = (
    "access",
    "data",
    "pipeline",
    "registry",
    "gates",
    "governance",
    "delivery",
    "hub",
    "features",
    "monitoring",
)
PERMISSIONS = frozenset(permission for permissions in ROLES.values() for permission in permissions)
MESSAGES: tuple[Any, ...] = (*COMMANDS, *QUERIES)


def of_the_program(base: type[Any]) -> set[type[Any]]:
    found = set()
    for each in base.__subclasses__():
        found |= {each} if each.__module__.startswith("lockgate.") else set()
        found |= of_the_program(each)
    return found


def sample(kind: type[Any]) -> Any:
    """A message of a class, every field filled with something small."""
    return msgspec.convert(_value(shape.type_info(kind)), kind)


def _value(info: shape.Type) -> Any:
    match info:
        case shape.StructType():
            fields = {field.encode_name: _value(field.type) for field in info.fields}
            return {**fields, **({info.tag_field: info.tag} if info.tag_field else {})}
        case shape.LiteralType():
            return info.values[0]
        case shape.VarTupleType() | shape.ListType():
            return [_value(info.item_type)]
        case shape.DictType():
            return {_value(info.key_type): _value(info.value_type)}
        case shape.UnionType():
            return _value(info.types[0])
        case shape.BoolType():
            return True
        case shape.IntType():
            return 3
        case shape.FloatType():
            return 0.5
        case shape.NoneType():
            return None
        case _:
            return "main/x@1.0.0"


def test_a_message_that_is_written_is_in_the_table() -> None:
    assert of_the_program(Command) == set(COMMANDS)
    assert of_the_program(Query) == set(QUERIES)
    assert of_the_program(Event) == set(EVENTS)
    assert len(HANDLERS) == len(COMMANDS)


def test_no_tag_is_used_twice() -> None:
    tags = [tag_of(each) for each in (*MESSAGES, *EVENTS, *of_the_program(Effect))]
    assert len(tags) == len(set(tags))
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    assert len({kind.type for kind in KINDS}) == len(KINDS)


@pytest.mark.parametrize("message", MESSAGES, ids=tag_of)
def test_a_message_declares_its_tag_permission_and_scope(message: type[Any]) -> None:
    room = message.__module__.split(".")[1]
    assert re.fullmatch(rf"{room}\.[a-z]+(-[a-z]+)*", tag_of(message))
    assert room in ROOMS
    assert message.permission in PERMISSIONS or message is WhoAmI
    assert isinstance(sample(message).scope(), Scope)
    assert message.__struct_config__.frozen
    assert message.__struct_config__.forbid_unknown_fields


@pytest.mark.parametrize("command", COMMANDS, ids=tag_of)
def test_a_command_is_an_order(command: type[Command]) -> None:
    first = re.findall(r"[A-Z][a-z]+", command.__name__)[0]
    assert not first.endswith("ed")
    assert command.__doc__
    assert "actor" not in command.__struct_fields__


@pytest.mark.parametrize("query", QUERIES, ids=tag_of)
def test_a_query_has_an_answer_of_its_own_that_travels(query: type[Query]) -> None:
    assert isinstance(query.answer, type)
    assert issubclass(query.answer, msgspec.Struct)
    answer = sample(query.answer)
    assert msgspec.json.decode(canonical(answer), type=query.answer) == answer


def test_every_query_is_answered() -> None:
    # Who somebody is, the session says.
    assert {*_ANSWERS, *_LIMITED, WhoAmI} == set(QUERIES)


@pytest.mark.parametrize("event", EVENTS, ids=tag_of)
def test_an_event_is_a_fact_of_the_past_in_one_line(event: type[Event]) -> None:
    room = event.__module__.split(".")[1]
    assert re.fullmatch(rf"{room}\.[a-z]+(-[a-z]+)*/[1-9][0-9]*", tag_of(event))
    words = re.findall(r"[A-Z][a-z]+", event.__name__)
    assert any(
        word.endswith("ed") or word in {"Taken", "Kept", "Broken", "Went", "Held", "Swept", "Written"}
        for word in words
    )
    assert not {"Updated", "Changed", "Modified", "Saved"} & set(words)
    summary = sample(event).summary()
    assert summary.strip() == summary
    assert summary
    assert "\n" not in summary


@pytest.mark.parametrize("message", [*MESSAGES, *EVENTS], ids=tag_of)
def test_a_message_travels_under_its_tag(message: type[Any]) -> None:
    one = sample(message)
    data = canonical(one)
    assert msgspec.json.decode(data, type=message) == one
    assert canonical(msgspec.json.decode(data, type=message)) == data


def test_one_union_reads_every_event() -> None:
    decoder = msgspec.json.Decoder(Union[EVENTS])  # noqa: UP007
    for event in EVENTS:
        assert type(decoder.decode(canonical(sample(event)))) is event


FOLDED: dict[str, str] = {
    "access.role-granted/1": "subject",
    "access.grant-confirmed/1": "subject",
    "access.role-revoked/1": "subject",
    "access.service-account-created/1": "subject",
    "access.token-issued/1": "subject token",
    "access.token-exchanged/1": "",
    "access.token-exchanged/2": "token",
    "access.alias-named/1": "alias",
    "access.alias-removed/1": "alias",
    "access.token-revoked/1": "subject token",
    "access.federation-rule-added/1": "subject federation-rule",
    "access.federation-rule-removed/1": "subject federation-rule",
    "access.first-admin-named/1": "subject",
    "data.snapshot-taken/1": "dataset snapshot",
    "data.contract-kept/1": "snapshot",
    "data.contract-broken/1": "snapshot",
    "data.snapshot-erased/1": "snapshot",
    "features.views-materialized/1": "materialization",
    "pipeline.run-finished/1": "run",
    "registry.model-declared/1": "",
    "registry.model-declared/2": "model",
    "registry.lowering-proposed/1": "lowering",
    "registry.lowering-agreed/1": "lowering",
    "registry.package-imported/1": "import",
    "registry.version-registered/1": "",
    "registry.version-registered/2": "model version claim",
    "registry.makers-named/1": "version",
    "registry.version-traced/1": "trace",
    "registry.attestation-attached/1": "attestation",
    "registry.version-validated/1": "version",
    "registry.version-rejected/1": "version",
    "registry.version-quarantined/1": "version",
    "registry.quarantine-lifted/1": "version",
    "registry.version-retired/1": "version",
    "registry.version-signed/1": "version",
    "registry.key-revoked/1": "key",
    "registry.version-held/1": "version",
    "registry.hold-lifted/1": "version",
    "registry.package-collected/1": "version",
    "registry.blobs-swept/1": "",
    "gates.judging-started/1": "judging",
    "gates.evidence-recorded/1": "",
    "gates.evidence-recorded/2": "",
    "gates.evidence-recorded/3": "evidence",
    "governance.policy-adopted/1": "",
    "governance.policy-adopted/2": "policy",
    "governance.policy-proposed/1": "policy-proposal",
    "governance.version-approved/1": "",
    "governance.version-approved/2": "approval",
    "governance.approval-revoked/1": "approval",
    "governance.version-declined/1": "approval",
    "governance.release-plan-written/1": "release-plan",
    "governance.consumer-signed-off/1": "sign-off",
    "governance.waiver-requested/1": "waiver",
    "governance.waiver-granted/1": "waiver",
    "governance.waiver-ended/1": "waiver",
    "governance.glass-broken/1": "break-glass",
    "governance.break-glass-seconded/1": "break-glass",
    "governance.review-closed/1": "break-glass",
    "delivery.environment-declared/1": "environment",
    "delivery.endpoint-declared/1": "endpoint",
    "delivery.removal-signed-off/1": "endpoint",
    "delivery.endpoint-removed/1": "endpoint release",
    "delivery.release-started/1": "",
    "delivery.release-started/2": "endpoint release",
    "delivery.ticket-confirmed/1": "release",
    "delivery.endpoint-configured/1": "endpoint-settings",
    "delivery.rollout-planned/1": "rollout",
    "delivery.rollout-step-started/1": "endpoint rollout",
    "delivery.rollout-judged/1": "rollout",
    "delivery.rollout-advanced/1": "endpoint rollout",
    "delivery.rollout-paused/1": "endpoint rollout",
    "delivery.rollout-resumed/1": "endpoint rollout",
    "delivery.drill-started/1": "endpoint drill",
    "delivery.drill-finished/1": "drill",
    "delivery.release-went-live/1": "endpoint release",
    "delivery.release-failed/1": "endpoint release",
    "delivery.endpoint-rolled-back/1": "endpoint release",
    "delivery.rollback-confirmed/1": "endpoint",
    "delivery.rollback-failed/1": "endpoint release",
    "delivery.local-rollback-adopted/1": "endpoint release",
    "delivery.local-plan-overruled/1": "endpoint release",
    "delivery.captures-erased/1": "",
    "hub.command-refused/1": "",
    "hub.documents-refolded/1": "",
    "hub.subscription-added/1": "subscription",
    "hub.subscription-removed/1": "subscription",
    "hub.redelivery-requested/1": "subscription",
}
"""What each event touches, written a second time: whoever forgets to declare it loses facts without a sound."""
LINEAGE: dict[str, str] = {
    "pipeline.run-finished/1": "run",
    "registry.package-imported/1": "import",
    "registry.version-registered/2": "version",
    "registry.version-traced/1": "trace",
    "delivery.release-started/2": "endpoint release",
}


@pytest.mark.parametrize("event", EVENTS, ids=tag_of)
def test_every_event_leaves_its_documents(event: type[Event]) -> None:
    """A refusal, the making anew of what there is, and one of an earlier shape, read as one of today's, leave none."""
    begun = {kind.name for kind in KINDS if event in kind.made_by}
    changed = {kind.name for kind in KINDS if event in kind.changed_by}
    assert not begun & changed
    assert begun | changed == set(FOLDED[tag_of(event)].split())
    assert {kind.name for kind in KINDS if event in kind.edges} == set(LINEAGE.get(tag_of(event), "").split())
    assert not (event in UPCASTS and begun | changed)
    traceless = {CommandRefused, DocumentsRefolded, BlobsSwept, CapturesErased}
    assert bool(begun | changed) == (event not in traceless | set(UPCASTS))


@pytest.mark.parametrize("event", EVENTS, ids=tag_of)
def test_what_is_declared_of_an_event_names_something(event: type[Event]) -> None:
    read = UPCASTS.get(event, lambda one: one)(sample(event))
    assert type(read) not in UPCASTS
    for kind in KINDS:
        if type(read) in {*kind.made_by, *kind.changed_by}:
            assert kind.keys(read)
            assert all(key and not key.endswith("*") for key in kind.keys(read))
        for edge in kind.edges[type(read)](read) if type(read) in kind.edges else ():
            assert all(edge)
            assert ":" in edge[0]
            assert ":" in edge[2]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)
def test_a_kind_is_made_and_changed_by_events_of_the_program(kind: DocumentKind[Any]) -> None:
    assert kind.made_by
    assert {*kind.made_by, *kind.changed_by, *kind.edges} <= set(EVENTS)


CHANGES = [event for event in EVENTS if any(event in kind.changed_by for kind in KINDS)]


@pytest.mark.parametrize("event", CHANGES, ids=tag_of)
def test_what_was_never_begun_cannot_change(event: type[Event]) -> None:
    folded = Folded()
    with pytest.raises(AssertionError, match=r"^there is no [a-z-]+ \S+ yet$"):
        folded.apply(sample(event), Stamp(1, 1, "ann", "c1"))
    assert not {one.kind for one in folded.changed()} & {
        kind.name for kind in KINDS if event in kind.changed_by
    }


EVERYBODY = frozenset(ROLES)
APPROVERS = frozenset(role for role in ROLES if role.startswith("approver:"))
PEOPLE = EVERYBODY - {"controller"}
READERS = frozenset({"admin", "auditor", "security"})
REVOKERS = frozenset({"admin", "security"})
MATRIX: dict[str, frozenset[str]] = {
    "access.grant-role": frozenset({"admin"}),
    "access.confirm-grant": frozenset({"admin"}),
    "access.revoke-role": REVOKERS,
    "access.create-service-account": frozenset({"admin"}),
    "access.issue-token": PEOPLE,
    "access.issue-service-token": frozenset({"admin"}),
    "access.give-up-token": PEOPLE,
    "access.revoke-token": REVOKERS,
    "access.add-federation-rule": frozenset({"admin"}),
    "access.remove-federation-rule": REVOKERS,
    "access.name-first-admin": frozenset({"controller"}),
    "access.exchange-token": frozenset({"controller"}),
    "access.note-address": frozenset({"controller"}),
    "access.name-alias": REVOKERS,
    "access.remove-alias": REVOKERS,
    "data.record-snapshot": frozenset({"author", "ci"}),
    "data.record-contract-check": frozenset({"author", "ci"}),
    "data.erase-snapshot": frozenset({"security"}),
    "features.record-materialization": frozenset({"author", "ci"}),
    "pipeline.record-run": frozenset({"author", "ci"}),
    "registry.declare-model": frozenset({"admin"}),
    "registry.register-version": frozenset({"author", "ci"}),
    "registry.name-makers": frozenset({"author", "ci"}),
    "registry.record-import": frozenset({"author", "ci"}),
    "registry.attach-attestation": frozenset({"author", "ci"}),
    "registry.sign-version": frozenset({"author", "ci"}),
    "registry.revoke-key": frozenset({"security"}),
    "registry.reject-version": APPROVERS | {"security"},
    "registry.quarantine-version": frozenset({"incident", "security"}),
    "registry.lift-quarantine": frozenset({"security"}),
    "registry.hold-version": frozenset({"approver:risk", "auditor"}),
    "registry.lift-hold": frozenset({"approver:risk", "auditor"}),
    "registry.collect-package": frozenset({"operator"}),
    "registry.record-sweep": frozenset({"operator"}),
    "gates.start-judging": frozenset({"validator"}),
    "gates.record-evidence": frozenset({"validator"}),
    "governance.adopt-policy": frozenset({"admin"}),
    "governance.validate-version": frozenset({"validator"}),
    "governance.approve-version": frozenset({"approver:owner"}),
    "governance.revoke-approval": frozenset({"approver:owner"}),
    "governance.decline-version": frozenset({"approver:owner"}),
    "governance.consent-to-policy": frozenset({"approver:risk"}),
    "governance.write-release-plan": frozenset({"author", "ci"}),
    "governance.sign-off": frozenset({"approver:product"}),
    "governance.request-waiver": frozenset({"author", "ci"}),
    "governance.grant-waiver": frozenset({"approver:owner"}),
    "governance.end-waiver": frozenset({"approver:owner"}),
    "governance.break-glass": frozenset({"incident"}),
    "governance.second-break-glass": frozenset({"incident"}),
    "governance.close-review": APPROVERS,
    "delivery.declare-environment": frozenset({"admin"}),
    "delivery.declare-endpoint": frozenset({"admin"}),
    "delivery.sign-off-removal": frozenset({"approver:product"}),
    "delivery.remove-endpoint": frozenset({"admin"}),
    "delivery.promote-version": frozenset({"ci", "operator"}),
    "delivery.release-in-emergency": frozenset({"incident"}),
    "delivery.configure-endpoint": frozenset({"admin"}),
    "delivery.adopt-local-plan": frozenset({"controller"}),
    "delivery.confirm-plan": frozenset({"controller"}),
    "delivery.judge-rollout": frozenset({"controller"}),
    "delivery.pause-rollout": frozenset({"ci", "incident", "operator"}),
    "delivery.resume-rollout": frozenset({"ci", "operator"}),
    "delivery.advance-rollout": frozenset({"ci", "operator"}),
    "delivery.start-drill": frozenset({"incident", "operator"}),
    "delivery.finish-drill": frozenset({"controller", "incident", "operator"}),
    "delivery.roll-back-endpoint": frozenset({"incident", "operator"}),
    "delivery.retire-version": frozenset({"operator"}),
    "hub.add-subscription": frozenset({"admin"}),
    "hub.remove-subscription": frozenset({"admin"}),
    "hub.request-redelivery": frozenset({"admin"}),
    "hub.list-subscriptions": frozenset({"admin"}),
    "hub.list-deliveries": frozenset({"admin"}),
    "delivery.erase-captures": frozenset({"security"}),
    "hub.status": EVERYBODY,
    "hub.explain-version": EVERYBODY,
    "hub.list-versions": EVERYBODY,
    "hub.standing": EVERYBODY,
    "hub.version-of-package": EVERYBODY,
    "hub.revoked-keys": EVERYBODY,
    "hub.policy-in-force": EVERYBODY,
    "hub.own-access": PEOPLE,
    "hub.list-access": READERS,
    "hub.lineage": EVERYBODY,
    "hub.find-snapshots": EVERYBODY,
    "hub.impact": EVERYBODY,
    "hub.compile-dossier": EVERYBODY,
    "hub.show-rollout": EVERYBODY,
    "hub.draft-release-plan": EVERYBODY,
    "hub.find-releases": EVERYBODY,
    "hub.queue": EVERYBODY,
    "hub.replay-policy": EVERYBODY,
    "hub.who-am-i": EVERYBODY,
    "hub.changes-since": frozenset({"auditor", "security"}),
    "hub.verify-audit": frozenset({"auditor", "security"}),
    "hub.prove-entry": frozenset({"auditor", "security"}),
    "hub.prove-version": EVERYBODY,
    "hub.prove-consistency": frozenset({"auditor", "security"}),
}
"""Who may send what, written a second time: a change of a role or a permission has to be made here too."""


def test_the_matrix_names_every_message() -> None:
    assert set(MATRIX) == {tag_of(message) for message in MESSAGES}


@pytest.mark.parametrize("role", sorted(ROLES))
@pytest.mark.parametrize("message", MESSAGES, ids=tag_of)
def test_who_may_send_what(message: type[Any], role: str) -> None:
    session = Session(actor="ann", grants=everywhere(frozenset({role})), claimed=False)
    refusal = may(session, sample(message))
    assert (refusal is None) == (role in MATRIX[tag_of(message)])
    if refusal is not None:
        (reason,) = refusal.reasons
        assert reason.rule == "hub.permission"
        assert reason.measured == role
        assert set((reason.limit or "").split(" or ")) == set(MATRIX[tag_of(message)])


def test_who_may_not_is_told_what_an_admin_types() -> None:
    nobody = Session(actor="ann@example.org", grants=(), claimed=False)
    denied = may(nobody, Status())
    assert denied is not None
    assert denied.reasons[0].remedy == "ask an admin: lockgate access grant ann@example.org viewer"
    approval = ApproveVersion(
        id="c", version="main/m@1.0.0", environment="prod", evidence_set="", role="risk"
    )
    denied = may(nobody, approval)
    assert denied is not None
    grant = "lockgate access grant ann@example.org approver:risk --namespace main --env prod"
    assert denied.reasons[0].remedy == f"ask an admin: {grant}"


def test_no_role_of_a_person_is_offered_to_a_machine() -> None:
    robot = Session(actor="service:ci", grants=(), claimed=False, kind="service")
    approval = ApproveVersion(
        id="c", version="main/m@1.0.0", environment="prod", evidence_set="", role="risk"
    )
    denied = may(robot, approval)
    assert denied is not None
    assert "not given to a service account" in (denied.reasons[0].remedy or "")


WORDS = ("owner", "product", "risk", "validation")


IN_A_NAME = tuple(
    message
    for message in MESSAGES
    if sample(message).scope().target in WORDS and "role" in message.__struct_fields__
)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("message", IN_A_NAME, ids=tag_of)
def test_who_may_set_what(message: type[Any], word: str) -> None:
    """Where a message says in whose name it speaks, only the approver of that name may send it."""
    in_the_name = msgspec.structs.replace(sample(message), role=word)
    for role in ROLES:
        session = Session(actor="ann", grants=everywhere({role}), claimed=False)
        assert (may(session, in_the_name) is None) == (role == f"approver:{word}")


def bound(role: str, **bounds: Any) -> Session:
    return Session(actor="ann", grants=(Grant(role=role, **bounds),), claimed=False)


@pytest.mark.parametrize("role", sorted(ROLES))
@pytest.mark.parametrize("message", MESSAGES, ids=tag_of)
def test_a_grant_reaches_as_far_as_it_was_given(message: type[Any], role: str) -> None:
    """Over its namespace, its tiers, its environments; what concerns everything takes one over everything."""
    asked = sample(message)
    scope, allowed = asked.scope(), role in MATRIX[tag_of(message)]
    of_all = not scope.within and not scope.namespace
    namespace = scope.namespace or "main"
    assert (may(bound(role, namespace=namespace), asked) is None) == (allowed and not of_all)
    assert (may(bound(role, namespace="elsewhere"), asked) is None) == (allowed and scope.within)
    by_tier = allowed and (scope.within or not (scope.model or scope.whole))
    assert (may(bound(role, tiers=("low",)), asked, "high") is None) == by_tier
    assert (may(bound(role, tiers=("low",)), asked, None) is None) == by_tier
    assert (may(bound(role, tiers=("low",)), asked, "low") is None) == (allowed and not scope.whole)
    by_environment = allowed and (scope.within or not (scope.environment or scope.whole))
    assert (may(bound(role, environments=("nowhere",)), asked) is None) == by_environment
    here = (scope.environment,) if scope.environment else ("dev",)
    assert (may(bound(role, environments=here), asked) is None) == (allowed and not scope.whole)


def test_what_concerns_every_tier_and_environment() -> None:
    whole = {tag_of(message) for message in MESSAGES if sample(message).scope().whole}
    assert whole == {"governance.consent-to-policy", "registry.revoke-key"}


CONFINED = {
    "access.issue-token",
    "access.give-up-token",
    "hub.status",
    "hub.changes-since",
    "hub.verify-audit",
    "hub.prove-entry",
    "hub.prove-consistency",
    "hub.lineage",
    "hub.find-snapshots",
    "hub.impact",
    "hub.own-access",
    "hub.find-releases",
    "hub.queue",
    "hub.replay-policy",
    "hub.who-am-i",
    "hub.list-access",
    "hub.revoked-keys",
}
"""Messages that a grant over any part lets in; each cuts what it does or tells to that part by itself."""


def test_what_lets_in_a_grant_over_a_part_is_known_by_name() -> None:
    emptied = {tag_of(message): sample(message) for message in MESSAGES}
    emptied["hub.status"] = Status()
    assert {tag for tag, message in emptied.items() if message.scope().within} == CONFINED


@pytest.mark.parametrize("message", MESSAGES, ids=tag_of)
def test_without_a_role_nothing_is_allowed(message: type[Any]) -> None:
    for roles in (frozenset[str](), frozenset({"boss"})):
        session = Session(actor="ann", grants=everywhere(roles), claimed=False)
        assert (may(session, sample(message)) is None) == (message is WhoAmI)


@pytest.mark.parametrize("message", MESSAGES, ids=tag_of)
def test_roles_add_up(message: type[Any]) -> None:
    both = Session(actor="ann", grants=everywhere(frozenset({"viewer", "security"})), claimed=False)
    assert (may(both, sample(message)) is None) == bool({"viewer", "security"} & MATRIX[tag_of(message)])


def test_embedded_sessions_may_everything_that_people_do_and_say_that_nobody_proved_it() -> None:
    session = embedded("ann")
    assert session.claimed
    assert session.roles == PEOPLES_ROLES == EVERYBODY - {"controller"}
    refused = {tag_of(message) for message in MESSAGES if may(session, sample(message)) is not None}
    assert refused == {tag for tag, roles in MATRIX.items() if roles == frozenset({"controller"})}
    assert refused == {
        "delivery.adopt-local-plan",
        "delivery.confirm-plan",
        "delivery.judge-rollout",
        "access.name-first-admin",
        "access.exchange-token",
        "access.note-address",
    }


def test_a_controller_can_confirm_but_neither_approve_nor_judge() -> None:
    session = Session(actor="controller", grants=everywhere(frozenset({"controller"})), claimed=False)
    allowed = {tag_of(message) for message in MESSAGES if may(session, sample(message)) is None}
    assert "delivery.confirm-plan" in allowed
    assert not {tag for tag in allowed if tag.startswith(("governance.", "gates.", "data."))}
    assert not {"registry.register-version", "registry.declare-model", "registry.lift-quarantine"} & allowed


def test_no_single_role_gets_a_version_from_training_to_production() -> None:
    way = {"registry.register-version", "gates.record-evidence", "governance.approve-version"}
    for role in ROLES:
        assert len([tag for tag in way if role in MATRIX[tag]]) <= 1
