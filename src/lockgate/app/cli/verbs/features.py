"""`materialize`: the features that serving reads by entity key, brought up to date."""

from __future__ import annotations

from collections.abc import Mapping

import click
import msgspec

from lockgate.adapters.online.required import views_of
from lockgate.app.cli.progress import Counts, watching
from lockgate.app.cli.session import Session, told, verb
from lockgate.core.clock import Micros, iso, parse_iso
from lockgate.core.digests import Digest, short
from lockgate.core.errors import Invalid
from lockgate.core.messages import Scope
from lockgate.core.names import parse_version
from lockgate.data.messages import RecordContractCheck, RecordSnapshot
from lockgate.features.messages import RecordMaterialization
from lockgate.hub.messages import Status, StatusAnswer
from lockgate.workshop.online import Materializer


class BadInstant(Invalid):
    """A moment that cannot be read, or that has not come yet."""

    code = "cli.bad-instant"


@verb
@click.argument("model", required=False)
@click.option(
    "--until", metavar="INSTANT", help="Push what was known by then, such as 2013-11-04T12:00Z; default: now."
)
@click.option("--view", "views", multiple=True, metavar="NAME", help="Only this view; may be repeated.")
@click.option("--anew", is_flag=True, help="Forget the rows there are first: keys that left the data go.")
def materialize(
    session: Session, model: str | None, until: str | None, views: tuple[str, ...], anew: bool
) -> None:
    """Bring the features that serving reads by entity key into .lockgate/online.

    Rows come from the snapshots taken last, and stay on this machine, with --hub too. A row that is there already
    stays, so running it again changes nothing. What was brought, from what and up to when, goes on record.

    Example: lockgate materialize --until 2013-11-04T12:00Z
    """
    config, premises = session.control.config, session.premises
    name = config.model_name(model or config.only_model())
    end = _instant(until, premises.clock.now())
    scope = Scope(namespace=name.namespace)
    session.require(
        (RecordSnapshot, scope),
        (RecordContractCheck, scope),
        (RecordMaterialization, Scope(namespace=name.namespace, model=name.name)),
    )
    with watching(Counts()) as observer, told(session):
        work = Materializer(premises, name, views=views, observer=observer)
        brought = work.materialize(session.working, end, anew=anew)
    session.seal()
    rows = [
        f"{one.view:<24} {short(one.hash)}  {one.n_new:>7,} new of {one.n_keys:,} keys, "
        f"{one.n_rows:,} rows to {_shown(one.newest_at) or '-'}"
        for one in brought
    ]
    record = [
        {**msgspec.structs.asdict(one), "newest_at": _shown(one.newest_at), "features": list(one.features)}
        for one in brought
    ]
    session.answer({"until": iso(end), "views": record}, "\n".join(rows) or "the service takes no views")
    if not views:
        _tell_of_older_ones(session, str(name), work.hashes)


def _tell_of_older_ones(session: Session, model: str, pushed: Mapping[str, Digest]) -> None:
    """Versions that answer, or may again, and read a view as it was defined before: its rows grow old."""
    answer: StatusAnswer = session.ask(Status())
    for name, line in answer.endpoints.items():
        for version in (line.live, line.previous):
            if version is None or str(parse_version(version.version).model) != model:
                continue
            needed = views_of(version.digest, session.blobs)
            older = sorted(view for view, digest in needed.items() if pushed.get(view) != digest)
            if older:
                session.note(
                    f"warning: {version.version} on {name} reads {', '.join(older)} as defined before; "
                    "these rows are not refreshed"
                )


def _shown(at: Micros | None) -> str | None:
    return None if at is None else iso(at)


def _instant(text: str | None, now: Micros) -> Micros:
    if text is None:
        return now
    try:
        at = parse_iso(text)
    except ValueError as error:
        raise BadInstant(
            f"--until {text!r} is no instant: {error}",
            remedy="write an ISO instant with its zone: 2013-11-04T12:00Z",
            until=text,
        ) from error
    if at > now:
        raise BadInstant(
            f"--until {text} has not come yet", remedy="leave it out to push what is known now", until=text
        )
    return at
