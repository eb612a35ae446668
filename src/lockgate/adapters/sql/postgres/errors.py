"""What PostgreSQL's errors mean here. The connection string never reaches a message: a mistyped one ends up inside the
driver's own words, password and all, so those of a failed connection are not repeated."""

from __future__ import annotations

import psycopg
from psycopg import errors

from lockgate.adapters.sql.tables import StoreUnreachable
from lockgate.core.errors import Invalid, Unavailable, Unsupported
from lockgate.hub.ports import JournalBusy, JournalUnreadable


class ConnectionStringInvalid(Invalid):
    code = "journal.connection-string-invalid"


class StoreUnsuitable(Unsupported):
    """A database whose settings break a promise of the journal."""

    code = "journal.store-unsuitable"


class CommitUnknown(Unavailable):
    """The connection broke while a command was being written: it happened, or it did not."""

    code = "journal.commit-unknown"


class TextNotStorable(Invalid):
    """A name or an id that this database cannot hold."""

    code = "journal.text-not-storable"


def translated(error: psycopg.Error, place: str) -> Exception:
    """The error to raise for one of a statement on a connection that once stood."""
    match error:
        case errors.LockNotAvailable() | errors.QueryCanceled() | errors.DeadlockDetected():
            return JournalBusy(f"{place} stayed locked", remedy="try again", path=place)
        case errors.DiskFull() | errors.OutOfMemory():
            return JournalBusy(
                f"no room to write {place}", remedy="free some disk space, then try again", path=place
            )
        case errors.ProgramLimitExceeded():
            return TextNotStorable(
                f"{place} cannot keep a name of that length", remedy="use a shorter one", path=place
            )
        case errors.ReadOnlySqlTransaction() | errors.InsufficientPrivilege():
            return StoreUnreachable(
                f"{place} may not be written: {_words(error)}",
                remedy="connect to the primary server, as the role that docs/postgresql.md grants rights to",
                path=place,
            )
        case psycopg.IntegrityError():
            return error
        case psycopg.OperationalError():
            # What ends here ended the connection: a restart, a failover, an administrator, the network.
            return StoreUnreachable(f"the connection to {place} broke", remedy="try again", path=place)
    return JournalUnreadable(
        f"{place} cannot be read: {_words(error)}", remedy="restore it from a backup", path=place
    )


# A failed connection has no SQLSTATE, only words; they are those of the server's language, so another one than English
# ends at the last resort.
_SAID = (
    (
        (
            "password authentication failed",
            "no password supplied",
            "authentication failed for user",
            'role "',
        ),
        "it does not accept that user and password",
        "check what {place} holds",
    ),
    (("no pg_hba.conf entry",), "it does not let this machine in", "add it to pg_hba.conf there"),
    (
        ("permission denied for database",),
        "it does not let that user in",
        "grant CONNECT, or check what {place} holds",
    ),
    (('database "',), "it has no such database", "create the database that {place} names"),
    (
        ("too many clients", "too many connections", "remaining connection slots"),
        "it takes no more connections",
        "raise max_connections, or stop a hub",
    ),
    (("starting up", "shutting down"), "it is starting up or shutting down", "try again"),
    (
        ("does not support SSL", "certificate"),
        "the way there is not as secure as sslmode asks",
        "check sslmode and sslrootcert in what {place} holds, and the certificate of the server",
    ),
    (
        ("could not translate host name", "failed to resolve host"),
        "its host is not known here",
        "check the host that {place} names",
    ),
)


def not_connected(error: psycopg.Error, place: str) -> Exception:
    """The error to raise when no connection could be made; to be raised `from None`."""
    match error:
        case psycopg.ProgrammingError():
            return ConnectionStringInvalid(
                f"{place} is no connection string of PostgreSQL",
                remedy="write postgresql://USER:PASSWORD@HOST:PORT/DATABASE, special characters as %XX",
                path=place,
            )
        case _:
            said = str(error)
            why, remedy = next(
                (
                    (why, remedy.format(place=place))
                    for words, why, remedy in _SAID
                    if any(one in said for one in words)
                ),
                ("it cannot be reached", "check that the server runs where the connection string says"),
            )
    return StoreUnreachable(f"{place} gives no connection: {why}", remedy=remedy, path=place)


def _words(error: psycopg.Error) -> str:
    return error.diag.message_primary or type(error).__name__
