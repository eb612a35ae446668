"""Documents of the pipeline room."""

from __future__ import annotations

import msgspec

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.core.documents import Columns, DocumentKind
from lockgate.core.messages import Event, Stamp
from lockgate.pipeline.messages import RunFinished


class RunState(msgspec.Struct, frozen=True, kw_only=True):
    """A finished run: what went in, what came out, who started it."""

    run: Digest
    model: str
    package: Digest
    commit: str
    dirty: bool
    snapshots: dict[str, Digest]
    author: str
    finished_at: Micros


def _keys(event: Event) -> tuple[str, ...]:
    return (event.run,) if isinstance(event, RunFinished) else ()


def _fold(body: RunState | None, event: Event, stamp: Stamp) -> RunState:
    assert isinstance(event, RunFinished)
    return RunState(
        run=event.run,
        model=event.model,
        package=event.package,
        commit=event.commit,
        dirty=event.dirty,
        snapshots=event.snapshots,
        author=stamp.actor,
        finished_at=stamp.at,
    )


def _edges(event: Event) -> tuple[tuple[str, str, str], ...]:
    if not isinstance(event, RunFinished):
        return ()
    into = tuple((f"snapshot:{name}", "read_by", f"run:{event.run}") for name in event.snapshots.values())
    return (*into, (f"run:{event.run}", "made", f"package:{event.package}"))


RUN = DocumentKind(
    name="run",
    type=RunState,
    keys=_keys,
    fold=_fold,
    columns=lambda body: Columns(body.model, "", body.package),
    edges=_edges,
)
