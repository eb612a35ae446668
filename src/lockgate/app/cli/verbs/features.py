"""`materialize`: the features that serving reads by entity key, brought up to date."""

from __future__ import annotations

import click

from lockgate.app.cli.progress import Counts, watching
from lockgate.app.cli.session import Session, verb
from lockgate.core.clock import Micros, iso, parse_iso
from lockgate.core.digests import short
from lockgate.core.errors import Invalid
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
def materialize(session: Session, model: str | None, until: str | None, views: tuple[str, ...]) -> None:
    """Bring the features that serving reads by entity key into .lockgate/online.

    Rows come from the snapshots taken last. A row that is there already stays, so running it again changes nothing.

    Example: lockgate materialize --until 2013-11-04T12:00Z
    """
    session.work_here()
    config, premises = session.control.config, session.control.premises
    name = config.model_name(model or config.only_model())
    end = _instant(until, premises.clock.now())
    with watching(Counts()) as observer:
        work = Materializer(premises, name, views=views, observer=observer)
        taken = work.push(end)
    rows, record = [], []
    for view, feed in work.feeds.items():
        extent, digest = feed.extent(end), work.hashes[view]
        newest = None if extent.newest_at is None else iso(extent.newest_at)
        rows.append(
            f"{view:<24} {short(digest)}  {taken[view]:>7,} new of {extent.n_keys:,} keys, "
            f"{extent.n_rows:,} rows to {newest or '-'}"
        )
        record.append(
            {
                "view": view,
                "hash": digest,
                "n_rows": extent.n_rows,
                "n_keys": extent.n_keys,
                "n_new": taken[view],
                "newest_at": newest,
            }
        )
    session.answer({"until": iso(end), "views": record}, "\n".join(rows) or "the service takes no views")


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
