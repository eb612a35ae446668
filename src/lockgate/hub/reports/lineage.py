"""Where things come from and where they lead to, from source column to dashboard; what a change would break.

Edges are journaled and never taken back: a version that was once released somewhere came from where it came from. Who
reads an endpoint and what an online store was filled from is read from documents as they are now, and so is what a
change would break: only what runs, what is kept for the way back and what is on its way can break.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from lockgate.core.digests import short
from lockgate.core.errors import near_matches
from lockgate.core.names import parse_endpoint, parse_version
from lockgate.delivery.state import EndpointState
from lockgate.features.state import MaterializationState
from lockgate.hub.messages import ImpactAnswer, ImpactLine, LineageAnswer, LineageLine
from lockgate.hub.ports import Edge
from lockgate.registry.messages import HOW, TracedInput
from lockgate.registry.state import TraceState


def readers(endpoints: Iterable[EndpointState]) -> tuple[Edge, ...]:
    """Who reads each endpoint today: its consumers and dashboards."""
    return tuple(
        Edge(f"endpoint:{one.endpoint}", kind, f"{what}:{name}")
        for one in endpoints
        if one.removed_at is None
        for kind, what, names in (
            ("read_by", "consumer", one.consumers),
            ("shown_on", "dashboard", one.dashboards),
        )
        for name in names
    )


def feeders(stores: Iterable[MaterializationState]) -> tuple[Edge, ...]:
    """What online stores were last filled from: snapshot to view in a store to feature. Snapshots of earlier pushes are
    left out, or a view that is refreshed every hour would show each one."""
    found = []
    for state in stores:
        namespace = state.model.partition("/")[0]
        for one in state.views:
            online, meant = one.online, short(one.online.hash)
            here = f"online:{namespace}/{online.view}@{meant}"
            found += [Edge(f"snapshot:{each}", "pushed_to", here) for each in online.snapshots.values()]
            found += [
                Edge(here, "serves", f"feature:{namespace}/{online.view}:{name}@{meant}")
                for name in online.features
            ]
    return tuple(found)


def walk(
    ref: str,
    edges: Callable[..., Sequence[Edge]],
    more: Iterable[Edge] = (),
    *,
    is_forward: bool,
) -> set[Edge]:
    """Every edge that starts from `ref`, or leads to it, over any number of steps.

    Args:
        edges: those of the journal, by `sources` or `targets`.
        more: further ones.
    """
    added: dict[str, list[Edge]] = {}
    for edge in more:
        added.setdefault(edge.source if is_forward else edge.target, []).append(edge)
    found: set[Edge] = set()
    seen, here = {ref}, {ref}
    # All that is equally far away is asked for at once: of a column of a dataset, some ten thousand things are.
    while here:
        near = set(edges(sources=here) if is_forward else edges(targets=here))
        near.update(edge for at in here for edge in added.get(at, ()))
        found |= near
        here = {edge.target if is_forward else edge.source for edge in near} - seen
        seen |= here
    return found


def answer(edges: Iterable[Edge], known: Iterable[Edge]) -> LineageAnswer:
    """The answer about `edges`; those among `known` are the readers."""
    reading, found = set(known), sorted(edges)
    return LineageAnswer(
        edges=tuple(_line(edge) for edge in found if edge not in reading),
        readers=tuple(_line(edge) for edge in found if edge in reading),
    )


def _line(edge: Edge) -> LineageLine:
    return LineageLine(source=edge.source, kind=edge.kind, target=edge.target)


def impact(
    ref: str, endpoints: Sequence[EndpointState], trace_of: Callable[[str], TraceState | None]
) -> ImpactAnswer:
    """What depends on a column, a dataset or a feature, by what is on the endpoints now."""
    lines: list[ImpactLine] = []
    untraced: set[str] = set()
    used: set[str] = set()
    for endpoint in endpoints:
        for role, version in [] if endpoint.removed_at else on(endpoint):
            trace = trace_of(version)
            shown = parse_version(version).shown
            if trace is None:
                untraced.add(f"{shown} on {parse_endpoint(endpoint.endpoint).shown}")
                continue
            used |= _named(trace.inputs)
            uses = _uses(ref, trace.inputs)
            if uses:
                lines.append(
                    ImpactLine(
                        endpoint=parse_endpoint(endpoint.endpoint).shown,
                        version=shown,
                        role=role,
                        uses=uses,
                        consumers=endpoint.consumers,
                        dashboards=endpoint.dashboards,
                    )
                )
    near = () if lines or ref in used else tuple(near_matches(ref, used))
    return ImpactAnswer(ref=ref, lines=tuple(lines), untraced=tuple(sorted(untraced)), near=near)


def on(endpoint: EndpointState) -> list[tuple[str, str]]:
    """The versions that are on an endpoint, each in its weightiest role."""
    roles = {
        "live": endpoint.live and endpoint.live.served.version,
        "underway": endpoint.rollout and endpoint.rollout.served.version,
        "previous": endpoint.previous and endpoint.previous.served.version,
    }
    found: dict[str, str] = {}
    for role, version in roles.items():
        if version:
            found.setdefault(version, role)
    return [(role, version) for version, role in found.items()]


def _named(inputs: Sequence[TracedInput]) -> set[str]:
    """What `_uses` would find something for: columns, their datasets, features."""
    columns = {one.column for traced in inputs for one in traced.columns}
    features = {traced.feature.partition("@")[0] for traced in inputs if traced.feature}
    return columns | {column.rpartition(".")[0] for column in columns} | features


def _uses(ref: str, inputs: Sequence[TracedInput]) -> tuple[str, ...]:
    found = []
    for traced in inputs:
        name = traced.input or traced.source
        through = f" through {traced.source}" if traced.feature else ""
        if traced.feature.partition("@")[0] == ref:
            found.append(f"{name} is it")
        found += [
            f"{name} {HOW[one.how]}{through}"
            + ("" if one.column == ref else f" ({one.column.rpartition('.')[2]})")
            for one in traced.columns
            if one.column == ref or one.column.rpartition(".")[0] == ref
        ]
    return tuple(found)
