"""Verbs about who is speaking: login, logout, whoami."""

from __future__ import annotations

import webbrowser

import click

from lockgate.app.cli.session import Session, verb
from lockgate.app.cli.verbs.show import when
from lockgate.app.plugins import resolve
from lockgate.core.errors import Invalid, LockgateError
from lockgate.hub.messages import OwnAccess, WhoAmI, WhoAmIAnswer

_LOGIN = "lockgate.adapters.identity.login"
_LOGINS = "lockgate.adapters.identity.logins:Logins"


class HubNotNamed(Invalid):
    code = "cli.hub-not-named"


def _hub(session: Session) -> str:
    if not session.hub_url:
        raise HubNotNamed(
            "there is no hub to log in at: a project's own store believes whom you say you are",
            remedy="add --hub URL, or set LOCKGATE_HUB",
        )
    return session.hub_url


@verb
@click.option("--device", is_flag=True, help="Without a browser here: type a code on another device.")
@click.option("--no-browser", is_flag=True, help="Print the address to open instead of opening it.")
@click.option("--issuer", metavar="URL", help="Which provider, where the hub knows several.")
def login(session: Session, device: bool, no_browser: bool, issuer: str | None) -> None:
    """Prove who you are to a hub's identity provider.

    Example: lockgate login --hub https://lockgate.example.org
    """
    hub = _hub(session)
    provider = resolve(f"{_LOGIN}:provider_of")(hub, lambda: _identity_of(hub), issuer)
    session.note(f"logging in to {hub} at {provider.issuer}, as its client {provider.client_id}")
    flow = resolve(f"{_LOGIN}:Flow")(provider, tell=session.note)

    def show(url: str) -> None:
        session.note(f"open {url}")
        if not no_browser:
            webbrowser.open(url)

    made = flow.by_device() if device else flow.by_browser(show)
    resolve(_LOGINS)().keep(hub, made)
    known: WhoAmIAnswer = session.ask(WhoAmI())
    session.answer({"hub": hub, "actor": known.actor, "roles": known.roles}, f"{_shown(known)}")


def _identity_of(hub: str) -> bytes:
    wire = resolve("lockgate.adapters.hubs.wire:Wire")(hub)
    try:
        said: bytes = wire.send("GET", "/v1/identity").content
    finally:
        wire.close()
    return said


@verb
def logout(session: Session) -> None:
    """Forget the login at a hub, and tell the provider that it has ended."""
    hub, logins = _hub(session), resolve(_LOGINS)()
    held = logins.get(hub)
    logins.forget(hub)
    if held is not None:
        try:
            resolve(f"{_LOGIN}:revoke")(held)
        except LockgateError as error:
            session.note(f"warning: the login is forgotten here, but the provider was not told: {error}")
    session.answer(
        {"hub": hub, "was_logged_in": held is not None},
        f"logged out of {hub}" if held is not None else f"there was no login at {hub}",
    )


@verb
def whoami(session: Session) -> None:
    """Whom the hub takes you for, and what you may do."""
    known: WhoAmIAnswer = session.ask(WhoAmI())
    waiting = []
    if known.roles:
        held = session.ask(OwnAccess()).held
        waiting = [one for one in held if one.grant not in known.grants]
    rows = [_shown(known), *(f"  {grant.shown}" for grant in known.grants)]
    rows += [f"  {one.grant.shown}: not now ({when(one.in_force_at)})" for one in waiting]
    session.answer(known, "\n".join(rows))


def _shown(known: WhoAmIAnswer) -> str:
    how = "claimed, not proven" if known.claimed else f"proven by {known.credential}"
    role = "" if known.roles else "; no role yet (an admin gives one: lockgate access grant)"
    return f"{known.actor} ({known.kind}, {how}){role}"
