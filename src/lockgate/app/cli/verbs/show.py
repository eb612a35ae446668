"""Verbs that read: status, explain, evidence, lineage."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from lockgate.app.cli.main import REFUSED, WAITING, Exit
from lockgate.app.cli.session import Session, verb
from lockgate.app.plugins import resolve
from lockgate.core.clock import iso
from lockgate.core.digests import Digest, short
from lockgate.core.names import DEFAULT_NAMESPACE, parse_endpoint, parse_version
from lockgate.data.state import SnapshotState
from lockgate.delivery.lines import DrillLine, EndpointLine, LiveLine, Readiness, RolloutLine
from lockgate.delivery.standing import ENDS, StandingAnswer
from lockgate.delivery.state import LocalState
from lockgate.features.state import MaterializedView
from lockgate.gates.messages import EvidenceLine
from lockgate.governance.release_plan import plan_lines
from lockgate.hub.messages import (
    ExplainVersion,
    Impact,
    ImpactAnswer,
    Lineage,
    Standing,
    Status,
    StatusAnswer,
    VersionAnswer,
)
from lockgate.registry.makers import maker_texts
from lockgate.registry.messages import Origin


def when(at: int) -> str:
    """An instant for people, to the second, UTC."""
    return iso(at)[:19].replace("T", " ") + "Z"


@verb
@click.argument("endpoint", required=False)
def status(session: Session, endpoint: str | None) -> None:
    """What runs where, and whether the way back is ready.

    Example: lockgate status prod/flight-delay
    """
    key = str(parse_endpoint(endpoint)) if endpoint else ""
    answer: StatusAnswer = session.ask(Status(endpoint=key))
    ladder = sorted(answer.endpoints.items(), key=lambda one: (one[1].order, one[0]))
    lines = [_endpoint_text(name, line) for name, line in ladder]
    if answer.effects_pending:
        n = answer.effects_pending
        wait = "1 effect waits" if n == 1 else f"{n} effects wait"
        lines.append(f"{wait} to be carried out (lockgate up)")
    session.answer(answer, "\n".join(lines) or "no endpoints yet: lockgate ship")


def _endpoint_text(name: str, line: EndpointLine) -> str:
    if line.removed_at is not None:
        return f"{name:<24} removed {when(line.removed_at)}"
    rows = [f"{name:<24} live     {_live_text(line.live)}"]
    if line.previous:
        rows.append(f"{'':<24} previous {_live_text(line.previous)}")
    if line.astray:
        rows.append(f"{'':<24} NOT AS DECIDED: {line.astray}")
    rows += [f"{'':<24} out of policy: {why}" for why in line.out_of_policy]
    if line.local:
        rows.append(f"{'':<24} {local_text(line.local)}")
    rows += [f"{'':<24} {one}" for one in ready_text(line.rollback_ready)]
    if line.rollout:
        rows.append(f"{'':<24} {rollout_text(line.rollout)}")
    return "\n".join(rows)


def local_text(local: LocalState) -> str:
    """What was done without the hub, in one line."""
    put_back = f"; PUT BACK: {local.put_back}" if local.put_back else ""
    version = parse_version(local.version).shown if "@" in local.version else local.version or "nothing"
    return f"set to {version} at {when(local.hand.at)} {local.hand}{put_back}"


def ready_text(ready: Readiness) -> list[str]:
    """Whether the way back works now, and how it went when it was last walked."""
    rows = ["rollback ready: " + ("yes" if ready.ready else f"no: {ready.reason}")]
    if ready.drill is not None:
        rows.append(drill_text(ready.drill))
    return rows


def drill_text(drill: DrillLine) -> str:
    how = "passed" if drill.passed else "FAILED" + (f" ({drill.interrupted})" if drill.interrupted else "")
    return (
        f"last drill {how} at {when(drill.finished_at)}: {drill.n_flips} flips to "
        f"{parse_version(drill.to_version).shown}, p50 {drill.p50_ms:.1f} ms, p99 {drill.p99_ms:.1f} ms, "
        f"all workers p99 {drill.all_p99_ms:.1f} ms, {drill.n_failed} failed, {drill.n_wrong} mixed"
    )


def rollout_text(line: RolloutLine) -> str:
    """Where a release is, in one line."""
    version = parse_version(line.version).shown
    if not line.n_steps:
        return f"{line.state} {version} since {when(line.started_at)}"
    return (
        f"{line.state} {version}, step {line.step} of {line.n_steps} at {line.weight:g} %"
        + (f", verdict {line.verdict}" if line.verdict else "")
        + (f"; waits for {line.waits_for}" if line.waits_for else "")
    )


def _live_text(line: LiveLine | None) -> str:
    if line is None:
        return "nothing"
    by = f", approved by {', '.join(line.approved_by)}" if line.approved_by else ""
    keys = f"  SIGNED BY REVOKED KEYS ONLY ({', '.join(map(short, line.revoked))})" if line.revoked else ""
    return f"{line.version}  {short(line.digest)}  since {when(line.since)}{by}{keys}"


@verb
@click.argument("ref")
def explain(session: Session, ref: str) -> None:
    """Why a version is what it is: data, code, evidence, approvals, releases.

    REF is ENV/NAME or NAME@VERSION.

    Example: lockgate explain prod/flight-delay
    """
    query = (
        ExplainVersion(version=str(parse_version(ref)))
        if "@" in ref
        else ExplainVersion(endpoint=str(parse_endpoint(ref)))
    )
    answer: VersionAnswer = session.ask(query)
    config = _package_config(session, answer)
    session.answer(_explain_record(answer, config), _explain_text(answer, config))


def _package_config(session: Session, answer: VersionAnswer) -> Any:
    """What the package says of itself; its bytes are verified on the way."""
    return session.package(answer.version.package).config


def _explain_record(answer: VersionAnswer, config: Any) -> dict[str, Any]:
    version = answer.version
    return {
        "version": parse_version(version.version).shown,
        "digest": version.package,
        "state": version.state,
        "code": {
            "commit": version.commit,
            "dirty": version.dirty,
            "closure": config.code,
            "parts": config.closure,
        },
        "environment": config.environment,
        "datasets": [{"dataset": name, "snapshot": digest} for name, digest in config.snapshots.items()],
        "features": [
            {"view": name, "hash": digest, "online": _online(answer, digest)}
            for name, digest in config.views.items()
        ],
        "evidence": [_evidence_record(line) for line in answer.evidence],
        "approvals": [
            {"environment": environment, **msgspec.to_builtins(one)}
            for environment, given in answer.approvals.items()
            for one in given
        ],
        "releases": [msgspec.to_builtins(release) for release in answer.releases],
        "author": version.author,
        "makers": answer.makers,
        "makers_told_since": version.told_since,
        "registered_at": version.registered_at,
        "run": version.run,
        "signed_by": version.signed_by,
        "attestations": msgspec.to_builtins(answer.attestations),
        "tier": answer.model.tier,
        "imported": answer.imported,
        "holds": version.holds,
        "collected_at": version.collected_at,
        "erased": answer.erased,
        "rollback_ready": None if answer.line is None else msgspec.to_builtins(answer.line.rollback_ready),
        "rollout": None if answer.line is None else msgspec.to_builtins(answer.line.rollout),
        "local": None if answer.line is None else msgspec.to_builtins(answer.line.local),
    }


def _online(answer: VersionAnswer, view: Digest) -> list[MaterializedView]:
    """Where a view can be read by key, as far as that is on record."""
    return [one for one in answer.online if one.online.hash == view]


def _online_text(answer: VersionAnswer, view: Digest) -> str:
    return "".join(
        f", in {one.store} to {when(one.until)}: {one.online.n_keys:,} keys" for one in _online(answer, view)
    )


def _evidence_record(line: EvidenceLine) -> dict[str, Any]:
    return {
        "gate": line.gate,
        "metric": line.metric,
        "slice": line.slice,
        "verdict": line.verdict,
        "value": line.value,
        "threshold": line.threshold,
        "digest": line.digest,
        "environment": line.environment,
        "summary": line.summary,
    }


def _explain_text(answer: VersionAnswer, config: Any) -> str:
    version, model = answer.version, answer.model
    dirty = " with uncommitted changes" if version.dirty else ""
    commit = f"commit {version.commit[:12]}{dirty}" if version.commit else "outside git"
    rows = [
        f"{parse_version(version.version).shown}  {version.state}  tier {model.tier}  owner {model.owner}",
        f"  package     {version.package}",
        f"  made by     {version.author} at {when(version.registered_at)}, {commit}",
        *_makers_text(answer),
        f"  signed by   {', '.join(key[:19] for key in version.signed_by)}",
        f"  environment {short(config.environment)}, code {short(config.code)} in {len(config.closure)} parts",
    ]
    if version.collected_at is not None:
        rows.append(
            f"  package collected at {when(version.collected_at)}: weights and rows are gone, the record is here"
        )
    rows += [f"  held        for {one.matter} by {one.held_by}: {one.reason}" for one in version.holds]
    if answer.imported is not None:
        rows += _imported_text(answer.imported.origin)
    rows += [
        f"  attested    {one.predicate_type} {short(one.envelope)} by {one.attached_by}"
        for one in answer.attestations
    ]
    rows += [f"  data        {name} snapshot {short(one)}" for name, one in config.snapshots.items()]
    rows += [f"  erased      {erased_text(one)}" for one in answer.erased]
    rows += [
        f"  features    {name} {short(one)}{_online_text(answer, one)}" for name, one in config.views.items()
    ]
    rows.append(f"  bump        {version.bump}: {'; '.join(version.why[:4])}")
    rows += [f"  {line.summary}" + _place(line) for line in answer.evidence]
    rows += [
        f"  approved    for {environment} by {one.approver} ({one.role}) at {when(one.approved_at)} "
        f"on evidence {short(one.evidence_set)}"
        + (f", taken back: {one.revoked}" if one.revoked is not None else "")
        + (f"; {one.comment}" if one.comment else "")
        for environment, given in answer.approvals.items()
        for one in given
    ]
    rows += [
        f"  release     {parse_endpoint(one.endpoint).shown} #{one.release} {one.state} "
        f"since {when(one.live_at or one.started_at)}"
        + (f", ticket {one.ticket}" if one.ticket else "")
        + (f" ({one.confirmed.said})" if one.confirmed else "")
        + (f", {one.pull_request}" if one.pull_request else "")
        + f", by {one.started_by}"
        + (f", allowed by waiver {', '.join(one.waivers)}" if one.waivers else "")
        + (f", by break-glass {one.break_glass}" if one.break_glass else "")
        + (f"; {' '.join(one.detail.split())}" if one.detail else "")
        for one in answer.releases
    ]
    if answer.line is not None:
        rows += [f"  out of policy: {why}" for why in answer.line.out_of_policy]
        if answer.line.local is not None:
            rows.append(f"  by hand     {local_text(answer.line.local)}")
        rows += [f"  {one}" for one in ready_text(answer.line.rollback_ready)]
        if answer.line.rollout is not None:
            rows.append(f"  rollout     {rollout_text(answer.line.rollout)}")
    return "\n".join(rows)


def _makers_text(answer: VersionAnswer) -> list[str]:
    """Whoever had a hand in it beside the author, and whether that is everybody."""
    texts = maker_texts(answer.makers)
    rows = [f"              {one}" for one in texts] if len(texts) > 1 else []
    if answer.version.commit and answer.version.told_since is None:
        rows.append("              and whom the commits name that were not in the checkout")
    return rows


def erased_text(one: SnapshotState) -> str:
    assert one.erasure is not None
    by = f"at {when(one.erasure.erased_at)} by {one.erasure.erased_by}"
    return f"{one.dataset} snapshot {short(one.snapshot)} {by}: {one.erasure.reason}"


def _imported_text(origin: Origin) -> list[str]:
    """What another system said; recorded, and no evidence here."""
    run = f", run {origin.run}" if origin.run else ""
    said = [f"{name} {value}" for name, value in origin.metrics.items()]
    said += [f"param {name}={value}" for name, value in origin.params.items()]
    rows = [f"  imported    from {origin.system} {origin.uri}{run}"]
    return rows + [f"  said there  {one}" for one in (*said, *origin.notes)]


def _place(line: EvidenceLine) -> str:
    return f"  ({line.environment})" if line.environment else ""


@verb
@click.argument("version")
@click.option("--for", "environment", metavar="ENV", help="Also what is missing for this environment.")
@click.option("--policy", "file", metavar="FILE", help="By this policy instead of the one in force.")
@click.option(
    "--check", is_flag=True, help="End with what a promotion would: 0 allowed, 3 refused, 8 waiting."
)
def evidence(session: Session, version: str, environment: str | None, file: str | None, check: bool) -> None:
    """What the gates found on a version, and what it still lacks for an environment.

    With --check it decides as the hub would and changes nothing: for CI, and for a policy that is not in force yet.
    """
    key = str(parse_version(version))
    if environment is None and (check or file):
        raise click.UsageError("--check and --policy need --for ENV")
    if environment is None:
        answer: VersionAnswer = session.ask(ExplainVersion(version=key))
        lines = answer.evidence
        session.answer([_evidence_record(line) for line in lines], "\n".join(line.summary for line in lines))
        return
    other = None if file is None else resolve("lockgate.app.cli.verbs.setup:read_policy")(file)
    standing: StandingAnswer = session.ask(Standing(version=key, environment=environment, policy=other))
    claim = " --as NAME" if session.proof is None else ""
    session.answer(standing, _standing_text(standing, parse_version(key).shown, environment, claim))
    if check and standing.decision in _CHECKED:
        raise Exit(_CHECKED[standing.decision])


_CHECKED = {"refused": REFUSED, "waiting": WAITING}


def _standing_text(standing: StandingAnswer, version: str, environment: str, claim: str) -> str:
    """The page an approver reads; its last lines say what to type."""
    beside = parse_version(standing.baseline_version).shown if standing.baseline_version else "nothing yet"
    rows = [f"{version} for {environment}, beside what is there: {beside}"]
    if standing.baseline_version and beside != version:
        rows.append(f"what changed since: lockgate diff {beside} {version}")
    rows += [line.summary + _place(line) for line in standing.evidence]
    rows.append(f"evidence digest {standing.bound}")
    rows.append(
        f"approvals for {environment}: {len(standing.standing)} of {standing.quorum}"
        + (f" ({', '.join(standing.standing)})" if standing.standing else "")
        + (f"; still {', '.join(standing.empty)}" if standing.empty else "")
    )
    if standing.makers:
        rows.append(f"made by {'; '.join(maker_texts(standing.makers))}: none of them approves it")
    rows += plan_lines(standing.plan)
    rows += [
        f"allowed by waiver {one.waiver} until {when(one.until)}: {one.rule}: {one.message}"
        for one in standing.waived
    ]
    if standing.ticket:
        rows.append(
            f"its promotion asks for a ticket that matches {standing.ticket}"
            + (" and is open in the tracker" if standing.tracker else "")
        )
    rows += [f"missing: {reason.rule}: {reason.message}" for reason in standing.reasons]
    rows += [f"next: {one}" for one in _next_typed(standing, version, environment, claim)]
    return "\n".join(rows)


def _next_typed(standing: StandingAnswer, version: str, environment: str, claim: str) -> list[str]:
    """What to type for each word of `StandingAnswer.next`."""
    remedies = {reason.rule: reason.remedy for reason in standing.reasons if reason.remedy}
    match standing.next:
        case "done":
            more = "; what is missing would keep it from coming in again" if standing.reasons else ""
            return [f"nothing, it is live{more}"]
        case "promote":
            ticket = " --ticket TICKET" if standing.ticket else ""
            return [f"lockgate promote {version} --to {environment}{ticket}"]
        case "approve" if "governance.approval" in remedies:
            # Bound to what stands on this page: an approval of anything else is refused.
            return [f"lockgate approve {version} --for {environment} --evidence {standing.bound}{claim}"]
        case "plan":
            return [
                f"lockgate release-plan {version} --for {environment}, then record it with --file or --accept"
            ]
        case "judge" | "validate":
            return [f"lockgate judge {version}"]
        case "judge-for":
            return [f"lockgate judge {version} --for {environment}"]
        case "wait":
            return [
                f"lockgate status {parse_endpoint(f'{environment}/{parse_version(version).model}').shown}"
            ]
    found = list(
        dict.fromkeys(
            remedies[reason.rule]
            for reason in standing.reasons
            if reason.rule in ENDS and reason.rule in remedies
        )
    )
    failed = any(reason.evidence and reason.remedy is None for reason in standing.reasons)
    return ["what a gate has found no command takes back: a fix is a new version"] * failed + [
        one.replace(" --as NAME", claim) for one in found or remedies.values()
    ][:3]


@verb
@click.argument("ref")
@click.option(
    "--openlineage", is_flag=True, help="The run events of a version (OpenLineage 2-0-2), one JSON per line."
)
def lineage(session: Session, ref: str, openlineage: bool) -> None:
    """From source column and snapshot to endpoint and consumer, and back.

    REF is NAME@VERSION, ENV/NAME, a column DATASET.COLUMN, or KIND:KEY such as snapshot:sha256:...

    Example: lockgate lineage flights.dep_delay
    """
    if openlineage:
        session.work_here()
        known: VersionAnswer = session.ask(ExplainVersion(version=str(parse_version(ref))))
        for told in session.control.open_lineage(known.version):
            click.echo(msgspec.json.encode(told).decode())
        return
    if ":" in ref:
        key = ref
    elif "@" in ref:
        key = f"version:{parse_version(ref)}"
    else:
        key = f"column:{in_namespace(ref)}" if "." in ref else f"endpoint:{parse_endpoint(ref)}"
    answer = session.ask(Lineage(ref=key))
    if not answer.edges and not answer.readers:
        # Asked about, a name that nobody knows is answered with its near matches.
        near = _near(session, key)
        session.answer(answer, "\n".join([f"nothing is connected with {key}", *near]))
        return
    rows = [f"{edge.source}  --{edge.kind}-->  {edge.target}" for edge in (*answer.edges, *answer.readers)]
    session.answer(answer, "\n".join(rows))


def _near(session: Session, key: str) -> list[str]:
    """Names like that of a thing nothing is connected with; a version or endpoint that is not there ends the verb."""
    kind, _, name = key.partition(":")
    match kind:
        case "version":
            session.ask(ExplainVersion(version=name))
        case "endpoint":
            session.ask(Status(endpoint=name))
        case "column":
            known: ImpactAnswer = session.ask(Impact(ref=name))
            return [f"did you mean {' or '.join(map(_shown_name, known.near))}?"] if known.near else []
    return []


def _shown_name(full: str) -> str:
    return full.removeprefix(DEFAULT_NAMESPACE + "/")


def in_namespace(ref: str) -> str:
    """The full name of a dataset, column or feature: in the default namespace when none is given."""
    return ref if "/" in ref else f"{DEFAULT_NAMESPACE}/{ref}"


@verb
@click.argument("ref")
def impact(session: Session, ref: str) -> None:
    """What a change would break: endpoints, their consumers and dashboards.

    REF is a column DATASET.COLUMN, a DATASET, or a feature VIEW:FEATURE.

    Example: lockgate impact flights.dep_delay
    """
    answer: ImpactAnswer = session.ask(Impact(ref=in_namespace(ref)))
    rows = []
    for line in answer.lines:
        rows.append(f"{line.endpoint}  {line.version} ({line.role})")
        rows += [f"  {use}" for use in line.uses]
        rows += [f"  read by {name}" for name in line.consumers]
        rows += [f"  shown on {name}" for name in line.dashboards]
    near = f"; did you mean {' or '.join(answer.near)}?" if answer.near else ""
    rows = rows or [f"nothing on any endpoint is made from {ref}{near}"]
    rows += [f"not known: {name} was never traced" for name in answer.untraced]
    session.answer(answer, "\n".join(rows))
