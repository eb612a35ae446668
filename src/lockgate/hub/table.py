"""The table of messages: for each command what it needs, who decides it; all events and document kinds.

Everything that carries messages (the kernel, the HTTP routes, the docs, the tests) reads this table; a message
that is not in it does not exist.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from lockgate.access import aliases
from lockgate.access import decide as access
from lockgate.access import messages as access_messages
from lockgate.access.state import ALIAS, FEDERATION, SUBJECT, TOKEN
from lockgate.core.documents import DocRef, Docs, DocumentKind
from lockgate.core.messages import Command, Context, Decision, Event, Query, Refusal, tag_of
from lockgate.data import decide as data
from lockgate.data import messages as data_messages
from lockgate.data.state import DATASET, SNAPSHOT
from lockgate.delivery import advance, declare, drill, standing, way_back
from lockgate.delivery import decide as delivery
from lockgate.delivery import messages as delivery_messages
from lockgate.delivery.state import DRILL, ENDPOINT, ENVIRONMENT, RELEASE, ROLLOUT, SETTINGS
from lockgate.features import decide as features
from lockgate.features import messages as features_messages
from lockgate.features.state import MATERIALIZATION
from lockgate.gates import decide as gates
from lockgate.gates import messages as gates_messages
from lockgate.gates.state import EVIDENCE, JUDGING
from lockgate.governance import break_glass, waivers
from lockgate.governance import decide as governance
from lockgate.governance import messages as governance_messages
from lockgate.governance.state import (
    APPROVAL,
    BREAK_GLASS,
    POLICY,
    PROPOSAL,
    RELEASE_PLAN,
    SIGN_OFF,
    WAIVER,
)
from lockgate.hub import messages as hub_messages
from lockgate.hub.telling import subscriptions
from lockgate.pipeline import decide as pipeline
from lockgate.pipeline import messages as pipeline_messages
from lockgate.pipeline.state import RUN
from lockgate.registry import decide as registry
from lockgate.registry import messages as registry_messages
from lockgate.registry import trust
from lockgate.registry.state import ATTESTATION, CLAIM, IMPORT, KEY, LOWERING, MODEL, TRACE, VERSION

C = TypeVar("C", bound=Command)


@dataclass(frozen=True)
class Handler(Generic[C]):
    """How one command is decided.

    `needs` is asked again with what has been loaded so far until it names nothing new. `stale` says that facts
    made before the lock no longer fit the documents; the kernel then makes them anew. `looks_outside` says that
    facts are made from what lies outside the journal, which takes time and may have gone: then a command that was
    carried out before is recognised before anybody looks.
    """

    command: type[C]
    needs: Callable[[C, Docs], tuple[DocRef, ...]]
    decide: Callable[[Docs, C, Context], Decision | Refusal]
    stale: Callable[[Docs, C, Context], bool] = lambda docs, command, context: False
    looks_outside: bool = False


HANDLERS: tuple[Handler[Any], ...] = (
    Handler(access_messages.GrantRole, access.needs_grant, access.grant_role),
    Handler(access_messages.ConfirmGrant, access.needs_grant, access.confirm_grant),
    Handler(access_messages.RevokeRole, access.needs_grant, access.revoke_role),
    Handler(access_messages.CreateServiceAccount, access.needs_account, access.create_service_account),
    Handler(access_messages.IssueToken, access.needs_issue, access.issue_token),
    Handler(access_messages.IssueServiceToken, access.needs_issue, access.issue_service_token),
    Handler(access_messages.GiveUpToken, access.needs_token, access.give_up_token),
    Handler(access_messages.RevokeToken, access.needs_token, access.revoke_token),
    Handler(access_messages.AddFederationRule, access.needs_rule, access.add_federation_rule),
    Handler(access_messages.RemoveFederationRule, access.needs_rule, access.remove_federation_rule),
    Handler(access_messages.NameFirstAdmin, access.needs_first_admin, access.name_first_admin),
    Handler(access_messages.ExchangeToken, access.needs_exchange, access.exchange_token),
    Handler(access_messages.NameAlias, aliases.needs_alias, aliases.name_alias),
    Handler(access_messages.NoteAddress, aliases.needs_alias, aliases.name_alias),
    Handler(access_messages.RemoveAlias, aliases.needs_alias, aliases.remove_alias),
    Handler(data_messages.RecordSnapshot, data.needs_snapshot, data.record_snapshot),
    Handler(data_messages.RecordContractCheck, data.needs_contract_check, data.record_contract_check),
    Handler(data_messages.EraseSnapshot, pipeline.needs_erase, pipeline.erase_snapshot),
    Handler(
        features_messages.RecordMaterialization,
        features.needs_materialization,
        features.record_materialization,
    ),
    Handler(pipeline_messages.RecordRun, pipeline.needs_run, pipeline.record_run),
    Handler(registry_messages.DeclareModel, registry.needs_model, registry.declare_model),
    Handler(registry_messages.RecordImport, registry.needs_import, registry.record_import),
    Handler(
        registry_messages.RegisterVersion,
        pipeline.needs_register,
        pipeline.register_version,
        registry.facts_are_stale,
        looks_outside=True,
    ),
    Handler(registry_messages.NameMakers, registry.needs_version, registry.name_makers),
    Handler(
        registry_messages.AttachAttestation,
        registry.needs_attach,
        registry.attach_attestation,
        looks_outside=True,
    ),
    Handler(registry_messages.RejectVersion, way_back.needs_everywhere, way_back.reject_version),
    Handler(registry_messages.QuarantineVersion, way_back.needs_everywhere, way_back.quarantine_version),
    Handler(registry_messages.LiftQuarantine, governance.needs_lift, governance.lift_quarantine),
    Handler(
        registry_messages.SignVersion,
        trust.needs_sign,
        trust.sign_version,
        trust.signing_is_stale,
        looks_outside=True,
    ),
    Handler(registry_messages.RevokeKey, trust.needs_revoke, trust.revoke_key),
    Handler(registry_messages.HoldVersion, registry.needs_version, registry.hold_version),
    Handler(registry_messages.LiftHold, registry.needs_version, registry.lift_hold),
    Handler(registry_messages.CollectPackage, way_back.needs_collect, way_back.collect_package),
    Handler(registry_messages.RecordSweep, registry.needs_nothing, registry.record_sweep),
    Handler(gates_messages.StartJudging, gates.needs_judging, gates.start_judging),
    Handler(gates_messages.RecordEvidence, gates.needs_evidence, gates.record_evidence, looks_outside=True),
    Handler(governance_messages.AdoptPolicy, governance.needs_policy, governance.adopt_policy),
    Handler(governance_messages.ConsentToPolicy, governance.needs_policy, governance.consent_to_policy),
    Handler(governance_messages.ValidateVersion, governance.needs_validate, governance.validate_version),
    Handler(governance_messages.ApproveVersion, delivery.needs_approval, delivery.approve_version),
    Handler(governance_messages.RevokeApproval, governance.needs_approve, governance.revoke_approval),
    Handler(governance_messages.DeclineVersion, governance.needs_approve, governance.decline_version),
    Handler(governance_messages.WriteReleasePlan, delivery.needs_written, delivery.write_release_plan),
    Handler(governance_messages.SignOff, delivery.needs_written, delivery.sign_off),
    Handler(governance_messages.RequestWaiver, waivers.needs_waiver, waivers.request_waiver),
    Handler(governance_messages.GrantWaiver, waivers.needs_waiver, waivers.grant_waiver),
    Handler(governance_messages.EndWaiver, waivers.needs_waiver, waivers.end_waiver),
    Handler(governance_messages.BreakGlass, break_glass.needs_break_glass, break_glass.break_glass),
    Handler(
        governance_messages.SecondBreakGlass, break_glass.needs_break_glass, break_glass.second_break_glass
    ),
    Handler(governance_messages.CloseReview, delivery.needs_review, delivery.close_review),
    Handler(delivery_messages.DeclareEnvironment, declare.needs_environment, declare.declare_environment),
    Handler(delivery_messages.DeclareEndpoint, declare.needs_endpoint, declare.declare_endpoint),
    Handler(
        delivery_messages.PromoteVersion,
        standing.needs_promote,
        delivery.promote_version,
        delivery.promotion_is_stale,
        looks_outside=True,
    ),
    Handler(delivery_messages.SignOffRemoval, way_back.needs_removal, way_back.sign_off_removal),
    Handler(delivery_messages.RemoveEndpoint, way_back.needs_removal, way_back.remove_endpoint),
    Handler(
        delivery_messages.ReleaseInEmergency,
        delivery.needs_emergency,
        delivery.release_in_emergency,
        delivery.promotion_is_stale,
        looks_outside=True,
    ),
    Handler(delivery_messages.ConfigureEndpoint, declare.needs_configure, declare.configure_endpoint),
    Handler(delivery_messages.ConfirmPlan, advance.needs_rollout, delivery.confirm_plan),
    Handler(delivery_messages.JudgeRollout, advance.needs_rollout, advance.judge_rollout),
    Handler(delivery_messages.PauseRollout, advance.needs_rollout, advance.pause_rollout),
    Handler(delivery_messages.ResumeRollout, advance.needs_rollout, advance.resume_rollout),
    Handler(delivery_messages.AdvanceRollout, delivery.needs_advance, delivery.move_on),
    Handler(delivery_messages.StartDrill, drill.needs_drill, drill.start_drill),
    Handler(delivery_messages.FinishDrill, drill.needs_drill, drill.finish_drill),
    Handler(delivery_messages.RollBackEndpoint, way_back.needs_rollback, way_back.roll_back_endpoint),
    Handler(delivery_messages.AdoptLocalPlan, way_back.needs_adoption, way_back.adopt_local_plan),
    Handler(delivery_messages.EraseCaptures, way_back.needs_erase_captures, way_back.erase_captures),
    Handler(delivery_messages.RetireVersion, way_back.needs_everywhere, way_back.retire_version),
    Handler(subscriptions.AddSubscription, subscriptions.needs_subscription, subscriptions.add_subscription),
    Handler(
        subscriptions.RemoveSubscription, subscriptions.needs_subscription, subscriptions.remove_subscription
    ),
    Handler(
        subscriptions.RequestRedelivery, subscriptions.needs_subscription, subscriptions.request_redelivery
    ),
)

COMMANDS: dict[type[Command], Handler[Any]] = {handler.command: handler for handler in HANDLERS}

QUERIES: tuple[type[Query], ...] = (
    hub_messages.Status,
    hub_messages.ExplainVersion,
    hub_messages.ListVersions,
    hub_messages.Standing,
    hub_messages.VersionOfPackage,
    hub_messages.RevokedKeys,
    hub_messages.PolicyInForce,
    hub_messages.OwnAccess,
    hub_messages.ListAccess,
    hub_messages.ChangesSince,
    hub_messages.VerifyAudit,
    hub_messages.ProveEntry,
    hub_messages.ProveVersion,
    hub_messages.ProveConsistency,
    hub_messages.Lineage,
    hub_messages.FindSnapshots,
    hub_messages.Impact,
    hub_messages.CompileDossier,
    hub_messages.ShowRollout,
    hub_messages.DraftReleasePlan,
    hub_messages.FindReleases,
    hub_messages.Queue,
    hub_messages.ReplayPolicy,
    hub_messages.WhoAmI,
    subscriptions.ListSubscriptions,
    subscriptions.ListDeliveries,
)

EVENTS: tuple[type[Event], ...] = (
    access_messages.RoleGranted,
    access_messages.GrantConfirmed,
    access_messages.RoleRevoked,
    access_messages.ServiceAccountCreated,
    access_messages.TokenIssued,
    access_messages.TokenExchanged1,
    access_messages.TokenExchanged,
    access_messages.TokenRevoked,
    access_messages.FederationRuleAdded,
    access_messages.FederationRuleRemoved,
    access_messages.FirstAdminNamed,
    access_messages.AliasNamed,
    access_messages.AliasRemoved,
    data_messages.SnapshotTaken,
    data_messages.ContractKept,
    data_messages.ContractBroken,
    data_messages.SnapshotErased,
    features_messages.ViewsMaterialized,
    pipeline_messages.RunFinished,
    registry_messages.ModelDeclared1,
    registry_messages.ModelDeclared,
    registry_messages.LoweringProposed,
    registry_messages.LoweringAgreed,
    registry_messages.PackageImported,
    registry_messages.VersionRegistered1,
    registry_messages.VersionRegistered,
    registry_messages.MakersNamed,
    registry_messages.VersionTraced,
    registry_messages.AttestationAttached,
    registry_messages.VersionValidated,
    registry_messages.VersionRejected,
    registry_messages.VersionQuarantined,
    registry_messages.QuarantineLifted,
    registry_messages.VersionRetired,
    registry_messages.VersionSigned,
    registry_messages.KeyRevoked,
    registry_messages.VersionHeld,
    registry_messages.HoldLifted,
    registry_messages.PackageCollected,
    registry_messages.BlobsSwept,
    gates_messages.JudgingStarted,
    gates_messages.EvidenceRecorded1,
    gates_messages.EvidenceRecorded2,
    gates_messages.EvidenceRecorded,
    governance_messages.PolicyAdopted1,
    governance_messages.PolicyAdopted,
    governance_messages.PolicyProposed,
    governance_messages.VersionApproved1,
    governance_messages.VersionApproved,
    governance_messages.ApprovalRevoked,
    governance_messages.VersionDeclined,
    governance_messages.ReleasePlanWritten,
    governance_messages.ConsumerSignedOff,
    governance_messages.WaiverRequested,
    governance_messages.WaiverGranted,
    governance_messages.WaiverEnded,
    governance_messages.GlassBroken,
    governance_messages.BreakGlassSeconded,
    governance_messages.ReviewClosed,
    delivery_messages.EnvironmentDeclared,
    delivery_messages.EndpointDeclared,
    delivery_messages.RemovalSignedOff,
    delivery_messages.EndpointRemoved,
    delivery_messages.ReleaseStarted1,
    delivery_messages.ReleaseStarted,
    delivery_messages.TicketConfirmed,
    delivery_messages.EndpointConfigured,
    delivery_messages.RolloutPlanned,
    delivery_messages.RolloutStepStarted,
    delivery_messages.RolloutJudged,
    delivery_messages.RolloutAdvanced,
    delivery_messages.RolloutPaused,
    delivery_messages.RolloutResumed,
    delivery_messages.DrillStarted,
    delivery_messages.DrillFinished,
    delivery_messages.ReleaseWentLive,
    delivery_messages.ReleaseFailed,
    delivery_messages.EndpointRolledBack,
    delivery_messages.RollbackConfirmed,
    delivery_messages.RollbackFailed,
    delivery_messages.LocalRollbackAdopted,
    delivery_messages.LocalPlanOverruled,
    delivery_messages.CapturesErased,
    hub_messages.CommandRefused,
    hub_messages.DocumentsRefolded,
    subscriptions.SubscriptionAdded,
    subscriptions.SubscriptionRemoved,
    subscriptions.RedeliveryRequested,
)

KINDS: tuple[DocumentKind[Any], ...] = (
    SUBJECT,
    TOKEN,
    FEDERATION,
    ALIAS,
    DATASET,
    SNAPSHOT,
    MATERIALIZATION,
    RUN,
    MODEL,
    VERSION,
    CLAIM,
    IMPORT,
    ATTESTATION,
    TRACE,
    KEY,
    LOWERING,
    JUDGING,
    EVIDENCE,
    POLICY,
    PROPOSAL,
    APPROVAL,
    RELEASE_PLAN,
    SIGN_OFF,
    WAIVER,
    BREAK_GLASS,
    ENVIRONMENT,
    ENDPOINT,
    RELEASE,
    SETTINGS,
    ROLLOUT,
    DRILL,
    subscriptions.SUBSCRIPTION,
)

KIND_BY_NAME: dict[str, DocumentKind[Any]] = {kind.name: kind for kind in KINDS}
COMMAND_BY_TAG: dict[str, type[Command]] = {tag_of(command): command for command in COMMANDS}
QUERY_BY_TAG: dict[str, type[Query]] = {tag_of(query): query for query in QUERIES}
EVENT_BY_TAG: dict[str, type[Event]] = {tag_of(event): event for event in EVENTS}

UPCASTS: dict[type[Event], Callable[[Any], Event]] = {
    access_messages.TokenExchanged1: access_messages.started_by_nobody,
    registry_messages.ModelDeclared1: registry_messages.without_kpi,
    registry_messages.VersionRegistered1: registry_messages.of_untold_makers,
    gates_messages.EvidenceRecorded1: gates_messages.of_figures,
    gates_messages.EvidenceRecorded2: gates_messages.of_its_record,
    governance_messages.PolicyAdopted1: governance_messages.adopted_of_old,
    governance_messages.VersionApproved1: governance_messages.approved_by_owner,
    delivery_messages.ReleaseStarted1: delivery_messages.started_of_old,
}
"""How an event of an earlier shape is read today; the stored bytes stay as they are."""
