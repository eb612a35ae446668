"""Verbs about keys: which ones count, the next one, the end of one."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import click

from lockgate.adapters.identity.keys import (
    KeyMissing,
    PublicKey,
    change_over,
    make_first,
    next_key,
    prepare_next,
)
from lockgate.adapters.identity.secrets import SecretMissing
from lockgate.app.cli.main import WAITING, Exit
from lockgate.app.cli.session import Session, verb
from lockgate.app.cli.verbs.show import when
from lockgate.core.digests import short
from lockgate.hub.messages import KeysAnswer, RevokedKeys
from lockgate.registry.messages import RevokeKey


@click.group()
def key() -> None:
    """The keys that vouch for packages: list, rotate, revoke."""


@verb
def show(session: Session) -> None:
    """Which keys each environment trusts, which one signs now, which are revoked."""
    answer: KeysAnswer = session.ask(RevokedKeys())
    gone = {one.key_id: one for one in answer.revoked}
    rows = list(_rows(session))
    lines = [
        f"{row['environment']:<12} {row['key_id']}  {row['file']}"
        + ("  signs" if row["signs"] else "")
        + ("  REVOKED" if row["key_id"] in gone else "")
        for row in rows
    ]
    lines += [
        f"{'revoked':<12} {one.key_id}  since {when(one.since)}, by {one.revoked_by}: {one.reason}"
        for one in answer.revoked
    ]
    session.answer({"trusted": rows, "revoked": answer.revoked}, "\n".join(lines))


def _rows(session: Session) -> Iterator[dict[str, Any]]:
    control = session.control
    try:
        signing = control.signer().key_id
    except (KeyMissing, SecretMissing) as error:
        session.note(f"nothing is signed here: {error.message}")
        signing = ""
    for name, table in control.config.environments.items():
        for path in table.trust:
            known = PublicKey.from_file(control.layout.root / path).key_id
            yield {"environment": name, "file": path, "key_id": known, "signs": known == signing}


@verb
def rotate(session: Session) -> None:
    """Bring in the next signing key, in two steps; repeat the command between them and after.

    Where there is no key yet, as in a fresh checkout, it makes one that signs at once.

    First the new key is made and its public half laid into trust/, for you to add to the trust of every environment.
    Once they all trust it, it takes over; the old one is kept beside it and goes on counting until it is revoked or
    taken out of the trust.
    """
    control = session.control
    current = control.signing_file()
    if not current.exists():
        made, public = make_first(current, control.layout.root / "trust")
        shown = public.relative_to(control.layout.root)
        session.answer(
            {"key_id": made.key_id, "file": str(shown), "signs": True},
            f"{made.key_id} is the first key here, and signs from now on\n  public half: {shown}\n"
            "next: add it to trust of each environment in lockgate.toml",
        )
        return
    following = next_key(current)
    if following is None:
        following, public = prepare_next(current, control.layout.root / "trust")
        shown = public.relative_to(control.layout.root)
        session.answer(
            {"key_id": following.key_id, "file": str(shown), "signs": False},
            f"{following.key_id}\n  public half: {shown}\n"
            "next: add it to trust of each environment in lockgate.toml, restart what serves them,\n"
            "      then lockgate key rotate again",
        )
        return
    without = [
        name
        for name in control.config.environments
        if following.key_id not in {one.key_id for one in control.trusted(name)}
    ]
    if without:
        session.answer(
            {"key_id": following.key_id, "signs": False, "not_trusted_in": without},
            f"{following.key_id} does not sign yet: {', '.join(without)} do not trust it",
        )
        raise Exit(WAITING)
    old = change_over(current)
    session.answer(
        {"key_id": following.key_id, "signs": True, "old": str(old)},
        f"{following.key_id} signs from now on; the old key is kept in {old.name}\n"
        "next: lockgate package sign NAME@VERSION for what is live, promote it again,\n"
        "      then take the old key out of trust, or lockgate key revoke it",
    )


@verb
@click.argument("key_id")
@click.option("--reason", required=True, help="Why; it is journaled.")
@click.option("--since", type=click.DateTime(), help="From when (UTC) somebody else may have had it.")
def revoke(session: Session, key_id: str, reason: str, since: datetime | None) -> None:
    """Trust a key nowhere any more. There is no way back; what it signed must be signed again to be released."""
    session.say_identity()
    at = None if since is None else round(since.replace(tzinfo=UTC).timestamp() * 1_000_000)
    command = RevokeKey(id=session.new_id(), key_id=key_id, reason=reason, since=at)
    session.tell(command, headline=f"{short(key_id)} is not revoked")
    session.answer(
        {"key_id": key_id}, f"{short(key_id)} is revoked; lockgate status flags what it alone signed"
    )


key.add_command(show, "list")
key.add_command(rotate)
key.add_command(revoke)
