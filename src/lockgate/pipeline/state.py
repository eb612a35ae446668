"""Documents of the pipeline room."""

from __future__ import annotations

import msgspec

from lockgate.core.clock import Micros
from lockgate.core.digests import Digest
from lockgate.core.documents import Columns, DocumentKind
from lockgate.core.messages import Stamp
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


def _finished(body: RunState | None, event: RunFinished, stamp: Stamp) -> RunState:
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


def _edges(event: RunFinished) -> tuple[tuple[str, str, str], ...]:
    into = tuple((f"snapshot:{name}", "read_by", f"run:{event.run}") for name in event.snapshots.values())
    return (*into, (f"run:{event.run}", "made", f"package:{event.package}"))


RUN = DocumentKind(
    name="run",
    type=RunState,
    keys=lambda event: (event.run,),
    made_by={RunFinished: _finished},
    columns=lambda body: Columns(body.model, "", body.package),
    edges={RunFinished: _edges},
)
