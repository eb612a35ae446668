"""The dossier of a version: what the journal knows and what the package holds, put into one document.

Nothing is claimed that was not measured. Where a question has no answer in journal or package, the section says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import msgspec

from lockgate.core.blobs import BlobMissing, BlobStore
from lockgate.core.clock import Micros, iso
from lockgate.core.digests import canonical, short
from lockgate.core.names import parse_endpoint, parse_version
from lockgate.gates.evidence import Evidence
from lockgate.gates.messages import EvidenceLine
from lockgate.gates.scans.dossier import SECTIONS, is_written
from lockgate.governance.dossier.document import Dossier, Section, Table
from lockgate.hub.messages import DossierFacts
from lockgate.registry.makers import maker_texts
from lockgate.registry.messages import HOW
from lockgate.registry.packages.contract import InputField
from lockgate.registry.packages.lock import LockUnreadable, parse_lock
from lockgate.registry.packages.package import ENVIRONMENT_PATH, INCLUDE_PREFIX, Package, PackageConfig
from lockgate.registry.packages.signing import SBOM_PREDICATE

_TITLES: Mapping[str, str] = {
    "intended_use": "Intended use",
    "limitations": "Known limitations",
    "risk_assessment": "Risk assessment",
    "human_oversight": "Human oversight",
    "monitoring_plan": "Monitoring plan",
}


def compile_dossier(known: DossierFacts, package: Package, blobs: BlobStore) -> Dossier:
    """The document. The same journal and package give the same one, wherever and whenever.

    Raises:
        LayerCorrupt, LayerMissing: what it would quote from the package does not hold.
    """
    parts = _Parts(known, package, blobs)
    sections = parts.sections()
    version = known.explained.version
    model = known.explained.model
    return Dossier(
        version=parse_version(version.version).shown,
        package=version.package,
        tier=model.tier,
        owner=model.owner,
        purpose=model.purpose,
        sections=sections,
        missing=tuple(one.id for one in sections if one.origin == "missing"),
    )


class _Parts:
    """The sections of one dossier."""

    def __init__(self, known: DossierFacts, package: Package, blobs: BlobStore) -> None:
        self._known = known
        self._package = package
        self._blobs = blobs
        self._explained = known.explained
        self._config: PackageConfig = package.config

    def sections(self) -> tuple[Section, ...]:
        return (
            self._identification(),
            self._written("intended_use"),
            self._data(),
            self._features(),
            self._training(),
            self._materials(),
            self._contract(),
            self._evidence(),
            self._slices(),
            self._fairness(),
            self._written("limitations"),
            self._written("risk_assessment"),
            self._written("human_oversight"),
            self._approvals(),
            self._exceptions(),
            self._releases(),
            self._consumers(),
            self._lineage(),
            self._changes(),
            self._signatures(),
            self._written("monitoring_plan"),
            self._records(),
        )

    def _written(self, name: str, title: str = "", **more: Any) -> Section:
        """A section of the owner's, with what is known beside it."""
        path = self._config.recipe.get("dossier", {}).get(name, "")
        inside = {layer.path for layer in self._package.layers}
        data = (
            self._package.read(INCLUDE_PREFIX + path, self._blobs)
            if INCLUDE_PREFIX + path in inside
            else None
        )
        title = title or _TITLES[name]
        if data is None or not is_written(data):
            return Section(id=name, title=title, origin="missing", asks=SECTIONS[name], **more)
        return Section(
            id=name, title=title, origin="written", text=data.decode(errors="replace"), file=path, **more
        )

    def _identification(self) -> Section:
        version, model = self._explained.version, self._explained.model
        dirty = " with changes that were not committed" if version.dirty else ""
        holds = "; ".join(f"{one.matter} since {_day(one.held_at)} by {one.held_by}" for one in version.holds)
        return Section(
            id="identification",
            title="Identification",
            facts=_filled(
                model=model.model,
                version=parse_version(version.version).shown,
                package=version.package,
                state=version.state + (f": {version.reason}" if version.reason else ""),
                tier=model.tier,
                owner=model.owner,
                purpose=model.purpose,
                made_by=f"{version.author} at {iso(version.registered_at)}",
                commit=f"{version.commit}{dirty}" if version.commit else "outside of Git",
                holds=holds or "none",
            ),
        )

    def _data(self) -> Section:
        kept = {one.snapshot: one for one in self._known.snapshots}
        rows = []
        for name, digest in sorted(self._config.snapshots.items()):
            one = kept.get(digest)
            rows.append(
                (name, short(digest), "not recorded", "", "", "")
                if one is None
                else (
                    name,
                    short(digest),
                    f"{one.n_rows:,}",
                    iso(one.extracted_at),
                    short(one.contract) if one.contract else "none",
                    "; ".join((one.state, *one.violations)),
                )
            )
        return Section(
            id="data",
            title="Data",
            tables=(_table("dataset", "snapshot", "rows", "taken", "contract", "state")(rows),),
            notes=self._found("privacy.tags"),
        )

    def _features(self) -> Section:
        traced = {one.input: one for one in self._config.traces}
        rows = [
            (
                field.name,
                field.dtype,
                field.source,
                ", ".join(f"{one.dataset}.{one.column} {HOW[one.how]}" for one in traced[field.name].columns)
                or "-"
                if field.name in traced
                else "not traced",
            )
            for field in self._config.contract.inputs
        ]
        views = [(name, short(view)) for name, view in sorted(self._config.views.items())]
        return Section(
            id="features",
            title="Features",
            facts=_filled(service=f"{self._config.service} {short(self._config.service_hash)}"),
            notes=() if views else ("No feature view: every input comes with the request.",),
            tables=(
                _table("input", "type", "from", "columns")(rows),
                *([_table("view", "meaning")(views)] if views else []),
            ),
        )

    def _training(self) -> Section:
        config, run = self._config, self._known.run
        recipe = config.recipe
        imported = self._explained.imported
        notes: tuple[str, ...] = ()
        if imported is not None:
            notes = ("It was not trained here but brought in from another system.",)
        elif run is None:
            notes = ("No run of it is recorded.",)
        return Section(
            id="training",
            title="Training",
            facts=_filled(
                run="" if run is None else f"{run.run}, by {run.author} at {iso(run.finished_at)}",
                forms=", ".join(form.format for form in config.forms),
                label=str(recipe.get("label", "")),
                functions=", ".join(
                    str(recipe[name]) for name in ("examples", "train", "evaluation_set") if name in recipe
                ),
                params=_json(config.params),
                seeds=_json(config.seeds),
                threads=_json(config.threads),
                code=f"{config.code} in {len(config.closure)} parts",
            ),
            notes=notes,
        )

    def _materials(self) -> Section:
        bills = [one for one in self._explained.attestations if one.predicate_type == SBOM_PREDICATE]
        try:
            pins = parse_lock(self._package.read(ENVIRONMENT_PATH, self._blobs))
            lock = (
                f"{self._config.environment}, {len({(one.name, one.version) for one in pins})} distributions"
            )
        except LockUnreadable as error:
            lock = f"{self._config.environment}; {error.message}"
        return Section(
            id="materials",
            title="Materials: third-party code and the bill of materials",
            facts=_filled(
                environment=lock,
                bill_of_materials=f"{bills[-1].statement}, in envelope {bills[-1].envelope}"
                if bills
                else "none is attached",
            ),
            notes=(*self._found("security.deps"), *self._found("security.format")),
        )

    def _contract(self) -> Section:
        output = self._config.contract.output
        rows = [(one.name, one.dtype, _limits(one)) for one in self._config.contract.inputs]
        return Section(
            id="contract",
            title="Contract: what it takes and gives",
            facts=_filled(output=f"{output.name}, a {output.kind}" + _range(output.minimum, output.maximum)),
            tables=(_table("input", "type", "limits")(rows),),
        )

    def _lines(self, *gates: str) -> list[EvidenceLine]:
        return [one for one in self._explained.evidence if one.gate in gates]

    def _found(self, gate: str) -> tuple[str, ...]:
        """What a gate says in words; its record lies in the blob store."""
        said: list[str] = []
        for line in self._lines(gate):
            said.append(f"{line.summary}.")
            try:
                record = msgspec.json.decode(self._blobs.get(line.digest), type=Evidence)
            except (BlobMissing, msgspec.MsgspecError):
                continue
            said += [f"{detail}." for detail in record.details]
        return tuple(dict.fromkeys(said)) or (f"Gate {gate} was not asked.",)

    def _evidence(self) -> Section:
        rows = [_evidence_row(one) for one in self._explained.evidence if one.gate != "perf.slices"]
        heads = [
            (
                one.environment or "the version alone",
                short(one.evidence_set),
                iso(one.recorded_at),
                one.recorded_by,
            )
            for one in self._known.evidence
        ]
        return Section(
            id="evidence",
            title="Evidence",
            tables=(
                _table("about", "evidence set", "recorded", "by")(heads),
                _table("gate", "metric", "where", "verdict", "measured", "limit", "evidence")(rows),
            ),
            notes=() if rows else ("There is no evidence.",),
        )

    def _slices(self) -> Section:
        lines = self._lines("perf.slices")
        table = _table("gate", "metric", "where", "verdict", "measured", "limit", "evidence")
        compared = any(line.value for line in lines)
        return Section(
            id="slices",
            title="Slices",
            tables=_present(table(_evidence_row(line) for line in lines)),
            notes=()
            if compared
            else ("No slice was compared: there was no version before it to compare with.",),
        )

    def _fairness(self) -> Section:
        sliced = sorted({one.slice.partition("=")[0] for one in self._lines("perf.slices") if one.slice})
        measured = (
            f"Measured is whether it is worse than the version before by: {', '.join(sliced)}."
            if sliced
            else "Nothing is measured by groups."
        )
        return self._written(
            "fairness",
            "Fairness",
            notes=(
                measured,
                "No gate compares outcomes between groups of persons; where the owner claims more, it is said above.",
            ),
        )

    def _approvals(self) -> Section:
        rows = [
            (
                environment,
                one.role,
                one.approver,
                iso(one.approved_at),
                short(one.evidence_set),
                short(one.policy),
                f"taken back: {one.revoked}" if one.revoked is not None else one.comment,
            )
            for environment, given in self._explained.approvals.items()
            for one in given
        ]
        rows += [
            (environment, one.role, one.by, iso(one.declined_at), short(one.evidence_set), short(one.policy),
             f"DECLINED: {one.reason}")
            for environment, said in self._known.objections.items()
            for one in said
        ]  # fmt: skip
        policy = self._known.policy
        plans = [
            (one.environment, risk.what, risk.signal, f"back to {one.plan.back_to}")
            for one in self._known.plans
            for risk in one.plan.risks
        ]
        signed = [
            (state.environment, one.consumer, one.by, iso(one.at), one.comment)
            for state in self._known.sign_offs
            for one in state.signed
        ]
        return Section(
            id="approvals",
            title="Approvals",
            facts=_filled(
                policy=f"{policy.policy.name} {policy.policy.version}, {policy.digest}"
                if policy
                else "none is adopted",
                makers=f"{'; '.join(maker_texts(self._explained.makers))}: none of them can approve it",
            ),
            tables=_present(
                _table("for", "as", "who", "when", "evidence set", "policy", "said")(rows),
                _table("for", "what could fail", "what would show it", "way back")(plans),
                _table("for", "consumer", "signed off by", "when", "said")(signed),
            ),
            notes=() if rows else ("Nobody has approved it yet.",),
        )

    def _exceptions(self) -> Section:
        waivers = [
            (
                one.name, one.environment, one.gate, one.versions, one.reason, one.control, one.ticket,
                f"{one.granted_by} at {iso(one.granted_at)}" if one.granted_at else "not granted",
                iso(one.until) + (f", ended: {one.ended}" if one.ended_at else ""),
            )
            for one in self._known.waivers
        ]  # fmt: skip
        broken = [
            (
                one.name, one.environment, one.incident, one.reason, f"{one.broken_by} at {iso(one.broken_at)}",
                f"{one.reviewed_by}: {one.finding}" if one.reviewed_at else f"owed by {iso(one.review_due)}",
            )
            for one in self._known.break_glass
        ]  # fmt: skip
        return Section(
            id="exceptions",
            title="Exceptions of the model: waivers and emergency rights",
            tables=_present(
                _table(
                    "waiver", "for", "gate", "versions", "why", "control", "ticket", "granted by", "until"
                )(waivers),
                _table("right", "for", "incident", "why", "by", "review")(broken),
            ),
            notes=() if waivers or broken else ("There are none.",),
        )

    def _releases(self) -> Section:
        rows = [
            (
                parse_endpoint(one.endpoint).shown,
                f"#{one.release}",
                one.state.replace("_", " ") + (f": {one.detail}" if one.detail else ""),
                one.started_by,
                iso(one.live_at) if one.live_at else "never live",
                iso(one.ended_at) if one.ended_at else "-",
                ", ".join(
                    filter(None, (one.ticket, one.confirmed.said if one.confirmed else "", one.pull_request))
                )
                or "-",
                ", ".join([*one.waivers, *([one.break_glass] if one.break_glass else [])]) or "-",
            )
            for one in self._explained.releases
        ]
        back = [one for one in self._explained.releases if one.state in ("rolled_back", "failed")]
        return Section(
            id="releases",
            title="Releases and rollbacks",
            tables=_present(
                _table("endpoint", "release", "state", "by", "live since", "ended", "ticket", "exceptions")(
                    rows
                )
            ),
            notes=(f"{len(back)} of {len(rows)} releases were taken back or failed.",)
            if rows
            else ("It was never released.",),
        )

    def _consumers(self) -> Section:
        rows = [
            (
                parse_endpoint(one.endpoint).shown,
                parse_version(one.live.served.version).shown if one.live else "nothing",
                ", ".join(one.consumers) or "-",
                ", ".join(one.dashboards) or "-",
                one.fallback.kind
                if one.fallback.value is None
                else f"{one.fallback.kind} {one.fallback.value:g}",
            )
            for one in self._known.endpoints
            if one.removed_at is None
        ]
        return Section(
            id="consumers",
            title="Endpoints, consumers, fallbacks",
            tables=_present(_table("endpoint", "live", "consumers", "dashboards", "fallback")(rows)),
            notes=() if rows else ("No endpoint of it is declared.",),
        )

    def _lineage(self) -> Section:
        trace = self._known.trace
        if trace is None:
            return Section(
                id="lineage", title="Lineage", notes=("From which columns it is made was not recorded.",)
            )
        reached: dict[str, set[str]] = {}
        for traced in trace.inputs:
            for one in traced.columns:
                reached.setdefault(one.column, set()).add(traced.input or traced.source)
        rows = [(column, ", ".join(sorted(names))) for column, names in sorted(reached.items())]
        return Section(id="lineage", title="Lineage", tables=(_table("column", "reaches")(rows),))

    def _changes(self) -> Section:
        version = self._explained.version
        previous = parse_version(version.previous).shown if version.previous else "none, it is the first"
        return Section(
            id="changes",
            title="Changes since the version before",
            facts=_filled(before=previous, step=version.bump),
            notes=tuple(f"{why}." for why in version.why),
        )

    def _signatures(self) -> Section:
        version = self._explained.version
        rows = [
            (one.predicate_type, short(one.statement), short(one.envelope), one.signed_by, iso(one.attached_at),
             one.attached_by)
            for one in self._explained.attestations
        ]  # fmt: skip
        return Section(
            id="signatures",
            title="Signatures and attestations",
            facts=_filled(signatures=", ".join(version.signatures), signed_by=", ".join(version.signed_by)),
            tables=_present(_table("kind", "statement", "envelope", "signed by", "attached", "by")(rows)),
        )

    def _records(self) -> Section:
        return Section(
            id="records",
            title="Records",
            notes=(
                "Every decision about this version, refusals included, is an event of a hash-chained journal. "
                "`lockgate audit verify` checks the chain and folds every document anew; its signed heads lie where "
                "the owner of the database cannot rewrite them.",
            ),
        )


def _filled(**values: str) -> tuple[tuple[str, str], ...]:
    return tuple((name.replace("_", " "), value) for name, value in values.items() if value)


def _table(*columns: str) -> Callable[[Iterable[tuple[str, ...]]], Table]:
    return lambda rows: Table(columns=columns, rows=tuple(rows))


def _present(*tables: Table) -> tuple[Table, ...]:
    return tuple(table for table in tables if table.rows)


def _evidence_row(line: EvidenceLine) -> tuple[str, ...]:
    where = ", ".join(text for text in (line.slice, line.environment) if text)
    measured = line.value or "not measured"
    return line.gate, line.metric, where, line.verdict, measured, line.threshold, short(line.digest)


def _limits(field: InputField) -> str:
    parts = ["may be missing" if field.nullable else "required"]
    if field.categories:
        parts.append(f"one of {', '.join(field.categories)}")
    return ", ".join(parts) + _range(field.minimum, field.maximum)


def _range(low: float | None, high: float | None) -> str:
    if low is None and high is None:
        return ""
    return f", {'any' if low is None else f'{low:g}'} to {'any' if high is None else f'{high:g}'}"


def _json(value: Mapping[str, Any]) -> str:
    return canonical(value).decode() if value else ""


def _day(at: Micros) -> str:
    return iso(at)[:10]
