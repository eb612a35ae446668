"""`lockgate`: the table of verbs, and how errors become words and exit codes.

Exit codes: 0 ok, 1 bug, 2 usage or invalid input, 3 refused by a gate or policy, 4 not found, 5 conflict,
6 unavailable (retry), 7 corrupt, 8 waiting (approval, bake).
"""

from __future__ import annotations

import errno
import os
import sys
import traceback
from typing import NamedTuple

import click
import msgspec

from lockgate.app.plugins import resolve
from lockgate.core.errors import (
    Bug,
    Conflict,
    Corrupt,
    Forbidden,
    Invalid,
    LockgateError,
    NotFound,
    Unavailable,
    Unsupported,
    did_you_mean,
)
from lockgate.core.messages import Refusal
from lockgate.core.version import VERSION_OF_LOCKGATE


class Verb(NamedTuple):
    group: str
    home: str
    summary: str


_CLI = "lockgate.app.cli"
VERBS: dict[str, Verb] = {
    "status": Verb(
        "read", f"{_CLI}.verbs.show:status", "What runs where, and whether the way back is ready."
    ),
    "explain": Verb("read", f"{_CLI}.verbs.show:explain", "Why a version is what it is, and who let it in."),
    "evidence": Verb("read", f"{_CLI}.verbs.show:evidence", "What the gates found on a version."),
    "lineage": Verb("read", f"{_CLI}.verbs.show:lineage", "From source column to endpoint, and back."),
    "impact": Verb("read", f"{_CLI}.verbs.show:impact", "What a change of the data would break."),
    "dossier": Verb(
        "read", f"{_CLI}.verbs.papers:dossier", "One document of all that is known of a version."
    ),
    "diff": Verb("read", f"{_CLI}.verbs.packages:diff", "What changed between two versions."),
    "whoami": Verb("read", f"{_CLI}.who.login:whoami", "Whom the hub takes you for, and what you may do."),
    "audit": Verb("read", f"{_CLI}.verbs.records.audit:audit", "The journal: read it, verify it, prove it."),
    "package": Verb("read", f"{_CLI}.verbs.packages:package", "Show, verify, sign or export a package."),
    "verify": Verb(
        "read", f"{_CLI}.verbs.supply.carry:verify", "Who signed a package, and every byte of it."
    ),
    "ticket": Verb("read", f"{_CLI}.verbs.people.exceptions:ticket", "The releases that a ticket asked for."),
    "plan": Verb("read", f"{_CLI}.verbs.build:plan", "What would run, and why."),
    "contract": Verb("read", f"{_CLI}.verbs.build:contract", "Hold the datasets to their contracts."),
    "features": Verb("read", f"{_CLI}.verbs.build:features", "The feature definitions and their hashes."),
    "doctor": Verb("read", f"{_CLI}.verbs.setup:doctor", "Whether this machine and project are fit."),
    "init": Verb("change", f"{_CLI}.verbs.setup:init", "Make a project from a template."),
    "declare": Verb("change", f"{_CLI}.verbs.setup:declare", "Make the hub know what lockgate.toml says."),
    "check": Verb("change", f"{_CLI}.verbs.build:check", "The fast stage: contracts, wiring, unit tests."),
    "train": Verb("change", f"{_CLI}.verbs.build:train", "The slow stage: up to a registered version."),
    "snapshot": Verb("change", f"{_CLI}.verbs.build:snapshot", "Extract the datasets anew."),
    "materialize": Verb(
        "change",
        f"{_CLI}.verbs.features:materialize",
        "Bring the features that serving reads by key up to date.",
    ),
    "hold": Verb("change", f"{_CLI}.verbs.records.keeping:hold", "Keep a version, whatever its terms say."),
    "collect": Verb("change", f"{_CLI}.verbs.records.keeping:collect", "Remove what nothing needs any more."),
    "erase": Verb(
        "change", f"{_CLI}.verbs.records.keeping:erase", "Take the rows of a snapshot away for good."
    ),
    "export": Verb(
        "change", f"{_CLI}.verbs.records.audit:export_all", "The registry with its history, in one file."
    ),
    "import": Verb("change", f"{_CLI}.verbs.imports:imports", "Bring in what was made elsewhere."),
    "judge": Verb("change", f"{_CLI}.verbs.judging:judge", "Make evidence on a version."),
    "approve": Verb(
        "change", f"{_CLI}.verbs.judging:approve", "Agree to a version, on exactly its evidence."
    ),
    "reject": Verb("change", f"{_CLI}.verbs.judging:reject", "End a version's way for good."),
    "quarantine": Verb(
        "change", f"{_CLI}.verbs.judging:quarantine", "Forbid new releases of a version, or lift it."
    ),
    "retire": Verb("change", f"{_CLI}.verbs.judging:retire", "End the life of a version nobody serves."),
    "sign-off": Verb(
        "change", f"{_CLI}.verbs.people.exceptions:sign_off", "Agree to a major version, for a consumer."
    ),
    "release-plan": Verb(
        "change", f"{_CLI}.verbs.people.exceptions:release_plan", "What could fail, and what would show it."
    ),
    "waive": Verb(
        "change", f"{_CLI}.verbs.people.exceptions:waive", "Pass over a gate's failure for a time."
    ),
    "break-glass": Verb(
        "change", f"{_CLI}.verbs.people.exceptions:break_glass", "Release in an emergency, past the policy."
    ),
    "review": Verb(
        "change", f"{_CLI}.verbs.people.exceptions:review", "What waits for people; close a review."
    ),
    "policy": Verb("change", f"{_CLI}.verbs.setup:policy", "Show or adopt the policy of the tiers."),
    "makers": Verb(
        "change", f"{_CLI}.verbs.people.exceptions:makers", "Who had a hand in a version; add who else did."
    ),
    "access": Verb("change", f"{_CLI}.who.access:access", "Who holds which role: give, take away, list."),
    "token": Verb("change", f"{_CLI}.who.access:token", "API tokens: issue, list, revoke."),
    "login": Verb("change", f"{_CLI}.who.login:login", "Prove who you are to a hub."),
    "logout": Verb("change", f"{_CLI}.who.login:logout", "Forget the login at a hub."),
    "promote": Verb("change", f"{_CLI}.verbs.release:promote", "Release a version to an environment."),
    "rollback": Verb("change", f"{_CLI}.verbs.release:rollback", "Put the version before back, at once."),
    "rollout": Verb(
        "change", f"{_CLI}.verbs.rollouts:rollout", "A release on its way: see, hold, move, take back."
    ),
    "drill": Verb(
        "change", f"{_CLI}.verbs.rollouts:drill", "Rehearse the way back, without moving a caller."
    ),
    "endpoint": Verb(
        "change", f"{_CLI}.verbs.endpoints:endpoint", "Who depends on an endpoint, and taking it down."
    ),
    "push": Verb("change", f"{_CLI}.verbs.supply.carry:push", "Bring a package to an OCI registry."),
    "pull": Verb("change", f"{_CLI}.verbs.supply.carry:pull", "Bring a package from an OCI registry."),
    "key": Verb("change", f"{_CLI}.verbs.supply.keys:key", "The keys that count: list, rotate, revoke."),
    "ship": Verb("change", f"{_CLI}.verbs.build:ship", "The whole way, as far as it is free."),
    "reproduce": Verb("change", f"{_CLI}.verbs.packages:reproduce", "Build a version again and compare."),
    "webhook": Verb(
        "change", f"{_CLI}.verbs.outside.webhooks:webhook", "Who outside is told of which events, signed."
    ),
    "demo": Verb("change", f"{_CLI}.demo.story:demo", "A real model's way through it, on this machine."),
    "up": Verb("run", f"{_CLI}.verbs.running:up", "Data plane, controller and hub on loopback."),
    "hub": Verb("run", "lockgate.app.team.verb:hub", "The hub of a team, over HTTP."),
    "down": Verb("run", f"{_CLI}.verbs.running:down", "Stop what `up` started."),
    "control": Verb("run", f"{_CLI}.verbs.running:control", "Carry out what waits in the outbox."),
}

_GROUPS = {"read": "Read", "change": "Change", "run": "Long-running"}


class Verbs(click.Group):
    """Knows all verbs by name; loads one when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        verb = VERBS.get(cmd_name)
        return None if verb is None else resolve(verb.home)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in VERBS and not args[0].startswith("-"):
            raise click.UsageError(f"there is no verb {args[0]!r}; {did_you_mean(args[0], VERBS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The help from the table alone: loading thirty verbs to print their names would be slow."""
        for group, title in _GROUPS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(name, verb.summary) for name, verb in VERBS.items() if verb.group == group]
                )


@click.group(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(VERSION_OF_LOCKGATE, prog_name="lockgate")
def cli() -> None:
    """CI/CD for machine-learning models: versioned, tested, promoted, rolled back, governed."""


EXIT_CODES: tuple[tuple[type[LockgateError], int], ...] = (
    (Invalid, 2),
    (Forbidden, 3),
    (Unsupported, 2),
    (NotFound, 4),
    (Conflict, 5),
    (Unavailable, 6),
    (Corrupt, 7),
    (Bug, 1),
)
REFUSED, WAITING = 3, 8


class Refused(Exception):
    """Carries a refusal from a verb to the exit code."""

    def __init__(self, refusal: Refusal, *, headline: str) -> None:
        super().__init__(headline)
        self.refusal = refusal
        self.headline = headline


class NoRoom(Unavailable):
    """A disk is full: that of a file which was being written, or of what standard output leads to."""

    code = "cli.no-room"


class UsageWrong(Invalid):
    """The command line itself: an unknown verb or option, a value that an option does not take."""

    code = "cli.usage"


class Exit(Exception):
    """Ends a verb that has already said everything."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def exit_code(error: LockgateError) -> int:
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Never shows a stack trace unless LOCKGATE_DEBUG is set."""
    given = sys.argv[1:] if arguments is None else arguments
    as_json = "--json" in given
    try:
        cli.main(args=given, prog_name="lockgate", standalone_mode=False)
    except Exit as ended:
        sys.exit(ended.code)
    except click.exceptions.Exit as ended:
        sys.exit(ended.exit_code)
    except click.Abort:
        click.echo("stopped; what was done until now is kept", err=True)
        sys.exit(130)
    except click.ClickException as error:
        if as_json:
            _show_error(_usage_wrong(error), as_json)
        else:
            error.show()
        sys.exit(2)
    except Refused as refused:
        _show_refusal(refused, as_json)
        sys.exit(WAITING if refused.refusal.waiting else REFUSED)
    except LockgateError as error:
        _show_error(error, as_json)
        sys.exit(exit_code(error))
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            _show_bug(error, as_json)
            sys.exit(1)
        # To standard error in either form: it may be standard output that has no room.
        _show_error(_no_room(error), as_json=False)
        sys.exit(exit_code(_no_room(error)))
    except Exception as error:  # noqa: BLE001 - the last resort: a stack trace is no message
        _show_bug(error, as_json)
        sys.exit(1)


def _show_error(error: LockgateError, as_json: bool) -> None:
    if as_json:
        click.echo(msgspec.json.encode({"error": error.record()}).decode())
        return
    first, *rest = error.message.split("\n")
    click.echo(f"error: {first}", err=True)
    for line in rest:
        click.echo(f"       {line}", err=True)
    click.echo(f" next: {error.remedy}", err=True)
    click.echo(f" code: {error.code}", err=True)
    if os.environ.get("LOCKGATE_DEBUG"):
        traceback.print_exc()


def _show_refusal(refused: Refused, as_json: bool) -> None:
    refusal = refused.refusal
    if as_json:
        click.echo(msgspec.json.encode({"refused": refused.headline, "refusal": refusal}).decode())
        return
    word = "waiting" if refusal.waiting else "refused"
    click.echo(f"{word}: {refused.headline}", err=True)
    for reason in refusal.reasons:
        click.echo(f"  - {reason.rule}: {reason.message}", err=True)
        if reason.measured is not None:
            limit = f", limit {reason.limit}" if reason.limit is not None else ""
            click.echo(f"      measured {reason.measured}{limit}", err=True)
        if reason.remedy:
            click.echo(f"      next: {reason.remedy}", err=True)


def _usage_wrong(error: click.ClickException) -> UsageWrong:
    context = error.ctx if isinstance(error, click.UsageError) else None
    verb = "lockgate" if context is None else context.command_path
    return UsageWrong(error.format_message(), remedy=f"{verb} --help")


def _no_room(error: OSError) -> NoRoom:
    where = error.filename or "what this command writes to"
    return NoRoom(
        f"{where} has no room: {error.strerror}",
        remedy="free some disk space; what was done until then stands: lockgate status, lockgate audit log",
    )


def _show_bug(error: Exception, as_json: bool) -> None:
    record = Bug(
        f"Lockgate broke a promise of its own: {type(error).__name__}: {error}",
        remedy="run it again with LOCKGATE_DEBUG=1 and report what it prints",
    )
    _show_error(record, as_json)
    if os.environ.get("LOCKGATE_DEBUG"):
        traceback.print_exc()
